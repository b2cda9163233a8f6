"""Percentiles without numpy, which would cost the load worker its quick start."""

from collections.abc import Iterable
from math import floor


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The value below which ``percent`` of the values lie, linearly interpolated as ``numpy.percentile`` does.

    Returns:
        ``None`` of nothing: a percentile of no values is not zero.
    """
    ranked = sorted(values)
    if not ranked:
        return None
    place = (len(ranked) - 1) * percent / 100
    below = floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)
