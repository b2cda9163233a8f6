"""A running study as a person, or a program, follows it: a live view, plain lines, or one JSON event a line."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner import words
from tuner.config import Config
from tuner.engines.base import Phase
from tuner.engines.causes import Cause
from tuner.objective import Objective
from tuner.records.expected import check_of, foreseen
from tuner.records.outcome import named
from tuner.records.record import SEARCHED, Ending, Failure, Role, TrialRecord
from tuner.study import events

_RECENT = 8
_PREPARING_EVERY_S = 10.0
_LINE = 160
"""Characters of an unknown failure's own words."""
"""How often plain lines say how far a download has come."""


@contextmanager
def view(config: Config, console: Console, *, as_json: bool) -> Iterator[events.Listener]:
    """The listener that fits where the output goes."""
    if as_json:
        yield json_lines
    elif console.is_terminal:
        with LiveView(Standing(config), console) as live:
            yield live.hear
    else:
        yield PlainLines(Standing(config), console).hear


def json_lines(event: events.Event) -> None:
    """One JSON object a line on standard output; ``event`` names its kind."""
    sys.stdout.write(json.dumps({"event": type(event).__name__, **_body(event)}) + "\n")
    sys.stdout.flush()


def _body(event: events.Event) -> Mapping[str, JsonValue]:
    match event:
        case events.StudyStarted(name=name, trials=trials, finished=finished, confirmations=confirmations, best=best):
            counts: Mapping[str, JsonValue] = {"trials": trials, "finished": finished, "confirmations": confirmations}
            return {"name": name, **counts, "best": best.number if best else None}
        case events.TrialStarted(number=number, role=role, changed=changed, attempt=attempt, pace=pace):
            begun: Mapping[str, JsonValue] = {"number": number, "role": role, "changed": changed, "attempt": attempt}
            expected = event.expected.model_dump(mode="json") if event.expected else None
            return {**begun, "expected_s": pace.launch_s, "left_after_s": event.left_after_s, "expected": expected}
        case events.TrialEnded():
            return _ended(event)
    body: Mapping[str, JsonValue] = asdict(event)
    return body


def _ended(event: events.TrialEnded) -> Mapping[str, JsonValue]:
    record = event.record
    return {
        "number": record.number,
        "role": record.role,
        "state": record.state,
        "values": list(record.verdict.values) if record.verdict else None,
        "feasible": record.feasible,
        "cause": record.failure.cause if record.failure else None,
        "line": record.failure.line if record.failure else None,
        "seconds": round(record.seconds, 3),
        "expected": record.expected.model_dump(mode="json") if record.expected else None,
        "error": event.check.error if event.check else None,
        "binds": event.bottleneck.limit if event.bottleneck else None,
        "bandwidth_share": event.bottleneck.share if event.bottleneck else None,
        "best": event.best.number if event.best else None,
        "left_s": event.left_s,
    }


@dataclass
class Standing:
    """How a study stands, as far as its events have told.

    Attributes:
        config: The study's configuration.
        name: The study's.
        trials: Its budget in trials, if it has one.
        finished: Launches that ended with a verdict of their own, relaunches included.
        ended: Every trial that is over, this run's and earlier ones'.
        baseline: The deployed configuration's trial, once it was measured.
        best: The best feasible trial.
    """

    config: Config
    name: str = ""
    trials: int | None = None
    finished: int = 0
    ended: list[TrialRecord] = field(default_factory=list)
    baseline: TrialRecord | None = None
    best: TrialRecord | None = None

    @property
    def objective(self) -> Objective:
        """What the trials are judged by."""
        return self.config.objective

    def hear(self, event: events.Event) -> None:
        """Take note."""
        match event:
            case events.StudyStarted():
                self.name, self.trials, self.finished = event.name, event.trials, event.finished
                self.best = event.best
                for record in event.earlier:
                    self._add(record)
            case events.TrialEnded():
                self.finished += event.record.ending not in (Ending.RULED_OUT, Ending.FAILED)
                self.best = event.best
                self._add(event.record)

    def _add(self, record: TrialRecord) -> None:
        self.ended.append(record)
        if record.role is Role.BASELINE and record.measurement:
            self.baseline = record

    def gain(self, record: TrialRecord) -> float | None:
        """The share by which a trial's first goal is better than the baseline's."""
        if record.verdict is None or self.baseline is None or self.baseline.verdict is None:
            return None
        return self.objective.gains(record.verdict.values, self.baseline.verdict.values)[0]

    def gained(self, record: TrialRecord) -> str:
        """The same in words; empty for the baseline itself, and where there is nothing to say."""
        gain = None if record is self.baseline else self.gain(record)
        return "" if gain is None else words.percent(gain, sign=True)

    def changed(self, record: TrialRecord) -> str:
        """What a trial sets otherwise than the deployment."""
        space = self.config.space
        return space.changed(record.params, space.set_by(self.config.model.settings))

    def foreseen(self, event: events.TrialStarted) -> str:
        """Why the search asks for the running trial, and what it should read; empty where it says nothing."""
        return foreseen(event.expected, next(iter(self.objective.goals))) if event.expected else ""

    @property
    def best_line(self) -> str:
        """The best so far, against the baseline."""
        if self.best is None:
            return "best so far: none yet"
        said = values_text(self.best, self.objective)
        if self.best.role is Role.BASELINE:
            return f"best so far: the deployed configuration, {said}"
        proof = f" ({self.gained(self.best)} against the deployed configuration at first sight)"
        return f"best so far: trial {self.best.number}, {said}{proof if self.gained(self.best) else ''}"


