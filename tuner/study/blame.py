"""Who is to blame for a launch that failed: decided here and nowhere else, from everything that is known afterwards.

The log's diagnosis says what the server died of, and what that usually means. But others may have held the memory, a
server that dies without a reason says nothing at first, and a winner must not owe its proof to deaths left out of it.
"""

from dataclasses import dataclass
from enum import Enum, auto

from tuner.errors import GpuBusy, MeasurementError, Unexplained
from tuner.records.record import Failure, Role, State, TrialRecord


class Blame(Enum):
    """Whose fault it is."""

    CONFIGURATION = auto()
    """It cannot run, or counts as if it could not."""
    OTHERS = auto()
    """They held the memory."""
    MACHINE = auto()
    """As far as is known: it says nothing of the configuration."""
    OPEN = auto()
    """The configuration's, unless the baseline dies as well: only a launch of that can tell."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a failed launch in addition to its record.

    Attributes:
        others: What the server really died of, if others held the memory.
        before: The attempt before this one, at the same configuration.
        last: Whether it will not be tried again.
        baseline_runs: Whether the baseline could be measured after it; ``None`` where that was not tried.
    """

    others: GpuBusy | None = None
    before: TrialRecord | None = None
    last: bool = False
    baseline_runs: bool | None = None


def blame(record: TrialRecord, known: Circumstances) -> Blame | None:
    """Who is to blame; ``None`` for a launch that did not fail."""
    if record.failure is None:
        return None
    if known.others or record.failure.error == GpuBusy.__name__:
        return Blame.OTHERS
    if record.state is not State.FAILED or _counts_in_a_proof(record, record.failure, known):
        return Blame.CONFIGURATION
    if record.role in (Role.BASELINE, Role.CONFIRM_BASELINE) or not _died_alike(record.failure, known.before):
        return Blame.MACHINE
    if known.baseline_runs is None:
        return Blame.OPEN
    return Blame.CONFIGURATION if known.baseline_runs else Blame.MACHINE


def settled(record: TrialRecord, known: Circumstances) -> TrialRecord:
    """The record as it stands once that is decided."""
    decided, failure = blame(record, known), record.failure
    if decided is Blame.OTHERS and known.others:
        return record.model_copy(update={"state": State.FAILED, "failure": Failure.of(known.others)})
    if decided is not Blame.CONFIGURATION or failure is None:
        return record
    if known.baseline_runs:
        message = f"unexplained: died alike in two attempts, while the baseline runs ({failure.message})"
        failure = failure.model_copy(update={"message": message})
    return record.model_copy(update={"state": State.PRUNED, "failure": failure})


def _counts_in_a_proof(record: TrialRecord, failure: Failure, known: Circumstances) -> bool:
    """Whether a relaunch of a proof counts against its configuration, though this machine may be at fault.

    One that dies without a reason counts at once, one that no attempt could measure in the end.
    """
    unexplained = failure.error == Unexplained.__name__
    unmeasured = known.last and failure.error == MeasurementError.__name__
    return record.proof is not None and (unexplained or unmeasured)


def _died_alike(failure: Failure, before: TrialRecord | None) -> bool:
    """Whether two attempts died of the same unknown cause."""
    if before is None or before.failure is None or failure.error != Unexplained.__name__:
        return False
    return (failure.error, failure.cause) == (before.failure.error, before.failure.cause)
