"""A Gaussian process over a search space: effects of single parameters, and of pairs of them, each of its own variance.

A study has 20 to 60 launches of ten parameters, most of which do little. So the kernel is a sum of one-dimensional ones
and their products in pairs (Duvenaud et al., "Additive Gaussian Processes", NIPS 2011), whose variances are found by
their posterior's mode: a parameter without effect is given little, and what was learned of another holds wherever the
rest is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOWHERE = -10.0
"""The place of a parameter that does not act: it adds nothing there, and is like none of its values."""
_LENGTH = 0.5
"""Over which share of an ordered parameter's range its effect changes."""
_BASE = 1.0
"""Standard deviation of the whole level, in logs: hardly a prior."""
_NOISE_SPREAD = 0.5
"""Likewise of the noise, where nothing better is known of it."""
_FARTHEST = 8.0
"""In logs, from what is expected of a variance: a step of the optimiser's beyond it may have no inverse."""
_JITTER = 1e-8
_FITTED = 120
"""So many observations are enough to find the variances from."""


@dataclass(frozen=True)
class Axes:
    """How each coordinate is compared.

    Attributes:
        ordered: Whether distances mean something on it; where not, two values are the same or different.
        weights: What it is expected to change, over what one usually does.
    """

    ordered: tuple[bool, ...]
    weights: tuple[float, ...]

    def alike(self, one: Array, other: Array) -> Array:
        """How alike two sets of points are on each coordinate, (d, n, m) from 0 to 1."""
        parts = [each.spread(each.alike) for each in self.tables(one, other)]
        return np.array(parts).reshape(len(parts), len(one), len(other))

    def tables(self, one: Array, other: Array) -> Iterator["Table"]:
        """Of each coordinate how alike its few values are; points are many."""
        for n, by_distance in enumerate(self.ordered):
            rows, row_of = np.unique(one[:, n], return_inverse=True)
            columns, column_of = np.unique(other[:, n], return_inverse=True)
            yield Table(self._alike(rows[:, None], columns[None, :], by_distance), row_of, column_of)

    def _alike(self, one: Array, other: Array, by_distance: bool) -> Array:
        act = (one != NOWHERE) & (other != NOWHERE)
        if not by_distance:
            return np.asarray(act & (one == other), dtype=float)
        scaled = np.sqrt(5.0) * np.abs(one - other) / _LENGTH  # Matérn 5/2
        return np.asarray(act * (1 + scaled + scaled**2 / 3) * np.exp(-scaled))

    def acting(self, points: Array) -> Array:
        """How alike each point is to itself, (d, n): not at all on what does not act there."""
        return np.asarray(points.T != NOWHERE, dtype=float)


@dataclass(frozen=True)
class Table:
    """How alike two sets of points are on a coordinate, of which they have few values.

    Attributes:
        alike: The same of these values, (u, v).
        rows: Which value each point of the one set has, (n,).
        columns: Likewise of the other set, (m,).
    """

    alike: Array
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def spread(self, values: Array) -> Array:
        """What is given by values, by points, (n, m)."""
        return np.asarray(values[self.rows][:, self.columns])


@dataclass(frozen=True)
class Prior:
    """What is expected of the variances before anything was observed.

    Attributes:
        effect: What a parameter of weight 1 is expected to change, in logs.
        pairs: How much pairs change, over what their parameters change alone.
        spread: Standard deviation of the log of each variance around what is expected of it.
        doubt: The same of a parameter that is said to matter less than others: whoever says so may be wrong.
    """

    effect: float = 0.12
    pairs: float = 0.3
    spread: float = 1.0
    doubt: float = 2.0


_USUAL = Prior()


@dataclass(frozen=True)
class Precision:
    """How well each observation is known.

    Attributes:
        noise: Standard deviation of one launch, as far as it is known.
        spread: Standard deviation of the log of its square around that.
        launches: Of how many each observation is the mean, (n,).
        own: What is known of each observation's own variance, which launches of the same configuration share, (n,).
        together: Which share of a launch's variance two observations have in common, as those of one server do, (n, n);
            nothing on the diagonal.
    """

    noise: float
    spread: float = _NOISE_SPREAD
    launches: Array | float = 1.0
    own: Array | float = 0.0
    together: Array | None = None

    def added(self, covariance: Array, noise: float) -> Array:
        """The covariance of what is observed, by that of what is there; ``noise`` is the variance of a launch."""
        observed = covariance if self.together is None else covariance + noise * self.together
        observed[np.diag_indices_from(observed)] += noise / self.launches + self.own + _JITTER
        return observed

    def slope(self, gap: Array, noise: float) -> float:
        """Of the observations' misfit over the log of ``noise``, if that is ``gap`` over their covariance."""
        found = float(np.sum(np.diag(gap) * noise / self.launches))
        return found if self.together is None else found + noise * float(np.sum(gap * self.together))

    def of(self, chosen: NDArray[np.int_], count: int) -> "Precision":
        """The same of some of so many observations."""
        launches, own = (np.broadcast_to(each, count)[chosen] for each in (self.launches, self.own))
        together = None if self.together is None else self.together[np.ix_(chosen, chosen)]
        return Precision(self.noise, self.spread, launches, own, together)


