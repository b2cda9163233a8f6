"""The default search: a model of single effects and pairs, asked for what is most likely to beat the best by most.

What it does otherwise than a generic sampler (``make bench-search`` measures the whole of it):

- no random start: the deployed configuration is known to run, and most random ones are slow or die;
- every choice that was never launched is launched once, one of each switch together, before anything is refined;
- goals and limits are modelled by their logs, limits each by its own model: one reading at 24 times the limit does not
  set the scale of all;
- what is expected is the gain over the best *configuration*, by the model, and not over the best reading: a copy that
  differs in nothing that matters is worth nothing;
- what died lowers the chance that its neighbours run, and says nothing of their speed;
- what the hardware allows is expected of the goal as far as launches agree with it.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from pydantic import JsonValue

from tuner.engines.base import NO_HINTS, Hints
from tuner.objective import Direction
from tuner.search.base import NOTHING, Admits, Expectation, Observation, Planned, Search, Why, anything, known
from tuner.search.live import LivePlan
from tuner.search.pool import Pool
from tuner.search.source import Source
from tuner.search.surrogate import Roofline, Surrogate
from tuner.space import Candidate, SearchSpace, Settings

_BELIEVED = 0.5
"""From this agreement on an earlier study is followed before what it has not seen is launched."""
_WORTH = 0.01
"""As long as that promises so much, in logs."""


@dataclass
class AdditiveSearch(Search):
    """See the module.

    Attributes:
        space: What may be tried.
        direction: Of the goal.
        deployed: The deployment's settings, which rules may speak of.
        seed: Of the study.
        hints: What is known of the engine's settings.
        shares: Limits whose bound is a share of what the deployed configuration measures.
        sources: Earlier studies to begin with.
        roofline: What the hardware allows of the goal, where that is known.
    """

    space: SearchSpace
    direction: Direction
    deployed: Settings
    seed: int
    hints: Hints = NO_HINTS
    shares: Collection[str] = ()
    sources: Sequence[Source] = ()
    roofline: Roofline | None = None

    doubts: ClassVar[int] = 100
    screens: ClassVar[bool] = True

    _models: dict[tuple[str, ...], Surrogate] = field(default_factory=dict, repr=False)

    def propose(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue] = NOTHING, admits: Admits = anything
    ) -> Candidate | None:
        """See ``Search.propose``."""
        dice = random.Random(f"{self.seed}:{len(seen)}")
        met = known(seen)

        def fresh(candidate: Candidate) -> bool:
            return candidate.digest not in met and not self.space.violated(candidate, self.deployed)

        free = self._free(settled)
        pool = Pool(self.space, free, settled, fresh, dice, self.hints)
        start = self._start(seen)
        launched = [each for each in seen if not each.screened]
        ranked, promised, best = self._ranked(seen, pool, free), [], self._best_elsewhere(seen, free)
        if best:
            promised = list(ranked)
            ranked = iter(promised)
        orders = (
            filter(fresh, map(pool.nearest, best)),
            (each for each, gain in promised if gain >= _WORTH),
            pool.with_new_choices(launched, start),
            (each for each, gain in ranked if not promised or gain < _WORTH),
            pool.anything_else(),
        )
        return next((each for order in orders for each in order if admits(each)), None)

    def _best_elsewhere(self, seen: Sequence[Observation], free: Sequence[str]) -> list[Candidate]:
        """The best of each earlier study that is believed; what those promise comes before what is new here."""
        model = self._model(free, seen)
        if model.best is None:
            return []
        believed = zip(self.sources, model.agreement, strict=True)
        return [source.best for source, agreement in believed if agreement >= _BELIEVED and source.best]

    def agreement(self, seen: Sequence[Observation]) -> Mapping[str, float]:
        """See ``Search.agreement``: none before anything was measured."""
        model, names = self.model(seen), [each.name for each in self.sources]
        return {} if model.best is None else dict(zip(names, model.agreement, strict=True))

    def plan(
        self,
        live: Sequence[str],
        count: int,
        seen: Sequence[Observation],
        settled: Mapping[str, JsonValue] = NOTHING,
        admits: Admits = anything,
        sound: Admits = anything,
    ) -> Planned | None:
        """See ``Search.plan``."""
        proposed, names = self.propose(seen, settled, admits), [name for name in live if name not in settled]
        if proposed is None or not names:
            return Planned(proposed) if proposed else None
        return LivePlan(self.space, self.deployed, names, self.model(seen), seen).of(proposed, count, sound)

    def expected_gain(
        self, seen: Sequence[Observation], candidates: Sequence[Candidate], settled: Mapping[str, JsonValue] = NOTHING
    ) -> float | None:
        """See ``Search.expected_gain``: not known while nothing ran, or a choice was never launched."""
        model = self._model(self._free(settled), seen)
        if model.best is None or self._untried(seen, settled):
            return None
        return float(np.max(model.expected_improvement(candidates)))

    def expectation(self, seen: Sequence[Observation], candidate: Candidate) -> Expectation | None:
        """See ``Search.expectation``: none before anything ran."""
        model = self.model(seen)
        if model.best is None:
            return None
        value, low, high = model.reading(candidate)
        why: Why = "exploit" if model.betters(candidate) else "explore"
        if any(candidate.params.get(name) in choices for name, choices in self._untried(seen, NOTHING).items()):
            why = "new choices"
        return Expectation(why=why, value=value, low=low, high=high)

    def _untried(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue]
    ) -> Mapping[str, Sequence[JsonValue]]:
        """Choices of switches that were never launched, by parameter."""
        pool = Pool(self.space, self._free(settled), settled, anything, random.Random(0), self.hints)
        return pool.untried([each for each in seen if not each.screened])

    def _free(self, settled: Mapping[str, JsonValue]) -> list[str]:
        return [name for name, p in self.space.params.items() if p.levels != 1 and name not in settled]

    def recommend(self, seen: Sequence[Observation]) -> Candidate | None:
        """See ``Search.recommend``: none before anything ran."""
        model = self.model(seen)
        return None if model.best is None else model.best.candidate

    def model(self, seen: Sequence[Observation]) -> Surrogate:
        """What is held of the whole space."""
        return self._model(self._free(NOTHING), seen)

    def _model(self, names: Sequence[str], seen: Sequence[Observation]) -> Surrogate:
        """The last one is kept: a study asks for its best and then for the next candidate."""
        key = (*names, *map(_told, seen))
        if key not in self._models:
            base, shares = self.space.deployed(self.deployed), self.shares
            about = (self.space, names, self.direction, self.hints, seen)
            made = Surrogate(*about, deployed=base, shares=shares, sources=self.sources, roofline=self.roofline)
            self._models = {key: made}
        return self._models[key]

    def _start(self, seen: Sequence[Observation]) -> Candidate:
        """What new choices are tried on: the best so far, else the deployment."""
        return self.recommend(seen) or self.space.deployed(self.deployed)

    def _ranked(
        self, seen: Sequence[Observation], pool: Pool, free: Sequence[str]
    ) -> Iterator[tuple[Candidate, float]]:
        """Candidates with their expected gains, the largest first."""
        model = self._model(free, seen)
        if model.best is None:
            return
        promising = (each.best for each in self.sources)
        candidates = list(pool.around([*(each.candidate for each in model.incumbents), *filter(None, promising)]))
        if candidates:
            gains = model.expected_improvement(candidates)
            yield from ((candidates[int(n)], float(gains[n])) for n in np.argsort(-gains))


def _told(seen: Observation) -> str:
    """What a model is made of."""
    server = seen.server.asked if seen.server else seen.screened
    return f"{seen.candidate.digest} {seen.values} {seen.margins} {seen.launches} {seen.noise} {server}"
