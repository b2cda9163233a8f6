"""What was seen of a space, as Gaussian processes: the goal, each limit, and whether a candidate runs at all.

What was only screened is shown to them as well, with coordinates of its own: by how much screening differs from
launches, and for which settings, follows from those that were both.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from math import exp, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tuner.engines.base import Hints
from tuner.objective import Direction
from tuner.proof.estimate import Noise
from tuner.search.base import Observation
from tuner.search.bias import ScreeningBias
from tuner.search.gaussian import NOWHERE, Array, Axes, GaussianProcess, Precision, Prior, Variances
from tuner.search.source import Source, SourceReading
from tuner.search.view import is_ordered
from tuner.space import Candidate, Choice, SearchSpace

_NOISE = Noise(0.03, 8.0)
"""Of a launch's log, before repeats tell."""
_RELIED = 2.0
"""Degrees of freedom that are left of it when they do."""
_PRIOR = Prior()
_SURE = 0.97
"""The chance that a configuration runs of which nothing is known."""
_EVEN, _STEEP = 0.6, 0.2
"""Where survival is held to be as likely as not, on a scale from 0 to 1, and how steep it falls there."""
_KEEPS = 0.9
"""A configuration is the best so far only if it keeps its limits with this chance."""
_DOUBTED, _TOLD_BY_A_COPY = 3, 0.1
"""So many launches that may break a limit are not repeated in copies; and which share of its promise a copy of one is
worth for telling more of it."""
_LOSS, _LOSS_WEIGHT = 1.6, 7.0
"""What a value that is said to be slow is expected to lose, in logs; and how little that is relied on: a weight that
makes it worth one launch when nothing else promises a percent."""
_NINE_OF_TEN = 1.645
"""Standard deviations to each side of what nine readings of ten are within."""
_RATHER = 0.5
"""The chance from which limits are rather kept than not."""
_LEAST = 1e-12
_SLOPE, _SLOPE_DOUBT = 0.4, 0.8
"""Which share of what a roofline says of the goal's log is expected to be true, and how uncertain that is, before any
launch."""

Roofline = Callable[[Candidate], float | None]
"""What the hardware allows of the goal, in any unit; ``None`` where that is not known."""