_AGREEMENTS = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
_BELIEVED = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""How much another study's effects have in common with this one's (correlation), and how likely each is beforehand."""
_BEFOREHAND = float(np.average(_AGREEMENTS, weights=_BELIEVED))


@dataclass(frozen=True)
class Kin:
    """Which study each observation is of, and how much of what the others say holds in this one.

    Each study has effects of its own, as large as this one's and correlated with them: the intrinsic model of
    coregionalization (Bonilla, Chai and Williams, "Multi-task Gaussian process prediction", NIPS 2007). It has a level
    of its own as well, so that only differences between its configurations say anything.

    Attributes:
        study: 0 for this one, else the number of another, (n,).
        agreement: The correlation by study; 1 with itself.
    """

    study: NDArray[np.int_]
    agreement: Array

    @classmethod
    def of(cls, study: NDArray[np.int_]) -> "Kin":
        """Before anything is known of how they agree."""
        return cls(study, np.array([1.0, *[_BEFOREHAND] * int(np.max(study, initial=0))]))

    @property
    def alone(self) -> bool:
        """Whether there is no other study."""
        return len(self.agreement) == 1

    def agreed(self, number: int, agreement: float) -> Array:
        """The correlations with another one of one study."""
        return np.where(np.arange(len(self.agreement)) == number, agreement, self.agreement)

    def related(self, others: "Kin") -> "Related":
        """How the studies of these observations are related to those of others."""
        if self.alone and others.alone:
            return ONE_STUDY
        same = self.study[:, None] == others.study[None, :]
        shared = np.outer(self.agreement[self.study], others.agreement[others.study])
        return Related(np.where(same, 1.0, shared), same.astype(float))


@dataclass(frozen=True)
class Related:
    """How two sets of observations are related by their studies; one study is related to itself.

    Attributes:
        shared: The correlation of their effects, (n, m).
        same: Whether they are of one study, and have its level in common, (n, m).
    """

    shared: Array | float = 1.0
    same: Array | float = 1.0


ONE_STUDY = Related()


@dataclass(frozen=True)
class Variances:
    """How much each part of the kernel varies.

    Attributes:
        effects: Variance of each coordinate's own effect.
        pairs: Variance of a pair's effect, over the geometric mean of its two.
        noise: Variance of an observation.
    """

    effects: Array
    pairs: float
    noise: float

    def between(self, axes: Axes, one: Array, other: Array, related: Related = ONE_STUDY) -> Array:
        """The covariance of two sets of points, without noise, (n, m)."""
        alone, together = np.zeros((len(one), len(other))), np.zeros((len(one), len(other)))
        for effect, table in zip(self.effects, axes.tables(one, other), strict=True):
            alone += table.spread(effect * (table.alike - self.pairs / 2 * table.alike**2))
            together += table.spread(np.sqrt(effect) * table.alike)
        return np.asarray(_BASE**2 * related.same + related.shared * (alone + self.pairs / 2 * together**2))

    def own(self, axes: Axes, points: Array) -> Array:
        """The variance of each point, (m,)."""
        acting = axes.acting(points)
        alone, together = (self.effects * (1 - self.pairs / 2)) @ acting, np.sqrt(self.effects) @ acting
        return np.asarray(_BASE**2 + alone + self.pairs / 2 * together**2)

    @property
    def whole(self) -> float:
        """The variance of a point of which every parameter acts."""
        roots = float(np.sum(np.sqrt(self.effects)))
        return float(_BASE**2 + np.sum(self.effects) * (1 - self.pairs / 2) + self.pairs / 2 * roots**2)


class GaussianProcess:
    """What observations say of every point.

    Args:
        axes: How points are compared.
        points: (n, d).
        values: (n,), in logs.
        mean: What is expected of these points beforehand, (n,).
        precision: How well each is known.
        prior: What is expected of the variances.
        variances: Those of the process; at the mode of their posterior if not given.
        study: Of which study each observation is, (n,): 0 for this one, which all that is asked for is of.
    """

    def __init__(
        self,
        axes: Axes,
        points: Array,
        values: Array,
        mean: Array,
        precision: Precision,
        prior: Prior = _USUAL,
        variances: Variances | None = None,
        study: NDArray[np.int_] | None = None,
    ) -> None:
        self._axes, self._points, self._precision, self._prior = axes, points, precision, prior
        self.kin = Kin.of(np.zeros(len(points), dtype=int) if study is None else study)
        self._level, self._rest = _levelled(values - mean, self.kin.study)
        if not self.kin.alone:
            self.posterior = self.posterior.agreeing()
            self.kin = replace(self.kin, agreement=self.posterior.kin.agreement)
        self.variances = variances or self.posterior.mode

    @cached_property
    def posterior(self) -> "Posterior":
        """What the observations say of the variances."""
        return _posterior(self._axes, self._points, self._rest, self._precision, self._prior, self.kin)

    def _across(self, points: Array) -> Array:
        """The covariance of points of this study with what was observed, (m, n)."""
        related = Kin.of(np.zeros(len(points), dtype=int)).related(self.kin)
        return self.variances.between(self._axes, points, self._points, related)

    @cached_property
    def _inverse(self) -> Array:
        covariance = self.variances.between(self._axes, self._points, self._points, self.kin.related(self.kin))
        return np.asarray(np.linalg.inv(self._precision.added(covariance, self.variances.noise)))

    def _own(self, points: Array) -> Array:
        """The variance of each point before anything was observed, (m,)."""
        return self.variances.own(self._axes, points)

    def slope(self, direction: Array, doubt: float) -> float:
        """How much more of a direction, by observation (n,), is in the values than was expected.

        Args:
            direction: The direction.
            doubt: Standard deviation of that beforehand, around 0.
        """
        _, along = _levelled(direction, self.kin.study)
        weighted = along @ self._inverse
        return float(weighted @ self._rest / (weighted @ along + 1 / doubt**2))

    def at(self, points: Array, mean: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at some points, (m,) each."""
        across = self._across(points)
        expected = mean + self._level + across @ self._inverse @ self._rest
        variance = self._own(points) - np.einsum("ij,jk,ik->i", across, self._inverse, across, optimize=True)
        return np.asarray(expected), np.sqrt(np.maximum(variance, 1e-12))

    def difference(self, points: Array, one: Array, mean: Array, mean_of_one: float) -> tuple[Array, Array]:
        """Mean and standard deviation of the difference to one point, (m,) each."""
        both = np.vstack([points, one])
        across = self._across(both)
        expected = np.append(mean, mean_of_one) + across @ self._inverse @ self._rest
        weighted = across @ self._inverse
        variances = self._own(both) - np.einsum("ij,ij->i", weighted, across)
        shared = self.variances.between(self._axes, points, one[None, :])[:, 0] - weighted[:-1] @ across[-1]
        variance = variances[:-1] + variances[-1] - 2 * shared
        return np.asarray(expected[:-1] - expected[-1]), np.sqrt(np.maximum(variance, 1e-12))


