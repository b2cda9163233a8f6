"""The proof of a study on launches of your own: simulated, or resampled from recorded ones."""

from collections.abc import Callable, Mapping

from tuner.objective import Direction, Limit
from tuner.proof.decision import Decision
from tuner.proof.estimate import Noise
from tuner.proof.order import turns
from tuner.proof.rule import ALPHA, ProofLaunch, Terms
from tuner.proof.rule import decide as rule

Source = Callable[[], Mapping[str, float | None] | None]
"""Stands for one launch: what it measured, by metric; ``None`` for nothing."""


class Died(Exception):
    """The launch gave no measurement."""


def decide(
    baseline: Source,
    candidate: Source,
    goals: Mapping[str, Direction],
    limits: Mapping[str, Limit | Mapping[str, object]],
    *,
    max_launches: int = 8,
    noise: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    min_gain: float = 0.02,
    guard: float | None = 0.25,
    alpha: float = ALPHA,
) -> Decision:
    """Launch both in turns until it is decided which is better, as a study does.

    Args:
        baseline: One launch of what is deployed; raises ``Died`` where it gives nothing.
        candidate: One launch of what shall be better.
        goals: ``maximize`` or ``minimize`` by metric.
        limits: By metric, as an objective has them: ``{"max": 1.1, "of": "baseline"}``.
        max_launches: Of each at the most.
        noise: By metric the standard deviation of its log among launches of one configuration, and the degrees of
            freedom with which that is known.
        seed: Of the order.
        min_gain: A gain below this share is not worth a change.
        guard: By which share a metric without a limit may get worse; ``None`` for any.
        alpha: One-sided error that may be spent.
    """
    terms = Terms(
        goals=goals,
        limits={
            name: limit if isinstance(limit, Limit) else Limit.model_validate(limit) for name, limit in limits.items()
        },
        most=max_launches,
        noise={name: Noise(sd, dof) for name, (sd, dof) in (noise or {}).items()},
        alpha=alpha,
        min_gain=min_gain,
        guard=guard,
    )
    needed = (*goals, *limits)
    launches: list[ProofLaunch] = []
    decision = rule(launches, terms)
    for of_candidate in turns(f"order:{seed}", max_launches):
        launches.append(_launch(candidate if of_candidate else baseline, of_candidate, needed))
        if len(launches) % 2 == 0 and (decision := rule(launches, terms)).over:
            break
    return decision


def _launch(source: Source, of_candidate: bool, needed: tuple[str, ...]) -> ProofLaunch:
    try:
        numbers = {name: value for name, value in (source() or {}).items() if value is not None}
    except Died as death:
        return ProofLaunch(of_candidate, {}, str(death) or "died")
    missing = [name for name in needed if not numbers.get(name, 0) > 0]
    return ProofLaunch(of_candidate, numbers, f"did not measure {', '.join(missing)}" if missing else None)
