"""The winner against the baseline, launched again, in turns, on prompts that neither has seen.

The best of many noisy measurements reads too high (of 30 equal configurations at 3 % noise by 6 %). So the search's own
numbers never make a winner: only the relaunches do, and a gain within their own spread is no gain.
"""

from collections.abc import Sequence
from statistics import fmean

from tuner.objective import Objective, metric
from tuner.schema import Schema
from tuner.storage import Role, TrialRecord


class GoalComparison(Schema):
    """One goal's metric in the relaunches of both."""

    baseline: tuple[float, ...]
    best: tuple[float, ...]
    gain: float
    """By which share the means differ; positive is better."""
    spread: float | None
    """The widest range within one of the two, as a share of the baseline's mean; null where single relaunches show
    none. A gain must exceed it."""

    @property
    def proven(self) -> bool:
        """Whether the gain is larger than the spread."""
        return self.spread is not None and self.gain > self.spread

    @property
    def lost(self) -> bool:
        """Whether it is worse than the baseline by more than the spread."""
        return self.gain < -(self.spread or 0.0)

    def __str__(self) -> str:
        spread = "unknown" if self.spread is None else f"{self.spread:.1%}"
        return f"{self.gain:+.1%}, spread {spread}"


class Comparison(Schema):
    """What the relaunches say."""

    goals: dict[str, GoalComparison]
    missed_limits: tuple[str, ...] = ()
    """Limits that the best missed in its relaunches, on average."""
    failures: tuple[str, ...] = ()
    """Relaunches that gave no measurement, and why."""

    @property
    def proven(self) -> bool:
        """Whether a goal has a proven gain, none has lost, and limits and launches held."""
        goals = self.goals.values()
        held = not self.missed_limits and not self.failures
        return held and any(goal.proven for goal in goals) and not any(goal.lost for goal in goals)


def order(repeats: int) -> tuple[Role, ...]:
    """Who is launched when: A B, B A, A B, …, so that a drift of the machine hits both alike."""
    pair = (Role.CONFIRM_BASELINE, Role.CONFIRM_BEST)
    return tuple(role for turn in range(repeats) for role in (pair if turn % 2 == 0 else pair[::-1]))


def compare(objective: Objective, relaunches: Sequence[TrialRecord]) -> Comparison | None:
    """The comparison, or ``None`` if one of the two has not been measured again at all."""
    baseline = _measured(relaunches, Role.CONFIRM_BASELINE)
    best = _measured(relaunches, Role.CONFIRM_BEST)
    failures = tuple(f"{record.role}: {record.failure.message}" for record in relaunches if record.failure)
    if not baseline or not best:
        return Comparison(goals={}, failures=failures) if failures else None
    return Comparison(
        goals={name: _goal(objective, name, baseline, best) for name in objective.goals},
        missed_limits=_missed(objective, baseline, best),
        failures=failures,
    )


def _measured(relaunches: Sequence[TrialRecord], role: Role) -> list[TrialRecord]:
    return [record for record in relaunches if record.role is role and record.measurement]


def _metrics(records: Sequence[TrialRecord], name: str) -> tuple[float, ...]:
    return tuple(metric(record.measurement, name) for record in records if record.measurement)


def _goal(
    objective: Objective, name: str, baseline: Sequence[TrialRecord], best: Sequence[TrialRecord]
) -> GoalComparison:
    old, new = _metrics(baseline, name), _metrics(best, name)
    sign = 1 if objective.goals[name] == "maximize" else -1
    return GoalComparison(baseline=old, best=new, gain=sign * (fmean(new) / fmean(old) - 1), spread=_spread(old, new))


def _spread(old: Sequence[float], new: Sequence[float]) -> float | None:
    if min(len(old), len(new)) < 2:
        return None
    return max(max(values) - min(values) for values in (old, new)) / fmean(old)


def _missed(objective: Objective, baseline: Sequence[TrialRecord], best: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Limits of the means, beyond what the relaunches of one configuration differ among themselves."""
    missed = []
    for name, limit in objective.limits.items():
        old, new = _metrics(baseline, name), _metrics(best, name)
        if limit.violation(fmean(new), fmean(old)) > (_spread(old, new) or 0.0):
            missed.append(name)
    return tuple(missed)