@dataclass
class PlainLines:
    """A line when a trial starts and a line when it ends."""

    standing: Standing
    console: Console
    prepared_s: float = -_PREPARING_EVERY_S

    def hear(self, event: events.Event) -> None:
        """Print what a person without a terminal needs."""
        earlier_best = self.standing.best
        self.standing.hear(event)
        match event:
            case events.StudyStarted():
                self._say(started(event))
            case events.TrialStarted():
                launch = named(event.role, event.number)
                why = f"; {self.standing.foreseen(event)}" if event.expected else ""
                self._say(f"{launch} ({event.role}): {event.changed or 'as deployed'}{why}")
            case events.TrialEnded(record=record, left_s=left):
                gained = self.standing.gained(record)
                against = f" ({gained})" if gained else ""
                launch = named(record.role, record.number)
                self._say(f"{launch}: {spoken(record, self.standing.objective)}{against}{_left(left)}")
                for line in (*afterwards(event), *doubts_of(record)):
                    self._say(line)
                if event.best and (earlier_best is None or event.best.number != earlier_best.number):
                    self._say(self.standing.best_line)
            case events.Noted(text=text):
                self._say(text)
            case events.Preparing(text=text) if time.monotonic() - self.prepared_s >= _PREPARING_EVERY_S:
                self.prepared_s = time.monotonic()
                self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@dataclass
