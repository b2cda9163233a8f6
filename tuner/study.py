"""The loop: ask, run, tell; budget, retry, resume.

The persisted Optuna study is the honest record for people and their dashboards: measured trials with their values and
constraints, pruned ones with their cause and no value, and FAIL for what was this machine's fault. What the search
learns from is ``search``'s own view of the records.
"""

import json
import random
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity
from pydantic import JsonValue

from tuner import artifacts, events, notes, resume, sitting
from tuner import config as configuration
from tuner.clean import left_overs
from tuner.compare import order
from tuner.config import Config
from tuner.engines.base import Phase
from tuner.engines.causes import CONSEQUENCES, Action, Cause
from tuner.errors import InfrastructureError, Unexplained
from tuner.idle import Idle, idle_parameters, ran
from tuner.outcome import Outcome
from tuner.pace import Pace, left_s
from tuner.search import Observation, make_search
from tuner.space import Candidate, Choice, SearchSpace
from tuner.storage import Role, State, StudyFolder, TrialFolder, TrialRecord, optuna_storage
from tuner.trial import Assignment, Workbench, run_trial
from tuner.workbench import workbench

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_RETRY_WAIT = tenacity.wait_exponential(multiplier=2, max=60)
"""Between two attempts: a daemon restarts, a GPU's memory is given back."""


class StudyStopped(InfrastructureError):
    """This machine would not let a trial end with a verdict; nothing that was measured is lost."""


def run_study(config: Config, listener: events.Listener, command: Sequence[str] = ()) -> Outcome:
    """Run a study to the end of its budget, or resume it.

    It stops the services that ``site.stop`` names, and starts them again: ask the user first.

    Args:
        config: The study.
        listener: Told of all that happens.
        command: What was typed, to be kept with the study.

    Raises:
        ConfigError: The study of this name was begun with another configuration.
        StudyStopped: A trial could not be brought to a verdict, or the baseline cannot run.
        InfrastructureError: Another process runs this study.
    """
    folder = StudyFolder(config.study.path)
    with folder.locked():
        for change in _begin(folder, config):
            listener(events.Noted(str(change)))
        for left in left_overs():
            listener(events.Noted(f"an interrupted run had left {left}"))
            left.remove()
        run = _Run(config, folder, listener)
        if run.complete:
            listener(events.Noted(f"study {config.study.name} is complete: nothing is left to be run"))
            return run.outcome
        sitting.append(folder.sittings, sitting.Sitting.now(command))
        with workbench(config, listener) as bench:
            return run.run(bench)


