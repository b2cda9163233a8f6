"""The record of a trial: what was asked, what ran, what was measured, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, JsonValue

from tuner.engines.base import Phase, StartupFacts
from tuner.engines.ceilings import Ceilings
from tuner.engines.effective import EffectiveSetting
from tuner.engines.forecast import Forecast
from tuner.errors import TrialError
from tuner.host.state import StageHost
from tuner.load.metrics import Measurement
from tuner.load.plan import Skipped
from tuner.load.records import DisturbedStage
from tuner.load.warmup import WarmUp
from tuner.objective import Verdict
from tuner.proof.soak import Soaked
from tuner.quality.asking import Answers
from tuner.schema import Schema, Stored
from tuner.search.base import Expectation


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """How long a phase took, in seconds of wall time."""

    phase: Phase
    seconds: float


class Role(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"
    KNOWN_GOOD = "known good"
    SEARCH = "search"
    REPAIR = "repair"
    CONTROL = "control"
    """The deployed configuration, launched again in the middle of the search: it tells the noise and the drift."""
    CONFIRM_BASELINE = "baseline again"
    CONFIRM_BEST = "best again"
    SOAK = "soak"
    """A winner under load after load, before it is exported."""


SEARCHED = (Role.BASELINE, Role.KNOWN_GOOD, Role.SEARCH, Role.REPAIR, Role.CONTROL)
"""Roles of the trials of the search; all of them count against the budget."""


class State(StrEnum):
    """How a trial ended, in the words of Optuna."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


class Ending(StrEnum):
    """What became of a trial."""

    MEASURED = "measured"
    """It meets every limit."""
    LIMIT_MISSED = "limit missed"
    """It was measured as well."""
    CANNOT_RUN = "cannot run"
    RULED_OUT = "ruled out"
    """Known beforehand not to run, so that nothing was launched."""
    FAILED = "failed"
    """For no fault of its configuration, as far as is known."""


class ProofTerms(Schema):
    """What was agreed on before the first relaunch of a proof, and holds until its end."""

    candidate: str
    """Digest of the candidate that is to be proven."""
    alpha: float
    """The error rate that it may spend."""
    most: int
    """Launches of each configuration at the most."""
    winner: str = ""
    """Digest of the trial's configuration whose changes the candidate has in part; empty if it has all of its own."""
    kept: tuple[str, ...] = ()
    """Which of them: the others went back to the deployed values."""


class Failure(Schema):
    """Why a trial has no measurement."""

    error: str
    """Class of the error, ``OutOfMemory``."""
    cause: str
    """A word of ``tuner.engines.causes.Cause``, or ``rule``."""
    message: str
    line: str | None = None
    """The log line that decided it."""
    numbers: dict[str, float] = Field(default_factory=dict)
    advice: str = ""

    @classmethod
    def of(cls, error: TrialError) -> "Failure":
        """What is kept of an error."""
        return cls(
            error=type(error).__name__,
            cause=error.cause,
            message=error.message,
            line=error.line,
            numbers=dict(error.numbers),
            advice=error.fix,
        )


class Screened(Schema):
    """A setting that was measured in the running server of a trial: no launch, and never of its standing."""

    digest: str
    """Names the candidate that it stands for."""
    params: dict[str, JsonValue]
    """That candidate's values by parameter."""
    setting: dict[str, JsonValue]
    """What was changed in the running server, by flag."""
    seconds: float
    """Wall time, the change and the load that does not count included."""
    measurement: Measurement
    verdict: Verdict
    disturbed: tuple[DisturbedStage, ...] = ()
    """Its stages during which the server was busy with itself, or others used the machine."""
    doubt: str = ""
    """Why it is not believed before it has been launched; empty where it is."""


def _second(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Version 1 had another word for what is disturbed; its stages keep the names that their requests have."""
    kept = {name: value for name, value in raw.items() if name != "spoiled"}
    return {**kept, "schema_version": 2, "disturbed": raw.get("spoiled", ())}


class TrialRecord(Stored):
    """One trial: what was asked, what ran, what was seen, what it is worth."""

    upgrades = (_second,)

    schema_version: Literal[2] = 2
    tuner_version: str
    study: str
    number: int
    attempt: int = 1
    role: Role
    seed: int
    """Seeds the prompts of this measurement."""
    ask_s: float = 0.0
    """What the search took to propose it, in seconds."""
    digest: str
    """Names the candidate: equal for equal parameters."""
    params: dict[str, JsonValue]
    """Values by parameter; what is absent was left to the engine."""
    argv: tuple[str, ...]
    """The command line; ``{host}`` and ``{port}`` stand for what the launcher chose."""
    env: dict[str, str]
    """Environment variables that the configuration sets."""
    started_at: str
    """Wall clock, ISO 8601 in UTC; a label, never used to measure."""
    state: State
    launched: bool = True
    """Whether a server was started for it; not if it was ruled out beforehand."""
    forecast: Forecast | None = None
    """What was predicted of its memory before the launch."""
    ceilings: Ceilings | None = None
    """What its configuration allows at most."""
    phases: tuple[PhaseSpan, ...] = ()
    facts: StartupFacts | None = None
    """What the server's start-up lines say of it."""
    effective: tuple[EffectiveSetting, ...] = ()
    """What became of each setting, from the running server's own words."""
    warm_up: WarmUp | None = None
    skipped: tuple[Skipped, ...] = ()
    """Parts of the workload that did not fit, and why."""
    disturbed: tuple[DisturbedStage, ...] = ()
    """Stages during which the server was busy with itself, or others used the machine. They are sent again; the third
    turn counts in any case."""
    host: tuple[StageHost, ...] = ()
    """How the machine was during each turn of each stage."""
    measurement: Measurement | None = None
    verdict: Verdict | None = None
    failure: Failure | None = None
    screened: tuple[Screened, ...] = ()
    """What was measured in its running server besides."""
    unscreened: str = ""
    """Why not all that was to be measured there was."""
    answers: Answers | None = None
    """What it was asked after its load, and answered."""
    soak: Soaked | None = None
    """What came of its soak, as far as it got."""
    expected: Expectation | None = None
    """What the search expected of it, where it is the search's and has such a view."""
    proof: ProofTerms | None = None
    """Of which proof it is a relaunch."""

    @property
    def label(self) -> str:
        """Short name of the trial's folder."""
        return f"{self.number:04d}"

    @property
    def seconds(self) -> float:
        """Wall time of the whole trial."""
        return sum(span.seconds for span in self.phases)

    @property
    def launch_s(self) -> float:
        """Wall time without what can be left out, or comes once in a study: screening settings, and a soak."""
        return sum(span.seconds for span in self.phases if span.phase not in (Phase.SCREENING, Phase.SOAKING))

    @property
    def searched(self) -> bool:
        """Whether it is of the search and ended with a verdict of its own: measured, or pruned with a cause."""
        return self.role in SEARCHED and self.state is not State.FAILED

    @property
    def ending(self) -> Ending:
        """What became of it."""
        if self.verdict is not None and self.failure is None:
            return Ending.MEASURED if self.verdict.feasible else Ending.LIMIT_MISSED
        if self.state is State.FAILED:
            return Ending.FAILED
        return Ending.CANNOT_RUN if self.launched else Ending.RULED_OUT

    @property
    def feasible(self) -> bool:
        """Whether it was measured and meets every limit."""
        return self.ending is Ending.MEASURED
