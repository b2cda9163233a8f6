"""Lengths drawn from their distribution: stratified, so that two draws of one size have nearly the same mean."""

import random
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from math import exp
from pathlib import Path
from statistics import NormalDist, mean

from tuner.errors import ConfigError
from tuner.load.shapes import FromFile, Histogram, Length, Lognormal, Uniform
from tuner.reading import bytes_of


def draw(length: Length, count: int, seed: str, *, held_out: bool = False) -> list[int]:
    """Lengths in random order.

    Args:
        length: Their distribution.
        count: How many.
        seed: The same one draws the same.
        held_out: Whether to draw from the half of a file that is not for tuning.

    Raises:
        ConfigError: A file of lengths cannot be used.
    """
    rng = random.Random(seed)
    observed = sorted(_half(length, held_out)) if isinstance(length, FromFile) else []
    drawn = [_quantile(length, (place + rng.random()) / count, observed) for place in range(count)]
    rng.shuffle(drawn)
    return drawn


def _quantile(length: Length, share: float, observed: Sequence[int]) -> int:
    match length:
        case Uniform():
            return min(length.high, length.low + int(share * (length.high - length.low + 1)))
        case Lognormal():
            normal = NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9))
            return min(length.high, max(1, round(length.median * exp(length.sigma * normal))))
        case FromFile():
            return observed[min(len(observed) - 1, int(share * len(observed)))]
        case Histogram():
            return _in_bucket(length, share)
        case _:
            return length


def _in_bucket(length: Histogram, share: float) -> int:
    upto = list(accumulate(length.counts))
    place = bisect(upto, wanted := min(share, 1 - 1e-9) * upto[-1])
    low, high = length.bounds[place - 1] if place else 0, length.bounds[place]
    inside = (wanted - upto[place] + length.counts[place]) / length.counts[place]
    return max(1, round(low + (high - low) * float(inside**length.skew)))


def longest(length: Length) -> int:
    """The longest that may be drawn."""
    match length:
        case Uniform() | Lognormal():
            return length.high
        case Histogram():
            return length.bounds[-1]
        case FromFile():
            return max(_lines(length.file))
        case _:
            return length


def typical(length: Length) -> int:
    """The mean."""
    return round(mean(draw(length, 100, "mean"))) if not isinstance(length, int) else length


def spread(weights: Sequence[float], count: int, seed: str) -> list[int]:
    """Which of several kinds each of ``count`` requests is: as often as its weight says, in random order."""
    bounds = list(accumulate(weights))
    kinds = [bisect(bounds, (place + 0.5) / count * bounds[-1]) for place in range(count)]
    random.Random(seed).shuffle(kinds)
    return kinds


def _half(length: FromFile, held_out: bool) -> list[int]:
    return _lines(length.file)[1 if held_out else 0 :: 2]


def _lines(path: Path) -> list[int]:
    """Raises ConfigError unless there is a length for either half."""
    try:
        found = [int(line) for line in bytes_of(path).split()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", place="workload", fix="write a whole number a line") from error
    if len(found) < 2 or min(found) < 1:
        raise ConfigError(
            f"{path} has {len(found)} lengths", place="workload", fix="write two at least, all above zero"
        )
    return found
