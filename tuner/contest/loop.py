"""The study over engines: hands out turns from one budget, then launches the best of both in turns.

Each turn is an ordinary run of an ordinary study, and all that decides about the next one is read from the records: the
same command resumes after whatever ended it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from tuner.config import Config
from tuner.contest.entrants import Contest, Entrant
from tuner.contest.levels import proof_objective
from tuner.contest.outcome import ContestOutcome, ContestTerms, Finalists, finalists_path, terms_path
from tuner.engines.base import Phase
from tuner.errors import ConfigError
from tuner.proof.rule import ALPHA
from tuner.records.folder import StudyFolder, read_json
from tuner.records.outcome import named
from tuner.records.record import ProofTerms, Role, State, TrialRecord
from tuner.site.takeover import taken_over
from tuner.study import events
from tuner.study.assembly import workbench
from tuner.study.blame import Circumstances, settled
from tuner.study.checks import examined
from tuner.study.loop import StudyStopped, run_study
from tuner.study.pace import Pace
from tuner.study.window import RunWindow, WindowClosed
from tuner.trial.assignment import Assignment
from tuner.trial.run import run_trial

Views = Callable[[Config], AbstractContextManager[events.Listener]]
"""How the turns of a study are followed."""


def run_contest(contest: Contest, views: Views, command: Sequence[str] = ()) -> ContestOutcome:
    """Run a study over engines to the end of its budget, or resume it.

    It stops the services that ``site.stop`` names, and starts them again: ask the user first.

    Args:
        contest: What is asked.
        views: Who is told of the turns of each engine.
        command: What was typed, to be kept with the studies.

    Raises:
        ConfigError: One of the studies was begun with another configuration.
        InfrastructureError: A launch could not be brought to a verdict, or another process runs the study.
    """
    folder, gpus = StudyFolder(contest.path), contest.entrants[0].config.gpus
    run = _Turns(contest, folder, views, command, RunWindow.of(contest.budget, contest.site))
    with folder.locked(), _asked(contest, folder):
        if run.outcome.over:
            run.say(f"study {contest.name} is complete: nothing is left to be run")
            return run.outcome
        _refuse(contest)
        with taken_over(contest.site, gpus, contest.name, run.say):
            run.search()
            run.prove()
    return run.outcome


def _refuse(contest: Contest) -> None:
    """What keeps the second engine from starting is said before the first one has used any time."""
    for entrant in contest.entrants:
        refused = examined(entrant.config.model_copy(update={"site": contest.site})).refused
        if refused:
            raise refused[0]


@contextmanager
def _asked(contest: Contest, folder: StudyFolder) -> Iterator[None]:
    """What is asked is on disk; a study that is refused before its first launch leaves nothing."""
    terms, path = terms_of(contest), terms_path(folder.path)
    if path.exists() and folder.confirmations() and read_json(path, ContestTerms).profiles != terms.profiles:
        fix = f"remove it first: `tuner study rm {contest.name}`"
        raise ConfigError(f"{folder.path} compares other configurations of these studies", place="compare", fix=fix)
    folder.write(path, terms.model_dump_json(indent=1) + "\n")
    try:
        yield
    except BaseException:
        if not any(entrant.config.study.path.exists() for entrant in contest.entrants):
            terms_path(folder.path).unlink(missing_ok=True)
        raise


def terms_of(contest: Contest) -> ContestTerms:
    """What is kept of it."""
    return ContestTerms(
        engines={entrant.name: entrant.config.study.name for entrant in contest.entrants},
        trials=contest.search_trials if contest.searches else None,
        hours=contest.budget.hours,
        confirm=contest.confirm,
        searches=contest.searches,
        profiles={each.name: dict(each.candidate.params) for each in contest.entrants if each.candidate},
    )


@dataclass(frozen=True)
class _Turns:
    """One run of a study over engines."""

    contest: Contest
    folder: StudyFolder
    views: Views
    command: Sequence[str]
    window: RunWindow

    @property
    def outcome(self) -> ContestOutcome:
        """The outcome so far."""
        return ContestOutcome.of(self.contest.path)

    def say(self, text: str) -> None:
        """Tell whoever follows."""
        with self.views(self.contest.entrants[0].config) as listener:
            listener(events.Noted(text))

    def search(self) -> None:
        """Launches alternate, as long as both engines can win."""
        told: set[str] = set()
        while not self._paused and (name := (outcome := self.outcome).next_turn):
            for engine, why in outcome.given_up.items():
                if engine not in told:
                    told.add(engine)
                    self.say(why)
            self._turn(self._entrant(name), outcome)

    def _turn(self, entrant: Entrant, outcome: ContestOutcome) -> None:
        made, trials = sum(share.launched for share in outcome.shares), self.contest.search_trials
        of = "" if trials is None else f" of {trials}"
        with self.views(entrant.config) as listener:
            listener(events.Noted(f"{entrant.name}: launch {made + 1}{of}"))
            run_study(entrant.config, _without_beginnings(listener), self.command, most=1)

    def prove(self) -> None:
        """Launch the best of both engines in turns, until each level is decided."""
        if not self._paused and self.outcome.next_turn is None and self.outcome.provable:
            self._begin()
            while not self._paused and not (outcome := self.outcome).proven:
                second = outcome.order[len(outcome.counted)]
                try:
                    self._relaunch(self.contest.entrants[second], outcome)
                except WindowClosed:
                    break
        if why := self._paused:
            self.say(f"{why}: the same command resumes {self.contest.name}")

    def _begin(self) -> None:
        """From here on it is fixed what is compared."""
        outcome, path = self.outcome, finalists_path(self.folder.path)
        if outcome.finalists is None:
            bests = {name: best.digest for name in outcome.names if (best := outcome.best(name))}
            fixed = Finalists(digests=bests, most=self.contest.confirm)
            self.folder.write(path, fixed.model_dump_json(indent=1) + "\n")

    def _relaunch(self, entrant: Entrant, outcome: ContestOutcome) -> None:
        """Until it has a verdict.

        Raises:
            StudyStopped: It has none after all attempts.
        """
        config = _proving(entrant.config)
        before: TrialRecord | None = None
        for attempt in range(1, config.study.retries + 2):
            with self.views(config) as listener:
                made, most = len(outcome.counted) + 1, 2 * outcome.most
                listener(events.Noted(f"{entrant.name}: relaunch {made} of at most {most}"))
                record = self._attempt(entrant.name, config, outcome, listener, before, attempt)
            if record.state is not State.FAILED:
                return
            before = record
        assert before is not None
        assert before.failure is not None
        raise StudyStopped(
            f"{entrant.name}, {named(before.role, before.number)}, has no verdict: {before.failure.message}",
            cause=before.failure.cause,
            line=before.failure.line,
            fix=f"{before.failure.advice or 'look at its server.log'}; then the same command resumes it",
        )

    def _attempt(
        self,
        name: str,
        config: Config,
        outcome: ContestOutcome,
        listener: events.Listener,
        before: TrialRecord | None,
        attempt: int,
    ) -> TrialRecord:
        number, own = self.folder.next_number("confirm"), outcome.outcomes[name]
        assert own is not None
        folder, assignment = self.folder.confirmation(number), _assigned(name, config, outcome, number, attempt)
        pace = Pace.of((*own.records, *outcome.relaunches))
        changed = config.space.changed(assignment.candidate.params, own.deployed)
        listener(events.TrialStarted(number, assignment.role, changed, attempt, pace))

        def entered(phase: Phase) -> None:
            listener(events.PhaseEntered(phase, pace.phases.get(phase)))

        with workbench(config, listener) as (bench, _), self.window.launch(own):
            record = run_trial(assignment, replace(bench, objective=config.objective), folder, entered)
        judged = settled(record, Circumstances(before=before, last=attempt > config.study.retries))
        if judged != record:
            folder.save(judged)
        listener(events.TrialEnded(judged, None, None))
        return judged

    def _entrant(self, name: str) -> Entrant:
        return next(each for each in self.contest.entrants if each.name == name)

    @property
    def _paused(self) -> str | None:
        """Why this run begins no other launch; ``None`` if it does."""
        outcome = self.outcome
        if outcome.over:
            return None
        begun = filter(None, outcome.outcomes.values())
        return next(filter(None, map(self.window.too_short, begun)), None)


def _proving(config: Config) -> Config:
    """The study of an engine as its relaunches measure: every level's goals well enough."""
    return config.model_copy(update={"objective": proof_objective(config.workload, config.objective)})


def _assigned(name: str, config: Config, outcome: ContestOutcome, number: int, attempt: int) -> Assignment:
    """A launch of the proof: both launches of a pair get the same prompts, which neither search has seen."""
    candidate, own = outcome.candidate(name), outcome.outcomes[name]
    pair = len(outcome.counted) // 2
    return Assignment(
        study=config.study.name,
        number=number,
        role=Role.CONFIRM_BEST,
        candidate=candidate,
        settings=config.model.settings.merged(config.space.settings(candidate)),
        seed=random.Random(f"{config.study.seed}:{outcome.name}:{pair}").getrandbits(31),
        attempt=attempt,
        baseline=own.baseline if own else None,
        proof=ProofTerms(candidate=candidate.digest, alpha=ALPHA, most=outcome.most),
    )


def _without_beginnings(listener: events.Listener) -> events.Listener:
    """A run for each turn would begin the study anew in the eyes of whoever follows."""

    def hear(event: events.Event) -> None:
        if not isinstance(event, events.StudyStarted):
            listener(event)

    return hear