def _chosen(values: Array, study: NDArray[np.int_]) -> NDArray[np.int_]:
    """The best observations of this study and the latest, and of others some evenly."""
    own, others = np.flatnonzero(study == 0), np.flatnonzero(study)
    most = _FITTED // (3 if len(others) else 2)
    best, some = own[np.argsort(values[own])[-most:]], others[:: max(1, -(-len(others) // most))]
    return np.unique(np.r_[best, own[-most:], some]).astype(int)


def _levelled(rest: Array, study: NDArray[np.int_]) -> tuple[float, Array]:
    """The mean of this study, and what each observation is above that of its own."""
    numbers = range(int(np.max(study, initial=0)) + 1)
    means = np.array([np.mean(rest[study == each]) if each in study else 0.0 for each in numbers])
    return float(means[0]), np.asarray(rest - means[study])


def _posterior(axes: Axes, points: Array, values: Array, precision: Precision, prior: Prior, kin: Kin) -> "Posterior":
    """Of the best observations and the latest, where there are many."""
    expected = np.log(np.array([*((prior.effect * np.array(axes.weights)) ** 2), prior.pairs, precision.noise**2]))
    doubts = (prior.doubt if weight < 1 else prior.spread for weight in axes.weights)
    spreads = np.array([*doubts, prior.spread, precision.spread])
    chosen = _chosen(values, kin.study)
    known, alike = precision.of(chosen, len(values)), axes.alike(points[chosen], points[chosen])
    return Posterior(alike, values[chosen], expected, spreads, known, Kin(kin.study[chosen], kin.agreement))


def _variances(logs: Array) -> Variances:
    return Variances(np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])))


