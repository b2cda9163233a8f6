"""At each level of concurrency the same question: the goals of the objective, as that level measures them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuner.errors import ConfigError
from tuner.load.naming import CONCURRENT, parse
from tuner.load.workload import Workload
from tuner.objective import Direction, Limit, Objective


@dataclass(frozen=True, slots=True)
class ConcurrencyLevel:
    """A level of concurrency.

    Attributes:
        name: Its rung of the ladder: ``users_5``.
        goals: The objective's goals there, by metric.
        limits: The absolute limits there, by metric.
    """

    name: str
    goals: Mapping[str, Direction]
    limits: Mapping[str, Limit]

    @property
    def said(self) -> str:
        """For a person: ``5 users``."""
        what, _, count = self.name.partition("_")
        if what == "rate":
            return f"{count} requests a second"
        return f"{count} {what.removesuffix('s') if count == '1' else what}"


def check_levels(workload: Workload, objective: Objective, least: int = 2) -> None:
    """Two engines can be compared at the levels of this workload, so many at the least.

    Raises:
        ConfigError: It has one level only, or a goal that is none of a level.
    """
    if len(workload.ladder) < least:
        raise ConfigError(
            "engines are compared at each level of concurrency, and this workload has one",
            place="workload.concurrency",
            fix="say 'workload.concurrency=[1,5]'",
        )
    for name in objective.goals:
        found = parse(name)
        if found.sending or not (found.quantity.stages and (found.stage == CONCURRENT or found.rung)):
            fix = "name one that each level has, such as output_tokens_per_s or ttft_ms.p50"
            raise ConfigError(f"{name} is not measured at each level of concurrency", place="objective.goals", fix=fix)


def levels_of(workload: Workload, objective: Objective) -> tuple[ConcurrencyLevel, ...]:
    """The levels of a workload, in order."""
    *rungs, last = workload.ladder
    absolute = {name: limit for name, limit in objective.limits.items() if limit.of == "absolute"}
    return tuple(
        ConcurrencyLevel(
            rung,
            {_at(name, stage): way for name, way in objective.goals.items()},
            {_at(name, stage): limit for name, limit in absolute.items()},
        )
        for rung, stage in [*((rung, rung) for rung in rungs), (last, CONCURRENT)]
    )


def _at(name: str, stage: str) -> str:
    """A metric of the users together, as a level measures it; what no level measures stays what it is."""
    found = parse(name)
    if found.sending or not found.quantity.stages or not (found.stage == CONCURRENT or found.rung):
        return name
    return replace(found, stage=stage).text


def proof_objective(workload: Workload, objective: Objective) -> Objective:
    """What the relaunches of the proof measure well enough: the goals at every level, and the absolute limits."""
    levels = levels_of(workload, objective)
    goals = {name: way for level in levels for name, way in level.goals.items()}
    limits = {name: limit for level in levels for name, limit in level.limits.items()}
    return objective.model_copy(update={"goals": goals, "limits": limits})
