"""A search on a landscape of your own: what it launches, and what it would recommend after each launch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, Protocol

import numpy as np
from pydantic import JsonValue

from tuner.engines.registry import DEFAULT, ENGINES
from tuner.objective import Direction, Limit
from tuner.search.additive import AdditiveSearch, Hints
from tuner.search.base import CANNOT_RUN, Observation, SearchConfig
from tuner.search.registry import make_search
from tuner.space import Candidate, SearchSpace
from tuner.testing.proof import Died

Kind = Literal["auto", "gp", "tpe", "random", "grid"]


class Landscape(Protocol):
    """What configurations are worth."""

    @property
    def space(self) -> Mapping[str, JsonValue]:
        """As in ``conf/space``."""
        ...

    @property
    def deployed(self) -> Mapping[str, JsonValue]:
        """Parameter values of launch 1."""
        ...

    @property
    def goals(self) -> Mapping[str, Direction]:
        """``maximize`` or ``minimize`` by metric."""
        ...

    @property
    def limits(self) -> Mapping[str, Mapping[str, object]]:
        """By metric, as an objective has them."""
        ...

    def evaluate(self, params: Mapping[str, JsonValue], rng: np.random.Generator) -> Mapping[str, float]:
        """What one launch measures; raises ``Died``."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a race.

    Attributes:
        params: The parameters.
        screened: Settings that were measured live in it.
        died: Whether it gave no measurement.
        seconds: What it cost, screening included; 0 where the landscape does not say.
        recommended: What the study would recommend after it; the deployed values before anything ran.
    """

    params: Mapping[str, JsonValue]
    screened: tuple[Mapping[str, JsonValue], ...]
    died: bool
    seconds: float
    recommended: Mapping[str, JsonValue]


def race(landscape: Landscape, *, search: Kind = "auto", launches: int = 25, seed: int = 0) -> list[Launch]:
    """Let a search have so many launches, the deployed configuration first."""
    return _Race(landscape, search, seed).run(launches)


class _Race:
    def __init__(self, landscape: Landscape, kind: Kind, seed: int) -> None:
        self._landscape = landscape
        self._space = SearchSpace.model_validate(landscape.space)
        self._goals = dict(landscape.goals)
        self._limits = {name: Limit.model_validate(limit) for name, limit in landscape.limits.items()}
        settings = self._space.settings(self._space.candidate(landscape.deployed))
        conventions, directions = ENGINES[DEFAULT].conventions, list(self._goals.values())
        hints = Hints(conventions.weights, conventions.slow)
        self._search = make_search(SearchConfig(kind=kind), self._space, directions, settings, seed, hints)
        self._rng = np.random.default_rng(seed)
        self._measured: dict[str, list[Mapping[str, float]]] = {}
        self._seen: dict[str, Candidate] = {}
        self._launches: list[Launch] = []

    def run(self, launches: int) -> list[Launch]:
        first = self._space.candidate(self._landscape.deployed)
        while len(self._launches) < launches:
            candidate = first if not self._launches else self._search.propose(self._observations())
            if candidate is None:
                break
            self._launch(candidate)
        return self._launches

    def _launch(self, candidate: Candidate) -> None:
        cost = getattr(self._landscape, "seconds", None)
        seconds = float(cost(candidate.params, [each.params for each in self._launches])) if cost else 0.0
        self._seen[candidate.digest] = candidate
        try:
            metrics = self._landscape.evaluate(dict(candidate.params), self._rng)
            self._measured.setdefault(candidate.digest, []).append(metrics)
            died = False
        except Died:
            died = True
        self._launches.append(Launch(candidate.params, (), died, seconds, {}))
        self._launches[-1] = Launch(candidate.params, (), died, seconds, self._recommended())

    def _recommended(self) -> Mapping[str, JsonValue]:
        if isinstance(self._search, AdditiveSearch):
            best = self._search.recommend(self._observations())
        else:
            best = max(self._observations(), key=self._score, default=None)  # type: ignore[assignment]
            best = best.candidate if best else None  # type: ignore[attr-defined]
        return best.params if best else self._landscape.deployed

    def _score(self, seen: Observation) -> tuple[bool, float]:
        """By its reading, as long as it keeps its limits."""
        if not seen.values:
            return (False, float("-inf"))
        signs = [1 if direction == "maximize" else -1 for direction in self._goals.values()]
        return (seen.violation <= 0, sum(sign * log(value) for sign, value in zip(signs, seen.values, strict=True)))

    def _observations(self) -> list[Observation]:
        return [self._observation(candidate) for candidate in self._seen.values()]

    def _observation(self, candidate: Candidate) -> Observation:
        measured = self._measured.get(candidate.digest)
        if not measured:
            return Observation(candidate, None)
        values = tuple(_mean(measured, name) for name in self._goals)
        margins = {name: self._margin(measured, name) for name in self._limits}
        beyond = max(margins.values(), default=-1.0)
        violation = CANNOT_RUN / 2 if beyond > 0 else -CANNOT_RUN / 2
        return Observation(candidate, values, violation, margins=margins)

    def _margin(self, measured: Sequence[Mapping[str, float]], name: str) -> float:
        """By which log the limit is exceeded."""
        limit, value = self._limits[name], _mean(measured, name)
        first = next(iter(self._measured.values()))
        scale = _mean(first, name) if limit.of == "baseline" else 1.0
        if limit.max is not None:
            return log(value / (limit.max * scale))
        assert limit.min is not None
        return log(limit.min * scale / value)


def _mean(measured: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.exp(np.mean([log(each[name]) for each in measured])))
