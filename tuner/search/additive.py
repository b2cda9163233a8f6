"""The default search: a model of single effects and pairs, asked for what is most likely to beat the best by most.

What it does otherwise than a generic sampler, each step measured (``make bench-search``):

- no random start: the deployed configuration is known to run, and most random ones are slow or die;
- every choice that was never launched is launched once, one of each switch together, before anything is refined;
- goals and limits are modelled by their logs, limits each by its own model: one reading at 24 times the limit does not
  set the scale of all;
- what is expected is the gain over the best *configuration*, by the model, and not over the best reading: a copy that
  differs in nothing that matters is worth nothing;
- what died lowers the chance that its neighbours run, and says nothing of their speed.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import JsonValue

from tuner.objective import Direction
from tuner.search.base import NOTHING, Admits, Observation, anything, known
from tuner.search.gaussian import Array, Axes, Process
from tuner.search.view import decode, encode
from tuner.space import Candidate, Choice, SearchSpace, Settings

_NOISE = 0.03
"""Of a launch's log, before repeats tell."""
_POOL = 800
"""Candidates that are compared at each step."""
_SURE = 0.97
"""The chance that a configuration runs of which nothing is known."""
_EVEN, _STEEP = 0.6, 0.2
"""Where survival is held to be as likely as not, on a scale from 0 to 1, and how steep it falls there."""
_KEEPS = 0.75
"""A configuration is the best so far only if it keeps its limits with this chance."""


_NOT_SLOW = object()
_LOSS = 1.0
"""What a value that is known to be slow is expected to lose, in logs."""


