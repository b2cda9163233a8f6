"""The loop: ask, run, tell; budget, retry, resume.

``proposals`` decides what to run; this module retries each proposal until it has a verdict.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import tenacity

from tuner import composing
from tuner.config import Config
from tuner.dashboard.ledger import Ledger
from tuner.dashboard.storage import storage_errors
from tuner.engines.base import Phase
from tuner.engines.causes import CONSEQUENCES, Action, Cause
from tuner.errors import GpuBusy, InfrastructureError, RequestsRefused, Unmeasurable
from tuner.foresight.preflight import Ground, Preflight
from tuner.records import verdict
from tuner.records.answers import due
from tuner.records.bottleneck import bottleneck
from tuner.records.compare import Proof, proof_of
from tuner.records.expected import check_of
from tuner.records.folder import StudyFolder, TrialFolder
from tuner.records.outcome import Outcome, named
from tuner.records.record import Failure, ProofTerms, Role, State, TrialRecord
from tuner.site.clean import give_back_all
from tuner.study import events, provenance, resume, warm
from tuner.study.assembly import workbench
from tuner.study.blame import Blame, Circumstances, blame, settled
from tuner.study.checks import check_kernels, check_places, check_prompts
from tuner.study.minimal import launchable, without_passengers
from tuner.study.pace import Pace, left_s
from tuner.study.plan import hardly_decides
from tuner.study.proposals import Proposal, Proposer, search_of
from tuner.study.window import RunWindow, WindowClosed
from tuner.trial.assignment import Assignment, never
from tuner.trial.run import run_trial
from tuner.trial.workbench import Workbench

_RETRY_WAIT = tenacity.wait_exponential(multiplier=2, max=60)
"""Between two attempts: a daemon restarts, a GPU's memory is given back."""


_TRIED = (Role.KNOWN_GOOD, Role.SEARCH, Role.REPAIR)
"""Trials whose near misses are measured once more, in the same launch; a proof decides by launches."""


_Attempt = Callable[[Proposal, Sequence[TrialRecord]], TrialRecord]
"""Launches a proposal, given its earlier attempts."""


class StudyStopped(InfrastructureError):
    """This machine would not let a trial end with a verdict; nothing that was measured is lost."""


def run_study(
    config: Config, listener: events.Listener, command: Sequence[str] = (), most: int | None = None
) -> Outcome:
    """Run a study to the end of its budget, or resume it.

    It stops the services that ``site.stop`` names, and starts them again: ask the user first.

    Args:
        config: The study.
        listener: Told of all that happens.
        command: What was typed, to be kept with the study.
        most: Launches of the search that this run makes at the most, where several studies take turns.

    Raises:
        ConfigError: The study of this name was begun with another configuration.
        StudyStopped: A trial could not be brought to a verdict, or the baseline cannot run.
        InfrastructureError: Another process runs this study.
    """
    folder = StudyFolder(config.study.path)
    list(check_places(config))
    with folder.locked():
        config = _carried(folder, config)
        for change in _begin(folder, config):
            listener(events.Noted(change))
        give_back_all(lambda text: listener(events.Noted(text)))
        with storage_errors(folder.path):
            run = _Run(config, folder, listener, most)
        if run.complete:
            listener(events.Noted(f"study {config.study.name} is complete: nothing is left to be run"))
            return run.outcome
        if config.budget.until and (why := run.paused):  # before anything is stopped for it
            run.told_to_resume(why)
            return run.outcome
        check_prompts(config)
        list(check_kernels(config))
        sources = warm.sources_of(config)
        search_of(config, sources)  # one that cannot begin with them says so before anything is taken or stopped
        if warning := hardly_decides(config):
            listener(events.Noted(warning))
        for source in sources:
            listener(events.Noted(f"begins with {warm.told(source)}"))
        provenance.append(folder, provenance.StudyRun.now(command))
        with storage_errors(folder.path), workbench(config, listener) as (bench, ground):
            return run.run(bench, ground)


def _carried(folder: StudyFolder, config: Config) -> Config:
    """The configuration with what the study's earlier trials need of the one before."""
    return resume.carried(composing.read(folder.config), config) if folder.records() else config


