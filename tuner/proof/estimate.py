"""The ratio of two configurations' metric from a few launches of each, with its interval.

Unpaired, on the log scale (ratios of speeds are what configurations differ by), least squares with one straight line in
time taken out: a machine that warms up drifts alike under both. The variance is one for both configurations; what the
study knows of it beforehand is pooled in by degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, isfinite, log, sqrt
from statistics import fmean

_FEWEST_FOR_DRIFT = 3
"""Launches of each from which on a drift is estimated: below, it would cost what little there is."""
_SURPRISE = 0.01
"""A variance that the noise known beforehand would show this rarely is another kind of noise: it stands alone."""
MOST = 10.0
"""What a share is cut off at, so that it can be printed and stored: +1,000 %."""


@dataclass(frozen=True, slots=True)
class Noise:
    """By how much launches of one configuration differ.

    Attributes:
        sd: Standard deviation of the metric's log.
        dof: Degrees of freedom with which it is known.
    """

    sd: float
    dof: float


@dataclass(frozen=True, slots=True)
class Point:
    """One launch of one of the two.

    Attributes:
        candidate: Whether of the candidate; else of the baseline.
        value: The metric; positive.
    """

    candidate: bool
    value: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A log ratio, or a log level, with its uncertainty.

    Attributes:
        center: The estimate.
        error: Its standard error; infinite where nothing is known of the noise.
        dof: Of that error.
        noise: Standard deviation of one launch's log; ``None`` where nothing is known.
    """

    center: float
    error: float
    dof: float
    noise: float | None

    def bounds(self, level: float) -> tuple[float, float]:
        """Below the first, and above the second, the truth is with a probability of ``level`` each."""
        from scipy.special import stdtrit

        if not isfinite(self.error):
            return -inf, inf
        reach = -float(stdtrit(self.dof, level)) * self.error
        return self.center - reach, self.center + reach


def chance(excess: float, error: float, dof: float) -> float:
    """The probability that the truth is at most 0 where ``excess`` was read, with a standard error of ``error``."""
    from scipy.special import stdtr

    return float(stdtr(dof, -excess / error)) if error > 0 else float(excess <= 0)


def ratio(points: Sequence[Point], known: Noise | None = None, *, in_turns: bool = True) -> Estimate:
    """Candidate over baseline, at least one launch of each.

    Args:
        points: In the order in which they were made.
        known: What is known of the noise beforehand.
        in_turns: Whether the two were launched in turns; otherwise a drift cannot be told from their difference.
    """
    logs = [log(point.value) for point in points]
    group = [1.0 if point.candidate else 0.0 for point in points]
    fewest = min(sum(point.candidate for point in points), sum(not point.candidate for point in points))
    drifts = in_turns and fewest >= _FEWEST_FOR_DRIFT
    times = [float(index) for index in range(len(points))] if drifts else []
    y, g = _without(logs, times), _without(group, times)
    weight = fsum(each * each for each in g)
    center = fsum(a * b for a, b in zip(y, g, strict=True)) / weight
    rest = [a - center * b for a, b in zip(y, g, strict=True)]
    return _estimate(center, 1 / weight, rest, len(points) - 2 - bool(times), known)


def level(values: Sequence[float], known: Noise | None = None) -> Estimate:
    """The log level of one configuration's launches; at least one."""
    logs = [log(value) for value in values]
    center = fmean(logs)
    return _estimate(center, 1 / len(logs), [each - center for each in logs], len(logs) - 1, known)


def _without(values: Sequence[float], times: Sequence[float]) -> list[float]:
    """The values less their mean, and less their straight line in time where times are given."""
    middle = fmean(values)
    rest = [value - middle for value in values]
    if not times:
        return rest
    centred = [time - fmean(times) for time in times]
    slope = fsum(a * b for a, b in zip(rest, centred, strict=True)) / fsum(time * time for time in centred)
    return [value - slope * time for value, time in zip(rest, centred, strict=True)]


def _estimate(center: float, factor: float, rest: Sequence[float], dof: int, known: Noise | None) -> Estimate:
    squares = fsum(each * each for each in rest)
    if known is not None and known.dof > 0 and not _surprising(squares, dof, known):
        squares += known.dof * known.sd**2
        total = dof + known.dof
    else:
        total = float(dof)
    if total <= 0:
        return Estimate(center, inf, 0.0, None)
    variance = squares / total
    return Estimate(center, sqrt(variance * factor), total, sqrt(variance))


def _surprising(squares: float, dof: int, known: Noise) -> bool:
    """Whether launches scatter more than the known noise explains (F test)."""
    from scipy.special import fdtrc

    if dof <= 0:
        return False
    return known.sd == 0 or float(fdtrc(dof, known.dof, squares / dof / known.sd**2)) < _SURPRISE


def share(log_ratio: float, *, better_if_higher: bool) -> float:
    """A log ratio as the share by which the candidate is better; negative where it is worse, and always finite."""
    ratio_ = exp(min(max(log_ratio, -50.0), 50.0))
    gained = ratio_ - 1 if better_if_higher else 1 - ratio_
    return min(max(gained, -MOST), MOST)