class LiveView:
    """Trial and phase, best so far, recent trials, time left; redrawn four times a second."""

    standing: Standing
    console: Console
    trial: events.TrialStarted | None = None
    phase: Phase | None = None
    phase_since_s: float = 0.0
    preparing: str = ""

    def __enter__(self) -> "LiveView":
        self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def hear(self, event: events.Event) -> None:
        """Take note; the next redraw shows it."""
        self.standing.hear(event)
        match event:
            case events.StudyStarted():
                self._live.console.print(started(event), highlight=False)
            case events.TrialStarted():
                self.trial = event
            case events.PhaseEntered(phase=phase):
                self.phase, self.phase_since_s = phase, time.monotonic()
            case events.TrialEnded(record=record):
                self.trial = self.phase = None
                for doubt in doubts_of(record):
                    self._live.console.print(doubt, highlight=False, markup=False)
            case events.Noted(text=text):
                self._live.console.print(text, highlight=False, markup=False)
            case events.Preparing(text=text):
                self.preparing = text

    def _draw(self) -> RenderableType:
        return Group(self._recent(), self._bar(), self._now(), Text(self.standing.best_line))

    def _recent(self) -> Table:
        recent = self.standing.ended[-_RECENT:]
        table = Table(box=None, padding=(0, 1), expand=True, show_header=bool(recent))
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("result", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
        table.add_column("off", justify="right", no_wrap=True)
        table.add_column("changed", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for record in recent:
            result = Text(brief(record, self.standing.objective), style=_style(record))
            number = f"{'' if record.role in SEARCHED else '↻ '}{record.number}"
            table.add_row(
                number, result, self.standing.gained(record), self._off(record), self.standing.changed(record)
            )
        return table

    def _off(self, record: TrialRecord) -> str:
        """How far it read from what was expected."""
        check = check_of(record, next(iter(self.standing.objective.goals)))
        return words.percent(check.error, sign=True) if check else ""

    def _bar(self) -> RenderableType:
        left = _left(self._left_s())
        if self.standing.trials is None:
            return Text(f"{self.standing.finished} trials{left}")
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        bar = ProgressBar(total=self.standing.trials, completed=self.standing.finished)
        grid.add_row(bar, f"{self.standing.finished} of {self.standing.trials} trials{left}")
        return grid

    def _left_s(self) -> float | None:
        """What the running trial still takes, by its phases, and all that comes after it."""
        if self.trial is None or self.phase is None or self.trial.left_after_s is None:
            return None
        running_s = self.trial.pace.left_s(self.phase, self._elapsed_s())
        return None if running_s is None else running_s + self.trial.left_after_s

    def _elapsed_s(self) -> float:
        return time.monotonic() - self.phase_since_s

    def _now(self) -> Text:
        if self.trial is None or self.phase is None:
            return Text(self.preparing, overflow="ellipsis", no_wrap=True)
        attempt = f", attempt {self.trial.attempt}" if self.trial.attempt > 1 else ""
        expected_s = self.trial.pace.phases.get(self.phase)
        of = "" if expected_s is None else f" of about {words.rough(expected_s)}"
        took = f"{self._elapsed_s():.0f} s{of}"
        launch = named(self.trial.role, self.trial.number)
        why = f"; {said}" if (said := self.standing.foreseen(self.trial)) else ""
        running = f"{launch} ({self.trial.role}{attempt}): {self.phase}, {took}"
        return Text.assemble((running, "bold"), (why, "dim"))


def started(event: events.StudyStarted) -> str:
    """The first line of a run."""
    budget = f"{event.trials} trials" if event.trials else "as many trials as time allows"
    resumed = f", {event.finished} of them finished earlier" if event.finished else ""
    proof = f", of which up to {event.confirmations} for the proof" if event.confirmations else ""
    return f"study {event.name}: {budget}{resumed}{proof}"


def afterwards(event: events.TrialEnded) -> list[str]:
    """How far a trial read from what was expected, and what held it back."""
    told = [event.check.told] if event.check else []
    return ["; ".join([*told, event.bottleneck.sentence])] if event.bottleneck else told


def doubts_of(record: TrialRecord) -> list[str]:
    """What the baseline's measurement left out or doubts: the other trials send and receive the same."""
    if record.role is not Role.BASELINE or record.measurement is None:
        return []
    skipped = [f"not measured: {each.what}: {each.reason}" for each in record.skipped if "warm_up" not in each.what]
    prompts = record.warm_up.prompts if record.warm_up else ""
    instead = [f"prompts are {prompts}"] if ", since" in prompts else []
    return [*skipped, *instead, *(f"warning: {warning}" for warning in record.measurement.warnings)]


def spoken(record: TrialRecord, objective: Objective) -> str:
    """A trial's result in a few words."""
    if record.failure and record.ending is Ending.RULED_OUT:
        return f"{record.ending}: {words.cause(record.failure.cause)}"
    if record.failure:
        return f"{record.ending}: {_why(record.failure)}, after {words.duration(record.seconds)}"
    if record.verdict is None:
        return "no verdict"
    missed = "; ".join(words.misses(record.verdict.violations))
    return values_text(record, objective) + (f", but {missed}" if missed else "")


def _why(failure: Failure) -> str:
    """The cause in plain words; where no cause is known, what happened."""
    return words.cut(failure.message, _LINE) if failure.cause == Cause.UNKNOWN else words.cause(failure.cause)


def brief(record: TrialRecord, objective: Objective) -> str:
    """A trial's result where there is little room."""
    if record.failure:
        return f"{record.ending}: {words.cause(record.failure.cause)}"
    violations = record.verdict.violations if record.verdict else {}
    missed = ", ".join(words.metric(name).short for name, violation in violations.items() if violation > 0)
    return values_text(record, objective) + (f", misses {missed}" if missed else "")


_STYLES = {Ending.MEASURED: "green", Ending.LIMIT_MISSED: "yellow", Ending.RULED_OUT: "red dim"}


def _style(record: TrialRecord) -> str:
    return _STYLES.get(record.ending, "red")


def values_text(record: TrialRecord, objective: Objective) -> str:
    """The goals' values with their units."""
    values = record.verdict.values if record.verdict else ()
    pairs = zip(objective.goals, values, strict=True) if values else ()
    return ", ".join(words.metric(name).said(value) for name, value in pairs)


def _left(left_s: float | None) -> str:
    return "" if left_s is None else f", about {words.rough(left_s)} left"
