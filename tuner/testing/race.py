"""A search on a landscape of your own: what it launches, and what it holds to be the best after each launch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Literal, Protocol

import numpy as np
from pydantic import JsonValue

from tuner.engines.base import Hints
from tuner.engines.registry import DEFAULT, ENGINES
from tuner.objective import Direction, Limit
from tuner.search.base import LiveIn, Observation, Planned, SearchConfig
from tuner.search.registry import make_search
from tuner.search.source import Source
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
    landscape: Landscape,
    *,
    search: Kind = "auto",
    launches: int = 25,
    seed: int = 0,
    hints: Hints | None = None,
    sources: Sequence[Source] = (),
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
        sources: Earlier studies that it begins with.
    """
    return _Race(landscape, search, seed, ENGINES[DEFAULT].hints if hints is None else hints, sources).run(launches)


class _Race:
    def __init__(self, landscape: Landscape, kind: Kind, seed: int, hints: Hints, sources: Sequence[Source]) -> None:
        self._landscape = landscape
        self._space = SearchSpace.model_validate(landscape.space)
        self._goals = dict(landscape.goals)
        self._limits = {name: Limit.model_validate(limit) for name, limit in landscape.limits.items()}
        settings = self._space.settings(self._space.candidate(landscape.deployed))
        directions = list(self._goals.values())
        shares = [name for name, limit in self._limits.items() if limit.of == "baseline"]
        self._config = SearchConfig(kind=kind)
        about = (self._space, directions, settings, seed, hints, shares, sources)
        self._search = make_search(self._config, *about, self._roofline if hasattr(landscape, "roofline") else None)
        self._rng = np.random.default_rng(seed)
        self._measured: dict[str, list[Mapping[str, float]]] = {}
        self._screenings: dict[str, list[Mapping[str, float]]] = {}
        self._seen: dict[str, Candidate] = {}
        self._screened: dict[str, tuple[Candidate, Candidate]] = {}
        self._launches: list[Launch] = []

    def run(self, launches: int) -> list[Launch]:
        first = self._space.candidate(self._landscape.deployed)
        while len(self._launches) < launches:
            planned = self._planned() if self._launches else Planned(first)
            if planned is None:
                break
            self._launch(planned)
        return self._launches

    def _planned(self) -> Planned | None:
        """As a study plans a launch: with settings to be screened in it, where landscape and search can do that."""
        return self._search.plan(self._live, self._config.live_settings, self._observations())

    @property
    def _live(self) -> list[str]:
        """Parameters that the landscape can change in a running server."""
        names = getattr(self._landscape, "live", ())
        return [name for name in names if name in self._space.params and self._config.live == "auto"]

    def _roofline(self, candidate: Candidate) -> float | None:
        """What a landscape that has a ``roofline`` says that its hardware allows of the goal."""
        allowed: float | None = self._landscape.roofline(candidate.params)  # type: ignore[attr-defined]
        return allowed

    def _launch(self, planned: Planned) -> None:
        candidate = planned.candidate
        cost = getattr(self._landscape, "seconds", None)
        seconds = float(cost(candidate.params, [each.params for each in self._launches])) if cost else 0.0
        self._seen[candidate.digest] = candidate
        screened: list[Mapping[str, JsonValue]] = []
        try:
            metrics = self._landscape.evaluate(dict(candidate.params), self._rng)
            self._measured.setdefault(candidate.digest, []).append(metrics)
            screened = [setting for each in planned.screened if (setting := self._screen(candidate, each))]
            died = False
        except Died:
            died = True
        seconds += len(screened) * float(getattr(self._landscape, "screen_seconds", 0.0))
        self._launches.append(Launch(candidate.params, tuple(screened), died, seconds, {}))
        self._launches[-1] = replace(self._launches[-1], recommended=self._recommended())

    def _screen(self, started: Candidate, screened: Candidate) -> Mapping[str, JsonValue] | None:
        """Measure a setting in the server of another; returns it, or ``None`` if the server cannot."""
        setting = {name: screened.params[name] for name in self._live if name in screened.params}
        try:
            metrics = self._landscape.screen(dict(started.params), setting, self._rng)  # type: ignore[attr-defined]
        except Died:
            return None
        self._screened[screened.digest] = screened, started
        self._screenings.setdefault(screened.digest, []).append(metrics)
        return setting

    def _recommended(self) -> Mapping[str, JsonValue]:
        seen = self._observations()
        best = self._search.recommend(seen) or self._best_reading(seen)
        return best.params if best else self._landscape.deployed

    def _best_reading(self, seen: Sequence[Observation]) -> Candidate | None:
        best = max((each for each in seen if not each.screened), key=self._score)
        return best.candidate if best.values else None

    def _score(self, seen: Observation) -> tuple[bool, float]:
        """By its reading, as long as it keeps its limits."""
        if not seen.values:
            return (False, float("-inf"))
        signs = [1 if direction == "maximize" else -1 for direction in self._goals.values()]
        return (seen.violation <= 0, sum(sign * log(value) for sign, value in zip(signs, seen.values, strict=True)))

    def _observations(self) -> list[Observation]:
        launched = [self._observation(candidate, self._measured) for candidate in self._seen.values()]
        screened = (
            replace(self._observation(candidate, self._screenings), screened=True, server=LiveIn(server, server.digest))
            for candidate, server in self._screened.values()
        )
        return [*screened, *launched]

    def _observation(self, candidate: Candidate, readings: Mapping[str, list[Mapping[str, float]]]) -> Observation:
        measured = readings.get(candidate.digest)
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
