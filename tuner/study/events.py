"""What a running study says of itself; live views, plain lines and ``--json`` are listeners."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tuner.engines.base import Phase
from tuner.records.bottleneck import Bottleneck
from tuner.records.expected import ExpectationCheck
from tuner.records.record import Role, TrialRecord
from tuner.search.base import Expectation
from tuner.study.pace import Pace


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """A run of the study begins.

    Attributes:
        name: The study.
        trials: The budget in trials, if there is one.
        finished: Trials that earlier runs have finished.
        confirmations: Relaunches that follow at the end.
        earlier: The records of earlier runs.
        best: The best feasible trial among them.
    """

    name: str
    trials: int | None
    finished: int
    confirmations: int
    earlier: tuple[TrialRecord, ...] = ()
    best: TrialRecord | None = None


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A trial begins.

    Attributes:
        number: Its number.
        role: Why it is run.
        changed: What it sets otherwise than the baseline, ready to print.
        attempt: Which try this is, from 1.
        pace: What its phases are expected to take.
        left_after_s: Expected time from its end until the study's; ``None`` when nothing can be said.
        expected: Why the search asks for it, and what it should read; ``None`` where it says nothing.
    """

    number: int
    role: Role
    changed: str
    attempt: int
    pace: Pace = field(default_factory=Pace)
    left_after_s: float | None = None
    expected: Expectation | None = None


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The running trial enters its next phase.

    Attributes:
        phase: Which.
        expected_s: What it has taken so far in this study, in the median.
    """

    phase: Phase
    expected_s: float | None = None


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial is over, and its record on disk.

    Attributes:
        record: What is kept of it.
        best: The best feasible trial so far.
        left_s: Expected time until the study's end, in seconds; ``None`` when nothing can be said.
        check: What the search expected of it, and what it read; ``None`` where either is missing.
        bottleneck: What held it back; ``None`` if it was not measured.
    """

    record: TrialRecord
    best: TrialRecord | None
    left_s: float | None
    check: ExpectationCheck | None = None
    bottleneck: Bottleneck | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a person should know, in a sentence."""

    text: str


@dataclass(frozen=True, slots=True)
class Preparing:
    """How far something has come that the trials need: an image, a model. Each replaces the last."""

    text: str


Event = StudyStarted | TrialStarted | PhaseEntered | TrialEnded | Noted | Preparing
Listener = Callable[[Event], None]
