"""What settings earn, with intervals: the difference between two configurations, by all that was launched.

The surrogate at its likeliest variances is too sure of itself: with 20 to 60 launches the variances are hardly known.
So differences are averaged over variances that explain the launches as well: the Laplace approximation of their
posterior, as in Rue, Martino and Chopin, "Approximate Bayesian inference for latent Gaussian models", JRSS B 71, 2009.
That a winner was chosen for its reading is no harm: its reading is one observation among all, and no more than its
noise allows is made of it. A parameter adds nothing where its condition does not hold. What is held to matter little
beforehand is still shown to matter by launches that agree on it (``make bench-effects``).

What was screened in the server of a launch counts less than a launch: it shares the noise of that launch, since
whatever was odd about the server is in all of its readings; it has as much again of its own, and its own interval; and
it has a bias (``tuner.search.bias``), whose size is averaged over like everything else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import sqrt
from statistics import fmean

import numpy as np

from tuner.engines.base import Hints
from tuner.objective import Direction
from tuner.proof.estimate import Noise
from tuner.search.base import Observation
from tuner.search.gaussian import Array, GaussianProcess, Precision, Prior
from tuner.search.surrogate import Surrogate
from tuner.space import Candidate, SearchSpace

_SPARSE = Prior(effect=0.07, pairs=0.03, spread=2.0)
"""Most settings do little, and pairs less; but any may do a lot."""
_DRAWS, _LEAST_DRAWS, _MANY = 48, 6, 150
"""Draws of the variances; fewer of more configurations, which know the variances better and cost more."""
_SEED = 0
_FEWEST = 1e-3
"""No launch is known better than that, whatever repeats say by chance."""


@dataclass(frozen=True, slots=True)
class Difference:
    """By which log one configuration is better than another.

    Attributes:
        mean: What is expected.
        low: The difference is below with the probability that was asked for.
        high: It is above with the same.
    """

    mean: float
    low: float
    high: float


class Effects:
    """What all launches of a study say of the differences between configurations, in one goal.

    Args:
        space: The parameters.
        direction: Of the goal.
        seen: Measured configurations with that goal's value alone.
        noise: Between launches of one configuration, as far as it is known.
        hints: What is known of the engine's settings.
    """

    def __init__(
        self,
        space: SearchSpace,
        direction: Direction,
        seen: Sequence[Observation],
        noise: Noise,
        hints: Hints,
    ) -> None:
        names = [name for name, parameter in space.params.items() if parameter.levels != 1]
        self._surrogate = Surrogate(space, names, direction, hints, seen, apart=True)
        self._noise = noise

    def over(self, one: Candidate, others: Iterable[Candidate], level: float) -> list[Difference]:
        """By how much one configuration is better than each of some others.

        Args:
            one: The one.
            others: The others.
            level: The probability that is left on each side of an interval.
        """
        several = list(others)
        drawn = [process.difference(*self._surrogate.against(several, one)) for process in self._processes]
        means, deviations = -np.array([mean for mean, _ in drawn]), np.array([deviation for _, deviation in drawn])
        low, high = (_quantile(means, deviations, at) for at in (level, 1 - level))
        return [Difference(*map(float, each)) for each in zip(np.mean(means, axis=0), low, high, strict=True)]

    def keep(self, candidates: Iterable[Candidate]) -> Array:
        """The chance that each keeps its limits."""
        return self._surrogate.keeps(list(candidates))

    @cached_property
    def _processes(self) -> list[GaussianProcess]:
        precision = self._precision
        share = min(1.0, (_MANY / max(1, len(self._surrogate.measured))) ** 2)
        count = max(_LEAST_DRAWS, round(_DRAWS * share))
        drawn = self._surrogate.process(precision, _SPARSE).posterior.draws(count, _SEED)
        return [self._surrogate.process(precision, _SPARSE, variances) for variances in drawn]

    @property
    def _precision(self) -> Precision:
        """Of each configuration: what its launches share, and what each of them knew of itself."""
        measured = self._surrogate.measured
        own = np.array([each.error**2 / each.launches for each in measured])
        within = [each.error**2 for each in measured if not each.screened]
        between = self._noise.sd**2 - fmean(within) if within else 0.0
        return Precision(
            sqrt(max(between, (self._noise.sd / 3) ** 2, _FEWEST**2)),
            sqrt(2 / max(self._noise.dof, 1.0)),
            np.array([each.worth for each in measured]),
            own,
            _together(measured) if any(each.screened for each in measured) else None,
        )


def _together(measured: Sequence[Observation]) -> Array:
    """Which share of a launch's noise each two have in common: that of the server that both were measured in."""
    servers = [each.server.asked if each.screened and each.server else "" for each in measured]
    shares = np.zeros((len(measured), len(measured)))
    for n, m in product(range(len(measured)), repeat=2):
        if n != m and servers[n]:
            if servers[m] == servers[n]:
                shares[n, m] = 1.0
            elif not measured[m].screened and servers[n] == (measured[m].asked or measured[m].candidate.digest):
                shares[n, m] = shares[m, n] = 1 / measured[m].launches
    return shares


def _quantile(means: Array, deviations: Array, at: float) -> Array:
    """Of the mixture of normal distributions in each column."""
    from scipy.special import ndtr

    low, high = (np.min(means - 8 * deviations, axis=0), np.max(means + 8 * deviations, axis=0))
    for _ in range(50):
        middle = (low + high) / 2
        below = np.mean(ndtr((middle - means) / deviations), axis=0) < at
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)
