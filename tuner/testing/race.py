"""A search on a landscape of your own: what it launches, and what it holds to be the best after each launch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, Protocol

import numpy as np
from pydantic import JsonValue

from tuner.engines.base import Hints
from tuner.engines.registry import DEFAULT, ENGINES
from tuner.objective import Direction, Limit
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Observation, SearchConfig
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
        recommended: What the search holds to be the best that ran; the deployed values before anything ran.
    """

    params: Mapping[str, JsonValue]
    screened: tuple[Mapping[str, JsonValue], ...]
    died: bool
    seconds: float
    recommended: Mapping[str, JsonValue]


def race(
    landscape: Landscape, *, search: Kind = "auto", launches: int = 25, seed: int = 0, hints: Hints | None = None
) -> list[Launch]:
    """Let a search have so many launches, the deployed configuration first.

    It is the search that a study asks; predicted memory and what failures teach, which a study has as well, are not
    part of it.

    Args:
        landscape: What configurations are worth.
        search: Which search.
        launches: Of the deployed configuration and of what is proposed.
        seed: Of the search and of the noise.
        hints: What the search is told of the settings; what vLLM's package says, if nothing is given.
    """
    return _Race(landscape, search, seed, ENGINES[DEFAULT].hints if hints is None else hints).run(launches)


class _Race:
    def __init__(self, landscape: Landscape, kind: Kind, seed: int, hints: Hints) -> None:
        self._landscape = landscape
        self._space = SearchSpace.model_validate(landscape.space)
        self._goals = dict(landscape.goals)
        self._limits = {name: Limit.model_validate(limit) for name, limit in landscape.limits.items()}
        settings = self._space.settings(self._space.candidate(landscape.deployed))
        directions = list(self._goals.values())
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
        seen = self._observations()
        best = self._search.recommend(seen) if isinstance(self._search, AdditiveSearch) else self._best_reading(seen)
        return best.params if best else self._landscape.deployed

    def _best_reading(self, seen: Sequence[Observation]) -> Candidate | None:
        best = max(seen, key=self._score)
        return best.candidate if best.values else None

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
        violation = 0.5 if max(margins.values(), default=-1.0) > 0 else -0.5
        return Observation(candidate, values, violation, margins=margins)

    def _margin(self, measured: Sequence[Mapping[str, float]], name: str) -> float:
        first = next(iter(self._measured.values()))  # the deployment, unless it died
        return self._limits[name].excess(_mean(measured, name), _mean(first, name))


def _mean(measured: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.exp(np.mean([log(each[name]) for each in measured])))
