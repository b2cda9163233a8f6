"""What to try next, given everything that was seen.

The persisted Optuna study is the honest record that people look at. A sampler needs another form of it to learn from:
GP ignores pruned trials and models only parameters that every trial has. So each proposal starts from a fresh in-memory
study, the sampler's view, in which

- every parameter stands in every trial; one that did not act, or was left to the engine, has its default;
- powers of two and steps are whole levels, on which distances mean something;
- a configuration that cannot run is a finished trial with the worst value seen and a violated constraint.

Measured on a synthetic landscape this brings GP within 2 % of the optimum in 32 trials, where telling it of failures as
Optuna's own states does not in 60.
"""

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import JsonValue

from tuner.objective import Direction
from tuner.search.base import NOTHING, Admits, Observation, Search, anything, known
from tuner.search.view import SamplerView, decode, encode, in_levels, sampler
from tuner.space import Candidate, Choice, Range, SearchSpace, Settings

_ASKS = 8
"""How often the sampler is asked again when its proposal breaks a rule."""
_STEPS = 200


@dataclass
class ModelSearch(Search):
    """One of Optuna's samplers, shown a view from which it learns.

    Attributes:
        kind: ``gp``, ``tpe`` or ``random``.
        space: What may be tried.
        directions: ``maximize`` or ``minimize``, for each goal.
        deployed: The deployment's settings, which rules may speak of.
        seed: Of the study.
        startup_trials: How many candidates are spread over the space before the model proposes.
    """

    kind: str
    space: SearchSpace
    directions: tuple[Direction, ...]
    deployed: Settings
    seed: int
    startup_trials: int = 8

    doubts: ClassVar[int] = 3

    def propose(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue] = NOTHING, admits: Admits = anything
    ) -> Candidate | None:
        """See ``Search.propose``.

        A proposal that breaks a rule is shown to the sampler as one that cannot run. One that was seen before (4 % of
        GP's are) gives way to a neighbour: the sampler would only say it again.
        """
        fresh = self._freshness(seen, admits)
        met = known(seen)
        view = SamplerView(self.space, self.directions, settled)
        ruled_out: list[Observation] = []
        for attempt in range(_ASKS):
            candidate = self._ask(view, [*seen, *ruled_out], attempt)
            if fresh(candidate):
                return candidate
            if candidate.digest in met:
                break
            ruled_out.append(Observation(candidate, None))
        dice = random.Random(_derived(self.seed, len(met)))
        return self._neighbour(view, candidate, fresh, dice) or self._anything_else(view, fresh, dice)

    def _freshness(self, seen: Sequence[Observation], admits: Admits) -> Admits:
        """Whether a candidate is new, keeps the rules and may be proposed."""
        met = known(seen)

        def fresh(candidate: Candidate) -> bool:
            legal = candidate.digest not in met and not self.space.violated(candidate, self.deployed)
            return legal and admits(candidate)

        return fresh

    def _neighbour(
        self, view: "SamplerView", candidate: Candidate, fresh: Admits, dice: random.Random
    ) -> Candidate | None:
        """A candidate that differs in one parameter by one level, or by another choice; a second step if need be."""
        for _ in range(_STEPS if view.names else 0):
            name = dice.choice(view.names)
            stepped = _step(self.space.params[name], candidate.params.get(name), dice)
            candidate = view.settle({**self._defaults, **candidate.params, name: stepped})
            if fresh(candidate):
                return candidate
        return None

    @property
    def _defaults(self) -> dict[str, JsonValue]:
        """A value for every parameter, so that one whose condition comes to hold has one."""
        return {name: decode(p, encode(p, p.default)) for name, p in self.space.params.items()}

    def _ask(self, view: "SamplerView", seen: Sequence[Observation], attempt: int) -> Candidate:
        """One proposal; a later attempt at the same step asks with another seed."""
        spread_out = len(seen) < self.startup_trials or all(observation.values is None for observation in seen)
        kind = "random" if spread_out else self.kind
        study = view.study(seen, sampler(kind, _derived(self.seed, len(seen), attempt)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's notes on experimental features are not for our users
            trial = study.ask(view.distributions)
        return view.candidate(trial.params)

    def _anything_else(self, view: "SamplerView", fresh: Admits, dice: random.Random) -> Candidate | None:
        """The sampler repeats itself: take what is left, at random, if it can be counted at all."""
        if self.space.size is not None and self.space.size <= 100_000:
            every = {c.digest: c for c in (view.settle(each.params) for each in self.space.all_candidates())}
            rest = [candidate for candidate in every.values() if fresh(candidate)]
            return dice.choice(rest) if rest else None
        drawn = (self._ask(view, [], attempt) for attempt in range(_ASKS, _ASKS + _STEPS))
        return next((candidate for candidate in drawn if fresh(candidate)), None)


def _derived(*numbers: int) -> int:
    """A seed of its own for each question, the same in every run of Python."""
    return random.Random(":".join(map(str, numbers))).getrandbits(31)


def _step(parameter: Range | Choice, value: JsonValue, dice: random.Random) -> JsonValue:
    """A value next to this one: the next level up or down, another choice, or a little more or less."""
    encoded = encode(parameter, value if parameter.accepts(value) else parameter.default)
    if isinstance(parameter, Choice):
        return parameter.value(dice.randrange(parameter.levels))
    if in_levels(parameter):
        return parameter.value(min(max(int(encoded) + dice.choice((-1, 1)), 0), (parameter.levels or 1) - 1))
    stepped = min(max(encoded * dice.uniform(0.9, 1.1), parameter.low), parameter.high)
    return decode(parameter, round(stepped) if parameter.integral else stepped)