def _begin(folder: StudyFolder, config: Config) -> tuple[resume.Change, ...]:
    """The study's configuration is on disk before anything is launched."""
    changed = resume.changes(configuration.read(folder.config), config) if folder.config.exists() else ()
    if changed or not folder.config.exists():
        folder.write(folder.config, config.to_yaml())
    return changed


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What to run next, why, and how long the search thought about it."""

    role: Role
    candidate: Candidate
    ask_s: float = 0.0


class _Run:
    """One sitting of a study."""

    def __init__(self, config: Config, folder: StudyFolder, listener: events.Listener) -> None:
        self._config = config
        self._folder = folder
        self._listener = listener
        self._ledger = Ledger(config, folder)
        directions = list(config.objective.goals.values())
        self._search = make_search(config.search, config.space, directions, config.model.settings, config.study.seed)
        self._deployed = config.space.deployed(config.model.settings)
        self._told: set[str] = set()
        self._ledger.reconcile(self._folder.records())

    @property
    def outcome(self) -> Outcome:
        """What is found so far."""
        relaunches = tuple(self._folder.confirmations())
        return Outcome(self._folder, self._config, tuple(self._folder.records()), relaunches)

    @property
    def complete(self) -> bool:
        """Whether an earlier sitting has run all that there is to run."""
        return self.outcome.over and self.outcome.confirmed

    def run(self, bench: Workbench) -> Outcome:
        """Search until the budget is used up, then launch baseline and best again."""
        self._bench = bench
        outcome = self.outcome
        done, relaunches = len(outcome.searched), 2 * self._config.study.confirm
        name, trials = self._config.study.name, self._config.budget.trials
        self._listener(events.StudyStarted(name, trials, done, relaunches, outcome.records, outcome.best))
        while not self.outcome.over and (proposal := self._next()) is not None:
            self._verdict(proposal)
        self._confirm()
        return self.outcome

    def _next(self) -> "_Proposal | None":
        """The baseline first, then what is known to work, then what the search proposes."""
        tried = {record.digest for record in self.outcome.searched}
        if self._deployed.digest not in tried:
            return _Proposal(Role.BASELINE, self._deployed)
        for values in self._config.model.known_good:
            candidate = self._config.space.candidate({**self._deployed.params, **values})
            if candidate.digest not in tried:
                return _Proposal(Role.KNOWN_GOOD, candidate)
        return self._asked()

    def _asked(self) -> "_Proposal | None":
        asked_ns = time.perf_counter_ns()
        searched = self.outcome.searched
        settled = {idle.name: self._deployed.params.get(idle.name) for idle in self._idle(searched)}
        candidate = self._search.propose(observations(searched, self._config.space), settled)
        if candidate is None:
            self._listener(events.Noted("the space holds no other configuration: the search ends here"))
            return None
        return _Proposal(Role.SEARCH, candidate, (time.perf_counter_ns() - asked_ns) / 1e9)

    def _idle(self, searched: list[TrialRecord]) -> tuple[Idle, ...]:
        """Parameters that do nothing here; each is told of once."""
        idle = idle_parameters(searched, self._config.space)
        for each in idle:
            if each.name not in self._told:
                self._told.add(each.name)
                self._listener(events.Noted(f"{each.sentence}: it stays as deployed from here on"))
        return idle

    def _verdict(self, proposal: "_Proposal") -> TrialRecord:
        """Run a candidate until it has a verdict.

        Raises:
            StudyStopped: It has none after all attempts, or it is the baseline and cannot run.
        """
        history: list[TrialRecord] = []

        def attempt() -> TrialRecord:
            history.append(self._attempt(proposal, history))
            return history[-1]

        record = _retrying(self._config.study.retries, self._listener)(attempt)
        if record.state is State.FAILED:
            raise _stopped(record, self._config.study.name)
        if proposal.role is Role.BASELINE and record.failure and self._needs_baseline:
            raise StudyStopped(
                f"the deployed configuration itself does not run: {record.failure.message}",
                cause=record.failure.cause,
                line=record.failure.line,
                fix=record.failure.advice or "mend model.args, or give the objective absolute limits only",
            )
        return record

    @property
    def _needs_baseline(self) -> bool:
        return any(limit.of == "baseline" for limit in self._config.objective.limits.values())

    def _attempt(self, proposal: "_Proposal", history: list[TrialRecord]) -> TrialRecord:
        number = self._ledger.begin(proposal.candidate)
        record = self._launch(proposal, number, self._folder.trial(number), len(history) + 1)
        alike = bool(history) and proposal.role is not Role.BASELINE and _died_alike(record, history[-1])
        if alike and self._baseline_launches():
            record = _blamed(record)
            self._folder.trial(number).save(record)
        self._ledger.end(record)
        self._ended(record)
        return record

    def _baseline_launches(self) -> bool:
        """Whether it is the candidate: the baseline is measured once more, and its record kept."""
        number = self._ledger.begin(self._deployed)
        record = self._launch(_Proposal(Role.CONFIRM_BASELINE, self._deployed), number, self._folder.trial(number))
        self._ledger.end(record)
        self._ended(record)
        return record.measurement is not None

    def _launch(self, proposal: "_Proposal", number: int, folder: TrialFolder, attempt: int = 1) -> TrialRecord:
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
        )
        changed = proposal.candidate.changed(self._deployed)
        pace = Pace.of((*outcome.records, *outcome.relaunches))
        self._listener(events.TrialStarted(number, proposal.role, changed, attempt, pace, _left_after_s(outcome, pace)))

        def entered(phase: Phase) -> None:
            self._listener(events.PhaseEntered(phase, pace.phases.get(phase)))

        return run_trial(assignment, self._bench, folder, entered)

    def _ended(self, record: TrialRecord, *, relaunch: bool = False) -> None:
        outcome = self.outcome
        self._ledger.annotate(outcome, () if relaunch else (record,))
        self._listener(events.TrialEnded(record, outcome.best, left_s(outcome)))

    def _confirm(self) -> None:
        """Launch baseline and best again, in turns; what an earlier sitting has done of it counts."""
        outcome = self.outcome
        if not outcome.improved or outcome.best is None or outcome.confirmed:
            return
        finalists = {Role.CONFIRM_BASELINE: self._deployed, Role.CONFIRM_BEST: Candidate(outcome.best.params)}
        made = [record.role for record in outcome.relaunches if record.digest in {c.digest for c in finalists.values()}]
        for role in order(self._config.study.confirm):
            if role in made:
                made.remove(role)
                continue
            number = len(self._folder.confirmations())
            record = self._launch(_Proposal(role, finalists[role]), number, self._folder.confirmation(number))
            self._ended(record, relaunch=True)


def _left_after_s(outcome: Outcome, pace: Pace) -> float | None:
    """What a study takes beyond the launch that is beginning."""
    whole_s, launch_s = left_s(outcome), pace.launch_s
    return None if whole_s is None or launch_s is None else max(0.0, whole_s - launch_s)


def observations(records: list[TrialRecord], space: SearchSpace) -> list[Observation]:
    """What the search learns from: every trial with a verdict, measured or not, by what really ran in it."""
    return [
        Observation(
            ran(record, space),
            record.verdict.values if record.verdict else None,
            max(record.verdict.violations.values(), default=0.0) if record.verdict else 1.0,
            asked=record.digest,
        )
        for record in records
    ]


def _retrying(retries: int, listener: events.Listener) -> tenacity.Retrying:
    """Try again what this machine may be to blame for, and what a retry can help."""

    def announce(state: tenacity.RetryCallState) -> None:
        record: TrialRecord = state.outcome.result()  # type: ignore[union-attr]  # before_sleep has an outcome
        reason = record.failure.message if record.failure else ""
        listener(events.Noted(f"trial {record.number} says nothing of its configuration ({reason}): trying again"))

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


def _died_alike(record: TrialRecord, earlier: TrialRecord) -> bool:
    """Whether two attempts died of the same unknown cause, at the same line."""
    if record.failure is None or earlier.failure is None or record.failure.error != Unexplained.__name__:
        return False
    return (record.failure.error, record.failure.cause) == (earlier.failure.error, earlier.failure.cause)


def _blamed(record: TrialRecord) -> TrialRecord:
    """The record of a configuration that dies every time while the baseline does not: infeasible, unexplained."""
    assert record.failure is not None
    message = f"unexplained: died alike in two attempts, while the baseline runs ({record.failure.message})"
    failure = record.failure.model_copy(update={"message": message})
    return record.model_copy(update={"state": State.PRUNED, "failure": failure})


def _stopped(record: TrialRecord, study: str) -> StudyStopped:
    """What a person can do about a trial that this machine would not let end."""
    assert record.failure is not None
    advice = record.failure.advice or "look at its server.log and mend what it names"
    return StudyStopped(
        f"trial {record.number} has no verdict after {record.attempt} attempts: {record.failure.message}",
        cause=record.failure.cause,
        line=record.failure.line,
        fix=f"{advice}; then `tuner study start` goes on with {study} where it stands",
    )


class Ledger:
    """The persisted Optuna study: what a person sees in the dashboard."""

    def __init__(self, config: Config, folder: StudyFolder) -> None:
        import optuna
        from optuna_dashboard import save_note  # a second or two, and better here than in the middle of the first trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._save_note = save_note
        self._space = config.space
        self._deployed = config.space.deployed(config.model.settings)
        self._study = optuna.create_study(
            storage=optuna_storage(folder, config.storage.url),
            study_name=config.study.name,
            directions=list(config.objective.goals.values()),
            sampler=optuna.samplers.RandomSampler(seed=config.study.seed),
            load_if_exists=True,
        )
        self.storage = self._study._storage
        self.study_id = self._study._study_id
        self._folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(config.objective.goals))
        self._open: dict[int, optuna.Trial] = {}

    def reconcile(self, records: list[TrialRecord]) -> None:
        """Close what an earlier sitting left open: a trial with a record is told, one without has failed."""
        from optuna.trial import Trial, TrialState

        by_number = {record.number: record for record in records}
        for frozen in self._study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
            if frozen.state is TrialState.WAITING:
                self._study.ask()
            self._open[frozen.number] = Trial(self._study, frozen._trial_id)
            if frozen.number in by_number:
                self.end(by_number[frozen.number])
            else:
                self._close(frozen.number, TrialState.FAIL, cause="interrupted")

    def begin(self, candidate: Candidate) -> int:
        """Open a trial with the candidate's parameters; returns its number."""
        import optuna

        acting = {name: value for name, value in candidate.params.items() if self._space.params[name].accepts(value)}
        shown = {name: self._shown(name, value) for name, value in acting.items()}
        distributions = {name: self._distribution(name) for name in shown}
        with warnings.catch_warnings():
            # the deployment may run a value outside of the range that is searched
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.enqueue_trial(shown)
            trial = self._study.ask(distributions)
        self._open[trial.number] = trial
        return trial.number

    def end(self, record: TrialRecord) -> None:
        """Tell what became of a trial."""
        from optuna.trial import TrialState

        state = TrialState[record.state.name.replace("FAILED", "FAIL")]
        facts: dict[str, JsonValue] = {"role": record.role, "digest": record.digest, "seconds": record.seconds}
        if record.failure:
            facts |= {"cause": record.failure.cause, "reason": record.failure.message, "line": record.failure.line}
        trial = self._open[record.number]
        for path in artifacts.of_a_trial(self._folder, record):
            self.storage.set_trial_system_attr(trial._trial_id, *artifacts.attribute(path))
        if record.verdict:
            facts["verdict"] = record.verdict.reason
            for name, violation in record.verdict.violations.items():
                trial.set_constraint(name, violation)
            # the dashboard reads Optuna 4's name for it
            violations = list(record.verdict.violations.values())
            self.storage.set_trial_system_attr(trial._trial_id, "constraints", violations)
        self._close(record.number, state, record.verdict.values if record.verdict else None, **facts)

    def annotate(self, outcome: Outcome, fresh: Sequence[TrialRecord]) -> None:
        """Write what people read beside the numbers: the study's note and those of trials that are over.

        Args:
            outcome: The study as it stands.
            fresh: The trials whose notes are to be written.
        """
        from optuna.trial import Trial

        self._save_note(self._study, notes.study_note(outcome))
        for record in fresh:
            trial = Trial(self._study, self._id_of(record))
            self._save_note(trial, notes.trial_note(outcome, record))
        for name in artifacts.OF_A_STUDY:
            if (outcome.folder.path / name).exists():
                self.storage.set_study_system_attr(self.study_id, *artifacts.attribute(name))

    def unannotated(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials that have no note, because a sitting was killed before it could write one."""
        noted = self.storage.get_study_system_attrs(self.study_id)
        return [record for record in records if f"dashboard:{self._id_of(record)}:note_ver" not in noted]

    def _id_of(self, record: TrialRecord) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, record.number)

    def _close(
        self,
        number: int,
        state: "optuna.trial.TrialState",
        values: tuple[float, ...] | None = None,
        **facts: JsonValue,
    ) -> None:
        trial = self._open.pop(number)
        for name, value in facts.items():
            if value is not None:
                trial.set_user_attr(name, value)
        self._study.tell(trial, list(values) if values else None, state)

    def _distribution(self, name: str) -> "BaseDistribution":
        """How a person wants to see the parameter: its own values, on its own scale."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        parameter = self._space.params[name]
        if isinstance(parameter, Choice):
            return CategoricalDistribution([_label(choice) for choice in parameter.choices])
        ratio = parameter.scale != "linear"
        if parameter.integral:
            return IntDistribution(int(parameter.low), int(parameter.high), log=ratio)
        return FloatDistribution(float(parameter.low), float(parameter.high), log=ratio)

    def _shown(self, name: str, value: JsonValue) -> bool | int | float | str | None:
        return _label(value) if isinstance(self._space.params[name], Choice) else value  # type: ignore[return-value]


def _label(value: JsonValue) -> bool | int | float | str | None:
    """A choice as Optuna can keep it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
