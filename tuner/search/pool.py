"""The candidates that a search chooses from: the best so far, changed in a few parameters."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from pydantic import JsonValue

from tuner.engines.base import Hints
from tuner.search.base import Admits, Observation
from tuner.search.view import decode, encode, is_ordered
from tuner.space import Candidate, Choice, Range, SearchSpace

_COUNTS = (2, 2, 2, 3, 4)
"""How many parameters differ from a center, drawn from these: two in most cases."""
_MOST = 800
"""So many are compared at each step."""
_TRIES = 20
"""So often new choices are drawn until they make a candidate that keeps the rules."""


class Pool:
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
        self._ladders: dict[str, list[JsonValue]] = {}
        self._space, self._free, self._settled, self._fresh, self._dice = space, list(free), settled, fresh, dice

    def with_new_choices(self, seen: Sequence[Observation], start: Candidate) -> Iterator[Candidate]:
        """The start with choices that were never measured; what died with several is blamed on none of them."""
        if not (unseen := self.untried(seen)):
            return
        survived = bool(seen) and seen[-1].values is not None
        count = len(unseen) if survived else 1
        for _ in range(_TRIES):
            names = self._dice.sample(list(unseen), count)
            candidate = self._made({**start.params, **{name: self._dice.choice(unseen[name]) for name in names}})
            if self._fresh(candidate):
                yield candidate

    def untried(self, seen: Sequence[Observation]) -> dict[str, list[JsonValue]]:
        """The choices of switches that were never measured, by parameter."""
        return {name: values for name in self._free if (values := self._unseen(name, seen))}

    def _unseen(self, name: str, seen: Sequence[Observation]) -> list[JsonValue]:
        """Choices of a switch that were neither measured nor died twice."""
        parameter = self._space.params[name]
        if not isinstance(parameter, Choice) or is_ordered(parameter):
            return []
        measured = [each.candidate.params.get(name, parameter.default) for each in seen if each.values]
        died = [each.candidate.params.get(name, parameter.default) for each in seen if each.values is None]
        target, slow = self._space.target(name)[1], self._hints.slow
        past = [*measured, *([slow[target]] if target in slow else [])]
        return [value for value in parameter.choices if value not in past and died.count(value) < 2]

    def around(self, centers: Sequence[Candidate]) -> Iterator[Candidate]:
        """Each once: all that differ from a center in one parameter, and some that differ in more."""
        made: set[str] = set()
        for values in self._variants(centers):
            candidate = self._space.candidate({**values, **self._settled})
            if candidate.digest not in made and self._fresh(candidate):
                made.add(candidate.digest)
                yield candidate
            if len(made) >= _MOST:
                return

    def _variants(self, centers: Sequence[Candidate]) -> Iterator[Mapping[str, JsonValue]]:
        whole = [self._whole(center.params) for center in centers]
        for center in whole:
            for name in self._free:
                yield from ({**center, name: value} for value in self._values(name))
        for _ in range(3 * _MOST if self._free else 0):
            center = self._dice.choice(whole)
            count = min(len(self._free), self._dice.choice(_COUNTS))
            names = self._dice.sample(self._free, count)
            yield {**center, **{name: self._dice.choice(self._values(name)) for name in names}}

    def nearest(self, candidate: Candidate) -> Candidate:
        """A candidate of another study, with the nearest values that the space holds."""
        return self._made(candidate.params)

    def anything_else(self) -> Iterator[Candidate]:
        """Any candidate, in no order; all of a small space."""
        if self._space.size is not None and self._space.size <= 100_000:
            rest = [
                each for each in (self._made(one.params) for one in self._space.all_candidates()) if self._fresh(each)
            ]
            self._dice.shuffle(rest)
            yield from rest
            return
        drawn = ({name: self._dice.choice(self._values(name)) for name in self._free} for _ in range(_MOST))
        yield from (each for each in map(self._made, drawn) if self._fresh(each))

    def _values(self, name: str) -> list[JsonValue]:
        if name not in self._ladders:
            self._ladders[name] = values_of(self._space.params[name])
        return self._ladders[name]

    def _made(self, values: Mapping[str, JsonValue]) -> Candidate:
        """A candidate of these values, as far as the space holds them; the nearest ones that it does where not."""
        return self._space.candidate({**self._whole(values), **self._settled})

    def _whole(self, values: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """A value for every parameter: these, as far as the space holds them."""
        held = {name: self._held(name, value) for name, value in values.items() if name in self._space.params}
        return {**self._defaults, **held}

    def _held(self, name: str, value: JsonValue) -> JsonValue:
        parameter = self._space.params[name]
        if value is None and not parameter.accepts(None):
            return self._defaults[name]
        return value if parameter.accepts(value) else decode(parameter, encode(parameter, value))

    @cached_property
    def _defaults(self) -> Mapping[str, JsonValue]:
        """A value for every parameter, so that one whose condition comes to hold has one."""
        return {name: decode(p, encode(p, p.default)) for name, p in self._space.params.items()}


def values_of(parameter: Range | Choice) -> list[JsonValue]:
    """The values of a parameter; some of them, spread out, where it has too many."""
    if parameter.levels is not None and parameter.levels <= 64:
        return [parameter.value(level) for level in range(parameter.levels)]
    assert not isinstance(parameter, Choice)
    ends = np.log([parameter.low, parameter.high]) if parameter.scale == "log" else [parameter.low, parameter.high]
    spread = np.linspace(ends[0], ends[1], 17)
    numbers = np.exp(spread) if parameter.scale == "log" else spread
    return [round(float(n)) if parameter.integral else float(f"{n:.4g}") for n in numbers]
