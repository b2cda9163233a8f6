"""What repeated launches say of the machine: by how much equal launches differ, and whether it drifts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, log, sqrt
from statistics import fmean

from tuner.proof.estimate import Noise

_FEWEST_FOR_DRIFT = 2
"""Degrees of freedom that must be left once a drift is taken out."""
_SURE = 0.025
"""A drift is one if chance alone would show it this rarely, on either side."""


@dataclass(frozen=True, slots=True)
class MetricReading:
    """A metric of one launch.

    Attributes:
        at: When, counted in launches from the study's beginning.
        value: The metric; positive.
    """

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Scatter:
    """What is known of the noise of one metric.

    Attributes:
        noise: Between launches of one configuration; ``None`` where none was launched twice.
        drift: Change of the metric's log per launch, beyond doubt; else 0.
    """

    noise: Noise | None
    drift: float = 0.0


def scatter(groups: Sequence[Sequence[MetricReading]]) -> Scatter:
    """Pool what the launches of each configuration differ by; a straight line in time is common to all of them.

    Args:
        groups: The readings of each configuration.
    """
    repeated = [group for group in groups if len(group) > 1]
    dof = sum(len(group) - 1 for group in repeated)
    if not dof:
        return Scatter(None)
    times = [time for group in repeated for time in _centred([reading.at for reading in group])]
    logs = [value for group in repeated for value in _centred([log(reading.value) for reading in group])]
    plain = Scatter(Noise(sqrt(fsum(each * each for each in logs) / dof), dof))
    spread = fsum(time * time for time in times)
    if dof - 1 < _FEWEST_FOR_DRIFT or not spread:
        return plain
    slope = fsum(a * b for a, b in zip(times, logs, strict=True)) / spread
    rest = [value - slope * time for value, time in zip(logs, times, strict=True)]
    noise = Noise(sqrt(fsum(each * each for each in rest) / (dof - 1)), dof - 1)
    return Scatter(noise, slope) if _is_drift(slope, noise, spread) else plain


def _centred(values: Sequence[float]) -> list[float]:
    middle = fmean(values)
    return [value - middle for value in values]


def _is_drift(slope: float, noise: Noise, spread: float) -> bool:
    from scipy.special import stdtr

    if noise.sd == 0:
        return slope != 0
    return float(stdtr(noise.dof, -abs(slope) * sqrt(spread) / noise.sd)) < _SURE
