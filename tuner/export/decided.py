"""What a study measured and tried, as a winner's profile keeps it: the record of the decision."""

from collections.abc import Iterator, Mapping, Sequence
from math import exp, isfinite

from pydantic import Field, JsonValue

from tuner import words
from tuner.load.shapes import Documented
from tuner.proof.decision import Decision
from tuner.proof.estimate import level
from tuner.records import verdict
from tuner.records.outcome import Outcome
from tuner.records.record import Ending, Role, TrialRecord

_TAIL = 0.025


class Reading(Documented):
    """A metric over the relaunches of one configuration."""

    mean: float
    """Geometric."""
    low: float | None = None
    """Lower end of the 95 % interval; null where one launch does not tell."""
    high: float | None = None
    launches: int


class Measured(Documented):
    """A metric of the deployed configuration and of the winner."""

    baseline: Reading
    winner: Reading


class Tried(Documented):
    """One configuration that was tried and is not the winner."""

    trial: int
    changes: dict[str, JsonValue]
    """What it set otherwise than the deployment, by parameter."""
    ending: Ending
    numbers: dict[str, float] = Field(default_factory=dict)
    """Goals and limits, as its launch read them."""
    gain: float | None = None
    """By which share the first goal read better than the deployed configuration."""
    why: str = ""
    """Which limit it missed, or why it cannot run."""


def measured_of(decision: Decision) -> dict[str, Measured]:
    """Every metric that both were launched again for."""
    effects = {**decision.goals, **decision.others}
    both = {name: (effect.baseline, effect.candidate) for name, effect in effects.items()}
    return {
        name: Measured(baseline=_reading(old), winner=_reading(new)) for name, (old, new) in both.items() if old and new
    }


def _reading(values: Sequence[float]) -> Reading:
    if min(values) <= 0:
        return Reading(mean=_rounded(sum(values) / len(values)), launches=len(values))
    estimate = level(values)
    low, high = estimate.bounds(_TAIL)
    ends = (_rounded(exp(low)), _rounded(exp(high))) if isfinite(low) and isfinite(high) else (None, None)
    return Reading(mean=_rounded(exp(estimate.center)), low=ends[0], high=ends[1], launches=len(values))


def _rounded(value: float) -> float:
    """Six digits: more than any measurement has."""
    return float(f"{value:.6g}")


def tried_of(outcome: Outcome) -> Iterator[Tried]:
    """Everything else that was tried, in order."""
    won = outcome.best.number if outcome.best else None
    for record in outcome.searched:
        if record.number != won and record.role not in (Role.BASELINE, Role.CONTROL):
            yield _tried(outcome, record)


def _tried(outcome: Outcome, record: TrialRecord) -> Tried:
    gains = outcome.readings.gains(record.digest) if record.measurement and outcome.baseline else None
    return Tried(
        trial=record.number,
        changes=outcome.changes(record),
        ending=record.ending,
        numbers=_numbers(outcome, record),
        gain=_rounded(gains[0]) if gains else None,
        why=_why(outcome, record),
    )


def _numbers(outcome: Outcome, record: TrialRecord) -> Mapping[str, float]:
    objective = outcome.config.objective
    found = record.measurement.numbers if record.measurement else {}
    names = dict.fromkeys((*objective.goals, *objective.limits))
    return {name: _rounded(value) for name in names if (value := found.get(name)) is not None}


def _why(outcome: Outcome, record: TrialRecord) -> str:
    if record.failure:
        return record.failure.message
    proof = next((one for one in outcome.proofs if record.digest in (one.terms.candidate, one.terms.winner)), None)
    if proof and proof is not outcome.proof:
        why = f" ({' and '.join(proof.decision.refused)})" if proof.decision.refused else ""
        return f"{verdict.title(proof.decision)}{why}, over {verdict.launches(proof.decision)} of each"
    missed = words.misses(record.verdict.violations if record.verdict else {})
    return ", ".join(missed) or "not the best"