def _begin(folder: StudyFolder, config: Config) -> tuple[str, ...]:
    """The study's configuration is on disk before anything is launched; returns what a person should know of it."""
    damaged = folder.set_damaged_aside()
    try:
        changed = resume.changes(composing.read(folder.config), config) if folder.records() else ()
    except resume.Incomparable:
        if any(record.measurement for record in folder.records()):
            raise
        aside = folder.set_aside()
        folder.write(folder.config, config.to_yaml())
        return (*damaged, f"nothing had been measured with the configuration before: what ran is in {aside}")
    if changed:
        resume.check_budget(config, len(Outcome.of(folder).launched))
    if not folder.records():
        folder.forget()
    if changed or not folder.config.exists():
        folder.write(folder.config, config.to_yaml())
        folder.exhausted.unlink(missing_ok=True)
    return (*damaged, *map(str, changed))


class _Run:
    """One run of a study: from a start to its end, or until it is interrupted."""

    def __init__(self, config: Config, folder: StudyFolder, listener: events.Listener, most: int | None = None) -> None:
        self._config = config
        self._folder = folder
        self._listener = listener
        self._window = RunWindow.of(config.budget, config.site)
        self._ledger = Ledger(config, folder)
        self._deployed = config.space.deployed(config.model.settings)
        self._outcome = Outcome(folder, config, (), ())
        self._ends_at = None if most is None else len(self.outcome.launched) + most
        records = self._folder.records()
        self._ledger.reconcile(records)
        self._ledger.catch_up(records)

    @property
    def outcome(self) -> Outcome:
        """The outcome so far."""
        self._outcome = self._outcome.now()
        return self._outcome

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be run."""
        return self.outcome.over and self.outcome.confirmed

    def run(self, bench: Workbench, ground: Ground | None) -> Outcome:
        """Search until the budget is used up, then launch baseline and best again."""
        self._bench = bench
        self._ground = ground
        sources = warm.sources_of(self._config)
        warm.keep(self._config, sources)
        self._proposer = Proposer(self._config, ground, lambda text: self._listener(events.Noted(text)), sources)
        outcome = self.outcome
        done, relaunches = len(outcome.launched) + len(outcome.confirmations), self._config.reserve
        name, trials = self._config.study.name, self._config.budget.trials
        self._listener(events.StudyStarted(name, trials, done, relaunches, outcome.records, outcome.best))
        try:
            self._search_and_prove()
        except WindowClosed:
            self.told_to_resume(f"it is time: the launch under way would not have ended by {self._config.budget.until}")
            return self.outcome
        if (why := self.paused) and not self.complete:
            self.told_to_resume(why)
        return self.outcome

    def _search_and_prove(self) -> None:
        while not self.outcome.over and not self._had_its_turn and not self.paused:
            if (proposal := self._proposer.next(self.outcome)) is None:
                self._folder.write(self._folder.exhausted, "")
                break
            self._verdict(proposal, self._trial)
        while not self._had_its_turn and not self.paused:
            if (terms := self._terms()) is not None:
                self._prove(terms)
            elif (proven := self.outcome.soak_terms()) is not None and not self.paused:
                self._soak(proven)
            else:
                break

    @property
    def _had_its_turn(self) -> bool:
        """Whether this run has made all of its launches."""
        return self._ends_at is not None and len(self.outcome.launched) >= self._ends_at

    @property
    def paused(self) -> str | None:
        """Why this run begins no other launch; ``None`` if it does."""
        outcome = self.outcome
        soak_s = self._config.soak_s if outcome.over and outcome.soak_terms() else 0.0
        return self._window.too_short(outcome, soak_s)

    def told_to_resume(self, why: str) -> None:
        """Say that this run is over, and the study is not."""
        self._listener(events.Noted(f"{why}: the same command resumes {self._config.study.name}"))

    def _verdict(self, proposal: Proposal, attempt: _Attempt) -> TrialRecord:
        """Try a candidate until it has a verdict.

        Raises:
            StudyStopped: It has none after all attempts, or it is the baseline and cannot run.
        """
        history: list[TrialRecord] = []

        def again() -> TrialRecord:
            history.append(attempt(proposal, history))
            return history[-1]

        record = _retrying(self._config.study.retries, self._listener)(again)
        if record.state is State.FAILED:
            raise _stopped(record, self._config.study.name)
        if proposal.role is Role.BASELINE and record.failure and self._config.objective.needs_baseline:
            raise StudyStopped(
                f"the deployed configuration itself {_cannot(record.failure)}: {record.failure.message}",
                cause=record.failure.cause,
                line=record.failure.line,
                fix=record.failure.advice or "correct model.args, or give the objective absolute limits only",
            )
        return record

    def _trial(self, proposal: Proposal, history: Sequence[TrialRecord] = ()) -> TrialRecord:
        """One attempt at a trial of the search: Optuna hears of it."""
        number = self._ledger.begin(proposal.candidate)
        folder = self._folder.trial(number)
        record = self._judged(self._launch(proposal, number, folder, len(history) + 1), folder, history)
        self._ledger.end(record)
        self._ended(record)
        return record

    def _relaunch(self, proposal: Proposal, history: Sequence[TrialRecord]) -> TrialRecord:
        """One attempt at a relaunch of a proof, from which the search learns nothing."""
        number = self._folder.next_number("confirm")
        folder = self._folder.confirmation(number)
        record = self._judged(self._launch(proposal, number, folder, len(history) + 1), folder, history)
        self._ended(record, relaunch=True)
        return record

    def _judged(self, record: TrialRecord, folder: TrialFolder, history: Sequence[TrialRecord]) -> TrialRecord:
        """The record with what is known after the launch of who is to blame; on disk as well."""
        before, last = history[-1] if history else None, len(history) >= self._config.study.retries
        known = Circumstances(self._busy(record), before, last)
        if blame(record, known) is Blame.OPEN:
            known = replace(known, baseline_runs=self._baseline_launches())
        judged = settled(record, known)
        if judged != record:
            folder.save(judged)
        return judged

    def _busy(self, record: TrialRecord) -> GpuBusy | None:
        """What a launch died of, if others had left it no memory."""
        if self._ground is None or not record.launched or record.failure is None:
            return None
        earlier = [other for other in self.outcome.records if other != record]
        return Preflight(self._ground, (*earlier, record)).busy(len(earlier))

    def _baseline_launches(self) -> bool:
        """Whether it is the candidate: the baseline is measured once more, and its record kept."""
        return self._trial(Proposal(Role.CONFIRM_BASELINE, self._deployed)).measurement is not None

    def _launch(self, proposal: Proposal, number: int, folder: TrialFolder, attempt: int = 1) -> TrialRecord:
        outcome = self.outcome
        baseline = outcome.baseline
        seed = random.Random(f"{self._config.study.seed}:{folder.path.parent.name}:{number}").getrandbits(31)
        assignment = Assignment(
            study=self._config.study.name,
            number=number,
            role=proposal.role,
            candidate=proposal.candidate,
            settings=self._config.model.settings.merged(self._config.space.settings(proposal.candidate)),
            seed=seed,
            ask_s=proposal.ask_s,
            attempt=attempt,
            baseline=baseline,
            forecast=proposal.forecast,
            ceilings=proposal.ceilings,
            refusal=proposal.refusal,
            proof=proposal.proof,
            worth_again=outcome.is_near_miss if proposal.role in _TRIED else never,
            screening=None if attempt > 1 or self._window.too_short_to_screen(outcome) else proposal.screening,
            expected=proposal.expected,
            soak_s=self._config.soak_s if proposal.role is Role.SOAK else 0.0,
            questions=due(self._config.quality, proposal.role, proposal.proof, outcome.confirmations),
        )
        if proposal.refusal:
            return run_trial(assignment, self._bench, folder, lambda phase: None)
        changed = self._config.space.changed(proposal.candidate.params, outcome.deployed)
        pace = Pace.of((*outcome.records, *outcome.relaunches))
        pace = pace.soaking(self._config.soak_s) if proposal.role is Role.SOAK else pace
        left_after_s, expected = _left_after_s(outcome, pace), proposal.expected
        self._listener(events.TrialStarted(number, proposal.role, changed, attempt, pace, left_after_s, expected))

        def entered(phase: Phase) -> None:
            self._listener(events.PhaseEntered(phase, pace.phases.get(phase)))

        with self._window.launch(outcome):
            return run_trial(assignment, self._bench, folder, entered)

    def _ended(self, record: TrialRecord, *, relaunch: bool = False) -> None:
        outcome = self.outcome
        self._ledger.annotate(outcome, () if relaunch else (record,))
        check = check_of(record, next(iter(self._config.objective.goals)))
        ended = events.TrialEnded(record, outcome.best, left_s(outcome), check, bottleneck(record, outcome))
        self._listener(ended)

    def _terms(self) -> ProofTerms | None:
        """What is to be proven next: what an earlier run has begun comes first."""
        outcome = self.outcome
        if begun := outcome.open_proof:
            return begun.terms
        if (terms := outcome.next_terms()) is None:
            return None
        admitted = launchable(self._proposer.known(outcome))
        return without_passengers(outcome, terms, admitted, lambda text: self._listener(events.Noted(text)))

    def _prove(self, terms: ProofTerms) -> None:
        """Launch a finalist and the baseline in turns until it is decided."""
        candidates = {Role.CONFIRM_BASELINE: self._deployed, Role.CONFIRM_BEST: self.outcome.finalist(terms)}
        while not self.paused and not (proof := self._proof(terms)).decision.over:
            role, outcome = proof.next_role(self._config.study.seed), self.outcome
            foreseen = self._proposer.foreseen(Proposal(role, candidates[role]), self._proposer.known(outcome))
            self._verdict(replace(foreseen, proof=terms), self._relaunch)

    def _soak(self, terms: ProofTerms) -> None:
        """A launch of the winner's own, since the last one of its proof may be the baseline's."""
        candidate, outcome = self.outcome.finalist(terms), self.outcome
        foreseen = self._proposer.foreseen(Proposal(Role.SOAK, candidate), self._proposer.known(outcome))
        self._verdict(replace(foreseen, proof=terms), self._relaunch)
        for said in verdict.soak(self.outcome):
            self._listener(events.Noted(f"soak: {said}"))

    def _proof(self, terms: ProofTerms) -> Proof:
        """As far as it has come; before its first launch it is empty."""
        of = [proof for proof in self.outcome.proofs if proof.terms == terms]
        return of[0] if of else proof_of(self._config, terms, (), {})


def _left_after_s(outcome: Outcome, pace: Pace) -> float | None:
    """What a study takes beyond the launch that is beginning."""
    whole_s, launch_s = left_s(outcome), pace.launch_s
    return None if whole_s is None or launch_s is None else max(0.0, whole_s - launch_s)


def _retrying(retries: int, listener: events.Listener) -> tenacity.Retrying:
    """Try again what this machine may be to blame for, and what a retry can help."""

    def announce(state: tenacity.RetryCallState) -> None:
        record: TrialRecord = state.outcome.result()  # type: ignore[union-attr]  # before_sleep has an outcome
        reason = record.failure.message if record.failure else ""
        which = named(record.role, record.number)
        listener(events.Noted(f"{which} failed for a reason outside its configuration ({reason}); retrying"))

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=_RETRY_WAIT,
        retry=tenacity.retry_if_result(_worth_a_retry),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        before_sleep=announce,
    )


def _worth_a_retry(record: TrialRecord) -> bool:
    if record.state is not State.FAILED or record.failure is None:
        return False
    known = record.failure.cause in list(Cause)
    return not known or CONSEQUENCES[Cause(record.failure.cause)].action is not Action.STOP


def _cannot(failure: Failure) -> str:
    said = {Unmeasurable.__name__: "cannot be measured", RequestsRefused.__name__: "refuses this workload"}
    return said.get(failure.error, "does not run")


def _stopped(record: TrialRecord, study: str) -> StudyStopped:
    """What a person can do about a trial that this machine would not let end."""
    assert record.failure is not None
    advice = record.failure.advice or "look at its server.log and correct what it names"
    return StudyStopped(
        f"{named(record.role, record.number)} has no verdict after {record.attempt} attempts: {record.failure.message}",
        cause=record.failure.cause,
        line=record.failure.line,
        fix=f"{advice}; then `tuner study start` resumes {study}",
    )
