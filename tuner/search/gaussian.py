"""A Gaussian process over a search space: effects of single parameters, and of pairs of them, each of its own variance.

A study has 20 to 60 launches of ten parameters, most of which do little. So the kernel is a sum of one-dimensional ones
and their products in pairs (Duvenaud et al., "Additive Gaussian Processes", NIPS 2011), whose variances are found by
their posterior's mode: a parameter without effect is given little, and what was learned of another holds wherever the
rest is.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LENGTH = 0.5
"""Over which share of an ordered parameter's range its effect changes."""
_BASE = 1.0
"""Standard deviation of the whole level, in logs: hardly a prior."""
_EFFECT = 0.25
"""What a parameter of weight 1 is expected to change, in logs."""
_PAIRS = 0.3
"""How much pairs change, over what their parameters change alone."""
_SPREAD = 1.0
"""Standard deviation of the log of each variance around what is expected of it."""
_DOUBT = 2.0
"""The same of a parameter that is said to matter less than others: whoever says so may be wrong."""
_NOISE_SPREAD = 0.5
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
        parts = [self._alike(one[:, [n]], other[:, [n]].T, by_distance) for n, by_distance in enumerate(self.ordered)]
        return np.array(parts).reshape(len(parts), len(one), len(other))

    def _alike(self, one: Array, other: Array, by_distance: bool) -> Array:
        if not by_distance:
            return np.asarray(one == other, dtype=float)
        scaled = np.sqrt(5.0) * np.abs(one - other) / _LENGTH  # Matérn 5/2
        return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


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

    def kernel(self, alike: Array) -> Array:
        """The covariance of two sets of points, without noise, (n, m)."""
        alone = np.tensordot(self.effects, alike, 1)
        pairs = (np.tensordot(np.sqrt(self.effects), alike, 1) ** 2 - np.tensordot(self.effects, alike**2, 1)) / 2
        return np.asarray(_BASE**2 + alone + self.pairs * pairs)

    @property
    def whole(self) -> float:
        """The variance of a point."""
        return float(self.kernel(np.ones((len(self.effects), 1, 1)))[0, 0])


class GaussianProcess:
    """What observations say of every point.

    Args:
        axes: How points are compared.
        points: (n, d).
        values: (n,), in logs.
        mean: What is expected of these points beforehand, (n,).
        noise: Standard deviation of an observation, as far as it is known.
    """

    def __init__(self, axes: Axes, points: Array, values: Array, mean: Array, noise: float) -> None:
        self._axes, self._points = axes, points
        self._rest = values - mean
        self._level = float(np.mean(self._rest)) if len(values) else 0.0
        self.variances = _fitted(axes, points, self._rest - self._level, noise)

    @cached_property
    def _inverse(self) -> Array:
        covariance = self.variances.kernel(self._axes.alike(self._points, self._points))
        covariance[np.diag_indices_from(covariance)] += self.variances.noise + _JITTER
        return np.asarray(np.linalg.inv(covariance))

    def at(self, points: Array, mean: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at some points, (m,) each."""
        across = self.variances.kernel(self._axes.alike(points, self._points))
        expected = mean + self._level + across @ self._inverse @ (self._rest - self._level)
        variance = self.variances.whole - np.einsum("ij,jk,ik->i", across, self._inverse, across, optimize=True)
        return np.asarray(expected), np.sqrt(np.maximum(variance, 1e-12))

    def difference(self, points: Array, one: Array, mean: Array, mean_of_one: float) -> tuple[Array, Array]:
        """Mean and standard deviation of the difference to one point, (m,) each."""
        both = np.vstack([points, one])
        across = self.variances.kernel(self._axes.alike(both, self._points))
        expected = np.append(mean, mean_of_one) + across @ self._inverse @ (self._rest - self._level)
        weighted = across @ self._inverse
        variances = self.variances.whole - np.einsum("ij,ij->i", weighted, across)
        shared = self.variances.kernel(self._axes.alike(points, one[None, :]))[:, 0] - weighted[:-1] @ across[-1]
        variance = variances[:-1] + variances[-1] - 2 * shared
        return np.asarray(expected[:-1] - expected[-1]), np.sqrt(np.maximum(variance, 1e-12))


def _fitted(axes: Axes, points: Array, values: Array, noise: float) -> Variances:
    """Those at the mode of their posterior."""
    from scipy.optimize import minimize

    expected = np.log(np.array([*((_EFFECT * np.array(axes.weights)) ** 2), _PAIRS, noise**2]))
    if len(values) < 2:
        return _variances(expected)
    chosen = np.unique(np.r_[np.argsort(values)[-_FITTED // 2 :], np.arange(len(values))[-_FITTED // 2 :]])
    spreads = np.array([*(_DOUBT if weight < 1 else _SPREAD for weight in axes.weights), _SPREAD, _NOISE_SPREAD])
    problem = _Posterior(axes.alike(points[chosen], points[chosen]), values[chosen], expected, spreads)
    found = minimize(problem, expected, jac=True, method="L-BFGS-B", options={"maxiter": 25})
    return _variances(found.x)


def _variances(logs: Array) -> Variances:
    return Variances(np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])))


@dataclass(frozen=True)
class _Posterior:
    """Minus the log posterior of the variances, and its gradient by their logs."""

    alike: Array
    values: Array
    expected: Array
    spreads: Array

    def __call__(self, logs: Array) -> tuple[float, Array]:
        variances, count = _variances(logs), len(self.values)
        covariance = variances.kernel(self.alike) + (variances.noise + _JITTER) * np.eye(count)
        inverse = np.linalg.inv(covariance)
        weighted = inverse @ self.values
        sign, logdet = np.linalg.slogdet(covariance)
        away = (logs - self.expected) / self.spreads
        value = 0.5 * (self.values @ weighted + logdet + away @ away) if sign > 0 else np.inf
        return float(value), self._gradient(variances, inverse - np.outer(weighted, weighted)) + away / self.spreads

    def _gradient(self, variances: Variances, gap: Array) -> Array:
        roots = np.sqrt(variances.effects)[:, None, None] * self.alike
        total = np.sum(roots, axis=0)
        effects = variances.effects[:, None, None] * self.alike + variances.pairs * 0.5 * roots * (total - roots)
        pairs = variances.pairs * (total**2 - np.sum(roots**2, axis=0)) / 2
        own = [np.sum(gap * part) for part in (*effects, pairs, variances.noise * np.eye(len(self.values)))]
        return 0.5 * np.array(own)