class Surrogate:
    """What was seen, as processes over the space: the goal, each limit, and whether it runs.

    Args:
        space: The parameters.
        names: Those that can vary.
        direction: Of the goal.
        hints: What is known of the engine's settings.
        seen: What was launched.
        apart: Whether a parameter adds nothing where it does not act; else it is where its default is.
        deployed: The deployed configuration.
        shares: Limits whose bound is a share of what the deployed configuration measures. Its few readings are noisy as
            well, so that the bound is taken from what all launches say of it.
        sources: Earlier studies, which are believed as far as they agree with this one.
        roofline: What the hardware allows. How much of its differences is true is fitted to what was measured, from all
            of them to none; what is left is the process's.
    """

    def __init__(
        self,
        space: SearchSpace,
        names: Sequence[str],
        direction: Direction,
        hints: Hints,
        seen: Sequence[Observation],
        *,
        apart: bool = False,
        deployed: Candidate | None = None,
        shares: Collection[str] = (),
        sources: Sequence[Source] = (),
        roofline: Roofline | None = None,
    ) -> None:
        self._space, self._names, self._hints = space, names, hints
        self._roofline = roofline
        self._sign = 1 if direction == "maximize" else -1
        ordered = tuple(is_ordered(space.params[name]) for name in names)
        self._bias = ScreeningBias.of(seen, names)
        weights = [self._weight(space.target(name)[1]) for name in names]
        self._axes = Axes((*ordered, *self._bias.ordered), (*weights, *self._bias.weights))
        self._apart = apart
        self._deployed, self._shares, self._sources = deployed, shares, sources
        self._seen = [each for each in seen if not each.screened]
        self._ran = [each for each in self._seen if each.values]
        self.measured = [each for each in seen if each.values]
        self._coordinates: dict[tuple[str, str], float] = {}
        self._rows: dict[str, list[float]] = {}
        self._allowances: dict[str, float] = {}

    def _weight(self, target: str) -> float:
        return _LOSS_WEIGHT if target in self._hints.slow else self._hints.weights.get(target, 1.0)

    @cached_property
    def incumbents(self) -> list[Observation]:
        """The best two, limits rather kept; those that come nearest to it where none keeps them."""
        points = self._points(each.candidate for each in self._ran)
        mean, _ = self._goal.at(points, self._expected([each.candidate for each in self._ran]))
        keeps = self._keeps(points)
        score = np.where(keeps >= _KEEPS, mean, mean - 10 * (1 - keeps))
        return [self._ran[int(n)] for n in np.argsort(-score)[:2]]

    @property
    def best(self) -> Observation | None:
        """By the model, and not by its reading."""
        return self.incumbents[0] if self._ran else None

    def expected_improvement(self, candidates: Sequence[Candidate]) -> Array:
        """The gain over the best that is expected of each, in logs, if it runs and keeps its limits.

        A launch that promises more than the best, and may well break a limit, is not launched over and over in copies:
        of the gain over the best only that counts which it has not made already, and what it would lose by its limit.
        """
        assert self.best is not None
        points, best = self._points(candidates), self.best.candidate
        keeps, over_best = self._keeps(points), self._improvement(candidates, best)
        gain = over_best * keeps
        for each, kept in self._doubtful:
            more = self._improvement(candidates, each.candidate) * np.minimum(keeps, kept)
            instead = over_best * np.maximum(keeps - kept, 0.0)
            gain = np.minimum(gain, more + instead + _TOLD_BY_A_COPY * gain)
        return np.asarray(gain * self._runs(points))

    def _improvement(self, candidates: Sequence[Candidate], over: Candidate) -> Array:
        """What each is expected to be better by, where it is better, in logs."""
        from scipy.special import ndtr

        gain, deviation = self._goal.difference(*self.against(candidates, over))
        ratio = gain / deviation
        return np.asarray(gain * ndtr(ratio) + deviation * np.exp(-(ratio**2) / 2) / sqrt(2 * pi))

    @cached_property
    def _doubtful(self) -> list[tuple[Observation, float]]:
        """Launches that promise more than the best if they keep their limits, and the chance of that."""
        assert self.best is not None
        ran = [each.candidate for each in self._ran]
        gain, _ = self._goal.difference(*self.against(ran, self.best.candidate))
        keeps = self.keeps(ran)
        promise = np.where(gain > 0, gain * keeps, 0.0)
        most = [int(n) for n in np.argsort(-promise)[:_DOUBTED] if promise[n] > 0]
        return [(self._ran[n], float(keeps[n])) for n in most]

    def reading(self, candidate: Candidate) -> tuple[float, float, float]:
        """What a launch is expected to read of the goal, and between which values in nine of ten."""
        mean, deviation = self._goal.at(self._points([candidate]), self._expected([candidate]))
        reach = _NINE_OF_TEN * sqrt(float(deviation[0]) ** 2 + self._goal.variances.noise)
        ends = sorted(exp(self._sign * (float(mean[0]) + by)) for by in (-reach, reach))
        return exp(self._sign * float(mean[0])), ends[0], ends[1]

    def betters(self, candidate: Candidate) -> bool:
        """Whether it is held to be better than the best that ran, and rather to keep its limits."""
        assert self.best is not None
        gain, _ = self._goal.difference(*self.against([candidate], self.best.candidate))
        return bool(gain[0] > 0 and self.keeps([candidate])[0] > _RATHER)

    def against(self, candidates: Sequence[Candidate], one: Candidate) -> tuple[Array, Array, Array, float]:
        """What a process is asked for the differences to one candidate."""
        expected, of_one = self._expected(candidates), float(self._expected([one])[0])
        return self._points(candidates), self._points([one])[0], expected, of_one

    @property
    def agreement(self) -> Sequence[float]:
        """How much the effects of each source have in common with this study's: their correlation in the goal."""
        return [float(each) for each in self._goal.kin.agreement[1:]]

    @cached_property
    def _told(self) -> list[tuple[int, SourceReading]]:
        """What earlier studies say, with the number of each."""
        return [(n, each) for n, source in enumerate(self._sources, 1) for each in source.telling]

    def process(
        self, precision: Precision, prior: Prior = _PRIOR, variances: Variances | None = None
    ) -> GaussianProcess:
        """The goal, with what is known of each measurement and of the variances."""
        return self._at_slope(self._slope, precision, prior, variances)

    def _at_slope(
        self, slope: float, precision: Precision, prior: Prior = _PRIOR, variances: Variances | None = None
    ) -> GaussianProcess:
        """The same, if so much of what the roofline says is true."""
        level = self._value(self._base or self.measured[0]) if self.measured else 0.0
        told, of_sources = self._told, [level + each.gain for _, each in self._told]
        values = np.array([*of_sources, *(self._value(each) for each in self.measured)])
        candidates = [*(each.candidate for _, each in told), *(each.candidate for each in self.measured)]
        expected = self._slow(candidates) + slope * self._allowed(candidates)
        points, study = self._with_sources(told, self.measured)
        return GaussianProcess(self._axes, points, values, expected, precision, prior, variances, study)

    def _with_sources(
        self, told: Sequence[tuple[int, SourceReading]], measured: Sequence[Observation]
    ) -> tuple[Array, NDArray[np.int_]]:
        """The points of sources and of this study, and which study each is of."""
        points = np.vstack([self._points(each.candidate for _, each in told), self._measured_points(measured)])
        return points, np.array([*(number for number, _ in told), *[0] * len(measured)], dtype=int)

    def survival(self, candidates: Sequence[Candidate]) -> Array:
        """The chance that each runs."""
        return self._runs(self._points(candidates))

    def alike(self, candidates: Sequence[Candidate], one: Candidate) -> Array:
        """How alike each is to one of them, from 0 to 1."""
        every, of_one = self._axes.alike(self._points(candidates), self._points([one])), len(self._names)
        return np.asarray(np.prod(every[:of_one], axis=0)[:, 0])

    @cached_property
    def _goal(self) -> GaussianProcess:
        variances = None if self._roofline is None else self._first.variances
        return self.process(self._precision, variances=variances)

    @property
    def _precision(self) -> Precision:
        return _precision(self.measured, [each.noise for each in self.measured], len(self._told))

    @cached_property
    def _first(self) -> GaussianProcess:
        """Before it is known how much of the roofline is true."""
        return self._at_slope(_SLOPE, self._precision)

    @cached_property
    def _slope(self) -> float:
        """How much of it is, by what was measured; a roofline that has the wrong sign is left alone."""
        if self._roofline is None or not self.measured:
            return 0.0
        told = [*(each.candidate for _, each in self._told), *(each.candidate for each in self.measured)]
        return max(0.0, _SLOPE + self._first.slope(self._allowed(told), _SLOPE_DOUBT))

    def _allowed(self, candidates: Sequence[Candidate]) -> Array:
        """The log of what the hardware allows, over what it allows the deployed one; 0 where that is not known."""
        return np.array([self._allowance(each) for each in candidates], dtype=float)

    def _allowance(self, candidate: Candidate) -> float:
        if self._roofline is None or self._deployed is None:
            return 0.0
        if candidate.digest not in self._allowances:
            here, base = self._roofline(candidate), self._roofline(self._deployed)
            self._allowances[candidate.digest] = self._sign * log(here / base) if here and base else 0.0
        return self._allowances[candidate.digest]

    def _expected(self, candidates: Sequence[Candidate]) -> Array:
        """What is expected before any launch: what is known to be slow, and what the hardware allows."""
        slow = self._slow(candidates)
        return slow if self._roofline is None else slow + self._slope * self._allowed(candidates)

    def _slow(self, candidates: Sequence[Candidate]) -> Array:
        """What is known to be slow."""
        slow = {
            name: self._hints.slow[self._space.target(name)[1]]
            for name in self._names
            if self._space.target(name)[1] in self._hints.slow
        }
        losses = [sum(each.params.get(name) == value for name, value in slow.items()) for each in candidates]
        return -_LOSS * np.array(losses, dtype=float)

    def _value(self, seen: Observation) -> float:
        """The log of the goal, more being better."""
        assert seen.values
        return self._sign * log(max(seen.values[0], _LEAST))

    @cached_property
    def _limits(self) -> Mapping[str, GaussianProcess]:
        names = {name for each in self._ran for name in each.margins}
        complete = [name for name in sorted(names) if all(name in each.margins for each in self._ran)]
        return {name: self._process(name) for name in complete}

    def _process(self, name: str) -> GaussianProcess:
        """How far beyond a limit its metric is."""
        told = [(n, each) for n, each in self._told if name in each.beyond]
        level = (self._base or self._ran[0]).margins[name]
        of_sources = [level + each.beyond[name] for _, each in told]
        measured = [each for each in self.measured if name in each.margins]  # what was screened may be without
        values = np.array([*of_sources, *(each.margins[name] for each in measured)])
        points, study = self._with_sources(told, measured)
        precision = _precision(measured, [each.margin_noise.get(name) for each in measured], len(told))
        return GaussianProcess(self._axes, points, values, np.zeros(len(points)), precision, study=study)

    def _measured_points(self, measured: Sequence[Observation]) -> Array:
        """With the bias of what was screened instead of launched."""
        points = self._points(each.candidate for each in measured)
        for point, each in zip(points, measured, strict=True):
            point[len(self._names) :] = self._bias.at(each, self._coordinate)
        return points

    def keeps(self, candidates: Sequence[Candidate]) -> Array:
        """The chance that each keeps its limits."""
        return self._keeps(self._points(candidates))

    def _keeps(self, points: Array) -> Array:
        """The chance that all limits are kept."""
        from scipy.special import ndtr

        chance = np.ones(len(points))
        for name in self._limits:
            beyond, deviation = self._beyond(name, points)
            chance = chance * ndtr(-beyond / deviation)
        return chance

    def _beyond(self, name: str, points: Array) -> tuple[Array, Array]:
        """By which log a limit's metric is beyond its bound, and how well that is known."""
        limit, zero, base = self._limits[name], np.zeros(len(points)), self._base
        if base is None or name not in self._shares:
            return limit.at(points, zero)
        more, deviation = limit.difference(points, self._points([base.candidate])[0], zero, 0.0)
        return more + base.margins[name], deviation

    @cached_property
    def _base(self) -> Observation | None:
        """What was seen of the deployed configuration."""
        digest = self._deployed.digest if self._deployed else None
        launched = (each for each in self.measured if not each.screened)
        return next((each for each in launched if digest in (each.asked, each.candidate.digest)), None)

    def _runs(self, points: Array) -> Array:
        """The chance that a launch survives, by those that died and those that did not.

        A regression of ones and zeros is wrong in its tails, so that what it holds to be likely to die is avoided more.
        """
        from scipy.special import ndtr

        died = np.array([1.0 if each.values is None else 0.0 for each in self._seen])
        if not died.any():
            return np.full(len(points), _SURE)
        axes = Axes(self._axes.ordered, (1.0,) * len(self._axes.ordered))  # what is not fast may well be large
        seen, zero = self._points(each.candidate for each in self._seen), np.zeros(len(died))
        mean, _ = GaussianProcess(axes, seen, _SURE - died, zero, Precision(0.1)).at(points, np.zeros(len(points)))
        return np.asarray(ndtr((mean - _EVEN) / _STEEP))

    def _points(self, candidates: Iterable[Candidate]) -> Array:
        """A row each, as launches."""
        rows = [self._row(each) for each in candidates]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._axes.ordered))

    def _row(self, candidate: Candidate) -> list[float]:
        if candidate.digest not in self._rows:
            row = [*(self._coordinate(name, candidate) for name in self._names), *self._bias.launched]
            self._rows[candidate.digest] = row
        return self._rows[candidate.digest]

    def _coordinate(self, name: str, candidate: Candidate) -> float:
        if self._apart and name not in candidate.params:
            return NOWHERE
        key = name, repr(candidate.params.get(name))
        if key not in self._coordinates:
            self._coordinates[key] = self._place(name, candidate.params.get(name))
        return self._coordinates[key]

    def _place(self, name: str, value: JsonValue) -> float:
        parameter = self._space.params[name]
        value = value if parameter.accepts(value) else parameter.default
        if isinstance(parameter, Choice):
            level = parameter.level(value)
            return level / (parameter.levels - 1) if is_ordered(parameter) else float(level)
        number = value if isinstance(value, int | float) else parameter.low
        low, high, at = float(parameter.low), float(parameter.high), float(number)
        if parameter.scale != "linear":
            low, high, at = np.log(low), np.log(high), np.log(max(at, 1e-12))
        return float((at - low) / (high - low)) if high > low else 0.0


def _precision(measured: Sequence[Observation], noises: Sequence[Noise | None], others: int) -> Precision:
    """How well each is known: so many observations of other studies, then this one's.

    What is guessed of the noise is pooled with what repeats of this study tell, and hardly counts beside them.
    """
    known = next(filter(None, noises), None)
    relied = _RELIED if known else _NOISE.dof
    dof = relied + (known.dof if known else 0.0)
    variance = (relied * _NOISE.sd**2 + (known.dof * known.sd**2 if known else 0.0)) / dof
    launches = [*[1.0] * others, *(each.worth for each in measured)]
    return Precision(sqrt(variance), sqrt(2 / dof), np.array(launches))