@dataclass(frozen=True)
class Posterior:
    """Minus the log posterior of the variances, and its gradient, by their logs.

    Attributes:
        alike: How alike the points are, (d, n, n).
        values: What was observed, less what was expected, (n,).
        expected: Log of each variance beforehand.
        spreads: Standard deviation of each around that.
        precision: How well each observation is known.
        kin: Of which studies they are.
        start: The logs from which the likeliest are looked for; those that are expected if not given.
    """

    alike: Array
    values: Array
    expected: Array
    spreads: Array
    precision: Precision
    kin: Kin
    start: Array | None = None

    @cached_property
    def _related(self) -> Related:
        return self.kin.related(self.kin)

    def agreeing(self) -> "Posterior":
        """With the agreement of each other study, at the likeliest variances: its mean by what was observed."""
        logs, kin = self.mode_logs, self.kin
        for number in range(1, len(kin.agreement)):
            tried = (replace(self, kin=replace(kin, agreement=kin.agreed(number, each))) for each in _AGREEMENTS)
            misfits = np.array([posterior(logs)[0] for posterior in tried])
            likely = _BELIEVED * np.exp(np.min(misfits) - misfits)
            kin = replace(kin, agreement=kin.agreed(number, float(np.average(_AGREEMENTS, weights=likely))))
        return replace(self, kin=kin, start=logs)

    @property
    def mode(self) -> Variances:
        """The likeliest variances."""
        return _variances(self.mode_logs)

    @cached_property
    def mode_logs(self) -> Array:
        """The logs of the likeliest variances."""
        from scipy.optimize import minimize

        if len(self.values) < 2:
            return self.expected
        bounds = np.array([self.expected - _FARTHEST, self.expected + _FARTHEST]).T
        start = self.expected if self.start is None else self.start
        found = minimize(self, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 25})
        return np.asarray(found.x)

    def draws(self, count: int, seed: int) -> list[Variances]:
        """Variances drawn from the normal distribution that the posterior is around its mode (Laplace)."""
        curvature, directions = np.linalg.eigh(self._curvature)
        steps = np.random.default_rng(seed).normal(size=(count, len(curvature))) / np.sqrt(curvature)
        return [_variances(self.mode_logs + directions @ step) for step in steps]

    @property
    def _curvature(self) -> Array:
        """Second derivatives at the mode; nowhere is less known than a bit less than beforehand."""
        steps = 1e-3 * np.eye(len(self.mode_logs))
        found = np.array([(self(self.mode_logs + step)[1] - self(self.mode_logs - step)[1]) / 2e-3 for step in steps])
        curvature, directions = np.linalg.eigh((found + found.T) / 2)
        least = 0.5 / float(np.max(self.spreads)) ** 2
        return np.asarray((directions * np.maximum(curvature, least)) @ directions.T)

    @cached_property
    def _flat(self) -> tuple[Array, Array]:
        """How alike the points are, (d, n * n), and the squares of that."""
        flat = self.alike.reshape(len(self.alike), len(self.values) ** 2)
        return flat, flat**2

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """At the logs of the variances."""
        variances, (alike, squares), related = _variances(logs), self._flat, self._related
        roots = np.sqrt(variances.effects)
        together, squared = roots @ alike, variances.effects @ squares
        pairs = variances.pairs / 2 * (together**2 - squared)
        shape = self.alike.shape[1:]
        covariance = _BASE**2 * related.same + related.shared * (variances.effects @ alike + pairs).reshape(shape)
        inverse, logdet = _inverted(self.precision.added(covariance, variances.noise))
        weighted = inverse @ self.values
        away = (logs - self.expected) / self.spreads
        value = 0.5 * (self.values @ weighted + logdet + away @ away)
        gap = inverse - np.outer(weighted, weighted)
        felt = (gap * related.shared).ravel()
        effects = variances.effects * (alike @ felt - variances.pairs / 2 * (squares @ felt))
        effects += variances.pairs / 2 * roots * (alike @ (felt * together))
        slopes = np.array([*effects, float(felt @ pairs), self.precision.slope(gap, variances.noise)])
        return float(value), 0.5 * slopes + away / self.spreads


def _inverted(covariance: Array) -> tuple[Array, float]:
    """The inverse and the log of the determinant; infinite where rounding leaves no inverse."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, failed = dpotrf(covariance, lower=1)
    if failed:
        return np.asarray(np.linalg.pinv(covariance)), np.inf
    lower, _ = dpotri(factor, lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    return np.asarray(inverse), 2 * float(np.sum(np.log(np.diag(factor))))