@dataclass(frozen=True)
class Hints:
    """What is known of an engine's settings before any launch; launches overrule it.

    Attributes:
        weights: What a setting is expected to change, over what one usually does; 1 if not named.
        slow: Values that are known to be several times slower, by setting.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    slow: Mapping[str, JsonValue] = field(default_factory=dict)


NO_HINTS = Hints()


@dataclass
class AdditiveSearch:
    """See the module.

    Attributes:
        space: What may be tried.
        directions: Of each goal; the first decides, the others are limits on nothing.
        deployed: The deployment's settings, which rules may speak of.
        seed: Of the study.
        hints: What is known of the engine's settings.
    """

    space: SearchSpace
    directions: tuple[Direction, ...]
    deployed: Settings
    seed: int
    hints: Hints = NO_HINTS

    doubts: ClassVar[int] = 100

    _models: dict[tuple[str, ...], "_Model"] = field(default_factory=dict, repr=False)

    def propose(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue] = NOTHING, admits: Admits = anything
    ) -> Candidate | None:
        """See ``Search.propose``."""
        dice = random.Random(f"{self.seed}:{len(seen)}")
        met = known(seen)

        def fresh(candidate: Candidate) -> bool:
            return candidate.digest not in met and not self.space.violated(candidate, self.deployed)

        free = [name for name, p in self.space.params.items() if p.levels != 1 and name not in settled]
        pool = _Pool(self.space, free, settled, fresh, dice, self.hints)
        start = self._start(seen)
        new = (each for each in pool.with_new_choices(seen, start) if admits(each))
        if (candidate := next(new, None)) is not None:
            return candidate
        found = self._ranked(seen, pool, free)
        return next((each for each in found if admits(each)), None) or next(
            (each for each in pool.anything_else() if admits(each)), None
        )

    def recommend(self, seen: Sequence[Observation]) -> Candidate | None:
        """The launched candidate that the model holds to be the best and to keep its limits; ``None`` if none ran."""
        model = self._model([name for name, p in self.space.params.items() if p.levels != 1], seen)
        return None if model.best is None else model.best.candidate

    def _model(self, names: Sequence[str], seen: Sequence[Observation]) -> "_Model":
        """The last one is kept: a study asks for its best and then for the next candidate."""
        key = (*names, *(f"{each.candidate.digest} {each.values} {each.margins}" for each in seen))
        if key not in self._models:
            self._models = {key: _Model(self.space, names, self.directions, self.hints, seen)}
        return self._models[key]

    def _start(self, seen: Sequence[Observation]) -> Candidate:
        """What new choices are tried on: the best so far, else the deployment."""
        return self.recommend(seen) or self.space.deployed(self.deployed)

    def _ranked(self, seen: Sequence[Observation], pool: "_Pool", free: Sequence[str]) -> Iterator[Candidate]:
        model = self._model(free, seen)
        if model.best is None:
            return
        candidates = list(pool.around([each.candidate for each in model.leaders]))
        if candidates:
            worth = model.worth(candidates)
            yield from (candidates[int(n)] for n in np.argsort(-worth))


class _Pool:
    """Candidates to choose from: the best, changed in one to four parameters."""

    def __init__(
        self,
        space: SearchSpace,
        free: Sequence[str],
        settled: Mapping[str, JsonValue],
        fresh: Admits,
        dice: random.Random,
        hints: Hints,
    ) -> None:
        self._hints = hints
        self._space, self._free, self._settled, self._fresh, self._dice = space, list(free), settled, fresh, dice

    def with_new_choices(self, seen: Sequence[Observation], start: Candidate) -> Iterator[Candidate]:
        """The start with choices that were never measured; what died with several is blamed on none of them."""
        unseen = {name: values for name in self._free if (values := self._unseen(name, seen))}
        if not unseen:
            return
        count = len(unseen) if self._alive(seen) else 1
        for _ in range(20):
            names = self._dice.sample(list(unseen), count)
            candidate = self._made({**start.params, **{name: self._dice.choice(unseen[name]) for name in names}})
            if self._fresh(candidate):
                yield candidate

    def _alive(self, seen: Sequence[Observation]) -> bool:
        return bool(seen) and seen[-1].values is not None

    def _unseen(self, name: str, seen: Sequence[Observation]) -> list[JsonValue]:
        """Choices of a switch that were neither measured nor died twice."""
        parameter = self._space.params[name]
        if not isinstance(parameter, Choice) or is_ordered(parameter):
            return []
        measured = [each.candidate.params.get(name, parameter.default) for each in seen if each.values]
        died = [each.candidate.params.get(name, parameter.default) for each in seen if each.values is None]
        past = (*measured, self._hints.slow.get(self._space.target(name)[1], _NOT_SLOW))
        return [value for value in parameter.choices if value not in past and died.count(value) < 2]

    def around(self, centers: Sequence[Candidate]) -> Iterator[Candidate]:
        """Each once: all that differ from a center in one parameter, and some that differ in more."""
        made: set[str] = set()
        for values in self._variants(centers):
            candidate = self._made(values)
            if candidate.digest not in made and self._fresh(candidate):
                made.add(candidate.digest)
                yield candidate
            if len(made) >= _POOL:
                return

    def _variants(self, centers: Sequence[Candidate]) -> Iterator[Mapping[str, JsonValue]]:
        for center in centers:
            for name in self._free:
                yield from ({**center.params, name: value} for value in self._values(name))
        for _ in range(3 * _POOL if self._free else 0):
            center = self._dice.choice(centers)
            count = min(len(self._free), self._dice.choice((2, 2, 2, 3, 4)))
            names = self._dice.sample(self._free, count)
            yield {**center.params, **{name: self._dice.choice(self._values(name)) for name in names}}

    def anything_else(self) -> Iterator[Candidate]:
        """Any candidate, in no order; all of a small space."""
        if self._space.size is not None and self._space.size <= 100_000:
            rest = [
                each for each in (self._made(one.params) for one in self._space.all_candidates()) if self._fresh(each)
            ]
            self._dice.shuffle(rest)
            yield from rest
            return
        drawn = ({name: self._dice.choice(self._values(name)) for name in self._free} for _ in range(_POOL))
        yield from (each for each in map(self._made, drawn) if self._fresh(each))

    def _values(self, name: str) -> list[JsonValue]:
        parameter = self._space.params[name]
        if parameter.levels is not None and parameter.levels <= 64:
            return [parameter.value(level) for level in range(parameter.levels)]
        assert not isinstance(parameter, Choice)
        ends = np.log([parameter.low, parameter.high]) if parameter.scale == "log" else [parameter.low, parameter.high]
        spread = np.linspace(ends[0], ends[1], 17)
        numbers = np.exp(spread) if parameter.scale == "log" else spread
        return [round(float(n)) if parameter.integral else float(f"{n:.4g}") for n in numbers]

    def _made(self, values: Mapping[str, JsonValue]) -> Candidate:
        """A candidate of these values, as far as the space holds them; the nearest ones that it does where not."""
        held = {name: self._held(name, value) for name, value in values.items() if name in self._space.params}
        return self._space.candidate({**self._defaults, **held, **self._settled})

    def _held(self, name: str, value: JsonValue) -> JsonValue:
        parameter = self._space.params[name]
        if value is None and not parameter.accepts(None):
            return self._defaults[name]
        return value if parameter.accepts(value) else decode(parameter, encode(parameter, value))

    @cached_property
    def _defaults(self) -> Mapping[str, JsonValue]:
        """A value for every parameter, so that one whose condition comes to hold has one."""
        return {name: decode(p, encode(p, p.default)) for name, p in self._space.params.items()}


def is_ordered(parameter: object) -> bool:
    """Whether distances between values mean something."""
    if isinstance(parameter, Choice):
        numbers = [v for v in parameter.choices if isinstance(v, int | float) and not isinstance(v, bool)]
        return len(numbers) == len(parameter.choices) and len(numbers) > 2
    return True


class _Model:
    """What was seen, as processes over the space: the goal, each limit, and whether it runs."""

    def __init__(
        self,
        space: SearchSpace,
        names: Sequence[str],
        directions: Sequence[Direction],
        hints: Hints,
        seen: Sequence[Observation],
    ) -> None:
        self._space, self._names, self._directions, self._hints = space, names, directions, hints
        ordered = tuple(is_ordered(space.params[name]) for name in names)
        self._axes = Axes(ordered, tuple(hints.weights.get(space.target(name)[1], 1.0) for name in names))
        self._all = [each for each in seen if each.values is not None or each.violation > 0]
        self._ran = [each for each in seen if each.values]
        self._coordinates: dict[tuple[str, str], float] = {}

    @cached_property
    def leaders(self) -> list[Observation]:
        """The best two, limits rather kept; those that come nearest to it where none keeps them."""
        points = self._points(each.candidate for each in self._ran)
        mean, _ = self._goal.at(points, self._expected([each.candidate for each in self._ran]))
        keeps = self._keeps(points)
        score = np.where(keeps >= _KEEPS, mean, mean - 10 * (1 - keeps))
        return [self._ran[int(n)] for n in np.argsort(-score)[:2]]

    @property
    def best(self) -> Observation | None:
        """By the model, and not by its reading."""
        return self.leaders[0] if self._ran else None

    def worth(self, candidates: Sequence[Candidate]) -> Array:
        """The gain over the best that is expected of each, in logs, if it runs and keeps its limits."""
        from scipy.stats import norm

        assert self.best is not None
        points, best = self._points(candidates), [self.best.candidate]
        expected, of_best = self._expected(candidates), float(self._expected(best)[0])
        gain, deviation = self._goal.over(points, self._points(best)[0], expected, of_best)
        ratio = gain / deviation
        improvement = gain * norm.cdf(ratio) + deviation * norm.pdf(ratio)
        return np.asarray(improvement * self._keeps(points) * self._runs(points))

    @cached_property
    def _goal(self) -> Process:
        expected = self._expected([each.candidate for each in self._ran])
        return self._process([self._value(each) for each in self._ran], expected)

    def _expected(self, candidates: Sequence[Candidate]) -> Array:
        """What is known to be slow, before any launch."""
        slow = {
            name: self._hints.slow[self._space.target(name)[1]]
            for name in self._names
            if self._space.target(name)[1] in self._hints.slow
        }
        losses = [sum(each.params.get(name) == value for name, value in slow.items()) for each in candidates]
        return -_LOSS * np.array(losses, dtype=float)

    def _value(self, seen: Observation) -> float:
        """All goals in one: the sum of their logs, more being better."""
        assert seen.values
        signs = [1 if direction == "maximize" else -1 for direction in self._directions]
        return float(sum(sign * np.log(max(v, 1e-12)) for sign, v in zip(signs, seen.values, strict=True)))

    @cached_property
    def _limits(self) -> list[Process]:
        names = {name for each in self._ran for name in each.margins}
        complete = [name for name in sorted(names) if all(name in each.margins for each in self._ran)]
        return [self._process([each.margins[name] for each in self._ran]) for name in complete]

    def _process(self, values: Sequence[float], expected: Array | float = 0.0) -> Process:
        points = self._points(each.candidate for each in self._ran)
        return Process(self._axes, points, np.array(values), np.zeros(len(points)) + expected, _NOISE)

    def _keeps(self, points: Array) -> Array:
        """The chance that all limits are kept."""
        from scipy.stats import norm

        chance, zero = np.ones(len(points)), np.zeros(len(points))
        for limit in self._limits:
            mean, deviation = limit.at(points, zero)
            chance = chance * norm.cdf(-mean / deviation)
        return chance

    def _runs(self, points: Array) -> Array:
        """The chance that a launch survives, by those that died and those that did not.

        A regression of ones and zeros is wrong in its tails, so that what it holds to be likely to die is avoided more.
        """
        from scipy.stats import norm

        died = np.array([1.0 if each.values is None else 0.0 for each in self._all])
        if not died.any():
            return np.full(len(points), _SURE)
        axes = Axes(self._axes.ordered, (1.0,) * len(self._names))  # what is not fast may well be large
        seen, zero = self._points(each.candidate for each in self._all), np.zeros(len(died))
        mean, _ = Process(axes, seen, _SURE - died, zero, 0.1).at(points, np.zeros(len(points)))
        return np.asarray(norm.cdf((mean - _EVEN) / _STEEP))

    def _points(self, candidates: Iterable[Candidate]) -> Array:
        rows = [[self._coordinate(name, each) for name in self._names] for each in candidates]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._names))

    def _coordinate(self, name: str, candidate: Candidate) -> float:
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
