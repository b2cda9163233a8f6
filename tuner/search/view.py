"""The space and what was seen, in the form from which a sampler learns best."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from tuner.objective import Direction
from tuner.search.base import Observation
from tuner.space import Candidate, Choice, Range, SearchSpace

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

CONSTRAINT = "violation"


@dataclass(frozen=True)
class SamplerView:
    """The space and the observations as a sampler learns from them best."""

    space: SearchSpace
    directions: tuple[Direction, ...]
    settled: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The parameters that can still vary."""
        return [name for name, p in self.space.params.items() if p.levels != 1 and name not in self.settled]

    @property
    def distributions(self) -> "dict[str, BaseDistribution]":
        """One distribution for each parameter that can still vary; the others have nothing to teach."""
        return {name: _distribution(self.space.params[name]) for name in self.names}

    def settle(self, values: Mapping[str, JsonValue]) -> Candidate:
        """The candidate of these values, with what is settled as it stays."""
        return self.space.candidate({**values, **self.settled})

    def study(self, seen: Iterable[Observation], sampler: "BaseSampler") -> "optuna.Study":
        """An in-memory study of Optuna's that holds the observations."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=list(self.directions), sampler=sampler)
        study.add_trials(list(self._trials(list(seen))))
        return study

    def _trials(self, seen: Sequence[Observation]) -> "Iterator[FrozenTrial]":
        from optuna.trial import create_trial

        if not any(observation.values for observation in seen):
            return
        worst = tuple(self._worst(goal, seen) for goal in range(len(self.directions)))
        for observation in seen:
            yield create_trial(
                params={name: self._encoded(name, observation.candidate) for name in self.distributions},
                distributions=self.distributions,
                values=list(observation.values or worst),
                constraints={CONSTRAINT: observation.violation},
            )

    def _worst(self, goal: int, seen: Sequence[Observation]) -> float:
        reached = [observation.values[goal] for observation in seen if observation.values]
        return min(reached) if self.directions[goal] == "maximize" else max(reached)

    def _encoded(self, name: str, candidate: Candidate) -> int | float:
        parameter = self.space.params[name]
        value = candidate.params.get(name)
        return encode(parameter, value if parameter.accepts(value) else parameter.default)

    def candidate(self, encoded: Mapping[str, Any]) -> Candidate:
        """The candidate of a sampler's proposal."""
        fixed = {name: p.value(0) for name, p in self.space.params.items() if p.levels == 1}
        values = {name: decode(self.space.params[name], level) for name, level in encoded.items()}
        return self.settle({**fixed, **values})


def _distribution(parameter: Range | Choice) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(tuple(range(parameter.levels)))
    if parameter.scale == "log" and parameter.integral:
        return IntDistribution(int(parameter.low), int(parameter.high), log=True)
    if parameter.levels is None:
        return FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.scale == "log")
    return IntDistribution(0, parameter.levels - 1)


def in_levels(parameter: Range | Choice) -> bool:
    """Whether a sampler sees the number of a level instead of the value."""
    return isinstance(parameter, Choice) or not (parameter.scale == "log" or parameter.levels is None)


def encode(parameter: Range | Choice, value: JsonValue) -> int | float:
    """The value as a sampler sees it."""
    if isinstance(parameter, Choice):
        return parameter.level(value)
    number = value if isinstance(value, int | float) else parameter.low
    if in_levels(parameter):
        return parameter.level(number)
    clipped = min(max(number, parameter.low), parameter.high)
    return int(clipped) if parameter.integral else float(clipped)


def decode(parameter: Range | Choice, encoded: int | float) -> JsonValue:
    """The value that a sampler means."""
    if in_levels(parameter):
        return parameter.value(int(encoded))
    return encoded if isinstance(encoded, int) else float(f"{encoded:.4g}")


def sampler(kind: str, seed: int) -> "BaseSampler":
    """One of Optuna's samplers: ``gp``, ``tpe`` or ``random``."""
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        if kind == "tpe":
            return TPESampler(seed=seed, n_startup_trials=0)
        return RandomSampler(seed=seed)


def is_ordered(parameter: Range | Choice) -> bool:
    """Whether distances between values mean something."""
    if isinstance(parameter, Choice):
        numbers = [v for v in parameter.choices if isinstance(v, int | float) and not isinstance(v, bool)]
        return len(numbers) == len(parameter.choices) and len(numbers) > 2
    return True
