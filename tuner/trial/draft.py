"""What a trial has found so far, on its way to a record."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tuner import __version__
from tuner.engines.base import Command, StartupFacts
from tuner.engines.effective import EffectiveSetting
from tuner.errors import InfeasibleConfig, TrialError
from tuner.host.state import StageHost
from tuner.load.metrics import Measurement
from tuner.load.plan import Skipped
from tuner.load.records import DisturbedStage, StageResult
from tuner.load.warmup import WarmUp
from tuner.objective import Verdict
from tuner.proof.soak import Soaked
from tuner.quality.asking import Answers
from tuner.records.record import Failure, PhaseSpan, Screened, State, TrialRecord
from tuner.trial.assignment import Assignment


@dataclass
class Draft:
    """The record of a trial while it is being written: whatever happens, it can be completed.

    The attributes are those of the record, and the results of its stages, which are stored on their own.
    """

    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    facts: StartupFacts | None = None
    effective: tuple[EffectiveSetting, ...] = ()
    warm_up: WarmUp | None = None
    skipped: tuple[Skipped, ...] = ()
    disturbed: tuple[DisturbedStage, ...] = ()
    host: tuple[StageHost, ...] = ()
    measurement: Measurement | None = None
    verdict: Verdict | None = None
    failure: Failure | None = None
    state: State = State.COMPLETE
    results: tuple[StageResult, ...] = ()
    screened: tuple[Screened, ...] = ()
    unscreened: str = ""
    answers: Answers | None = None
    soak: Soaked | None = None

    @property
    def kv_tokens(self) -> int | None:
        """What the server's KV cache holds, where it said so."""
        return self.facts.kv_tokens if self.facts else None

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        """A trial that fails is a trial with a failure."""
        try:
            yield
        except TrialError as error:
            self.state = State.PRUNED if isinstance(error, InfeasibleConfig) else State.FAILED
            self.failure = Failure.of(error)

    def record(self, assignment: Assignment, command: Command, phases: tuple[PhaseSpan, ...]) -> TrialRecord:
        """What is kept of it."""
        return TrialRecord(
            tuner_version=__version__,
            study=assignment.study,
            number=assignment.number,
            attempt=assignment.attempt,
            role=assignment.role,
            seed=assignment.seed,
            ask_s=assignment.ask_s,
            digest=assignment.candidate.digest,
            params=dict(assignment.candidate.params),
            argv=command.argv,
            env=dict(command.env),
            started_at=self.started_at,
            state=self.state,
            launched=assignment.refusal is None,
            forecast=assignment.forecast,
            ceilings=assignment.ceilings,
            phases=() if assignment.refusal else phases,
            facts=self.facts,
            effective=self.effective,
            warm_up=self.warm_up,
            skipped=self.skipped,
            disturbed=self.disturbed,
            host=self.host,
            measurement=self.measurement,
            verdict=self.verdict,
            failure=self.failure,
            screened=self.screened,
            unscreened=self.unscreened,
            answers=self.answers,
            soak=self.soak,
            expected=assignment.expected,
            proof=assignment.proof,
        )
