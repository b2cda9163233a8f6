"""A running study as a person, or a program, follows it: a live view, plain lines, or one JSON event a line."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner import events
from tuner.engines.base import Phase
from tuner.objective import Objective
from tuner.outcome import SEARCHED
from tuner.storage import Role, State, TrialRecord

_RECENT = 8
_PREPARING_EVERY_S = 10.0
"""How often plain lines say how far a download has come."""


@contextmanager
def view(objective: Objective, console: Console, *, as_json: bool) -> Iterator[events.Listener]:
    """The listener that fits where the output goes."""
    if as_json:
        yield json_lines
    elif console.is_terminal:
        with _LiveView(objective, console) as live:
            yield live.hear
    else:
        yield PlainLines(objective, console).hear


def json_lines(event: events.Event) -> None:
    """One JSON object a line on standard output; ``event`` names its kind."""
    if isinstance(event, events.TrialEnded):
        record = event.record
        body = {
            "number": record.number,
            "role": record.role,
            "state": record.state,
            "values": record.verdict.values if record.verdict else None,
            "feasible": record.feasible,
            "cause": record.failure.cause if record.failure else None,
            "seconds": round(record.seconds, 3),
            "best": event.best.number if event.best else None,
            "left_s": event.left_s,
        }
    else:
        body = asdict(event)
    sys.stdout.write(json.dumps({"event": type(event).__name__, **body}) + "\n")
    sys.stdout.flush()


@dataclass
class PlainLines:
    """A line when a trial starts and a line when it ends."""

    objective: Objective
    console: Console
    prepared_s: float = -_PREPARING_EVERY_S

    def hear(self, event: events.Event) -> None:
        """Print what a person without a terminal needs."""
        match event:
            case events.StudyStarted():
                self._say(started(event))
            case events.TrialStarted():
                self._say(f"trial {event.number} ({event.role}): {event.changed or 'as deployed'}")
            case events.TrialEnded(record=record, left_s=left):
                self._say(f"trial {record.number} {spoken(record, self.objective)}{_left(left)}")
            case events.Noted(text=text):
                self._say(text)
            case events.Preparing(text=text) if time.monotonic() - self.prepared_s >= _PREPARING_EVERY_S:
                self.prepared_s = time.monotonic()
                self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@dataclass
class _LiveView:
    """Trial, phase, best so far, recent trials, time left; redrawn four times a second."""

    objective: Objective
    console: Console
    recent: list[tuple[str, TrialRecord]] = field(default_factory=list)
    started: events.StudyStarted | None = None
    trial: events.TrialStarted | None = None
    phase: Phase | None = None
    phase_since_s: float = 0.0
    best: TrialRecord | None = None
    baseline: TrialRecord | None = None
    left_s: float | None = None
    left_at_s: float = 0.0
    finished: int = 0
    preparing: str = ""

    def __enter__(self) -> "_LiveView":
        self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def hear(self, event: events.Event) -> None:
        """Take note; the next redraw shows it."""
        match event:
            case events.StudyStarted():
                self.started, self.finished = event, event.finished
                self._live.console.print(started(event), highlight=False)
            case events.TrialStarted():
                self.trial = event
            case events.Preparing(text=text):
                self.preparing = text
            case events.PhaseEntered(phase=phase):
                self.phase, self.phase_since_s = phase, time.monotonic()
            case events.TrialEnded():
                self._take(event)
            case events.Noted(text=text):
                self._live.console.print(text, highlight=False, markup=False)

    def _take(self, event: events.TrialEnded) -> None:
        changed = self.trial.changed if self.trial else ""
        self.recent = [*self.recent, (changed, event.record)][-_RECENT:]
        self.best = event.best
        self.left_s, self.left_at_s = event.left_s, time.monotonic()
        if event.record.role is Role.BASELINE and event.record.measurement:
            self.baseline = event.record
        self.finished += event.record.role in SEARCHED and event.record.state is not State.FAILED

    def _draw(self) -> RenderableType:
        return Group(self._recent_table(), self._bar(), self._now(), self._best_line())

    def _recent_table(self) -> Table:
        table = Table(box=None, padding=(0, 1), expand=True, show_header=bool(self.recent))
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("result", no_wrap=True)
        table.add_column("changed from the baseline", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for changed, record in self.recent:
            style = "green" if record.feasible else "yellow" if record.measurement else "red"
            table.add_row(str(record.number), Text(spoken(record, self.objective), style=style), changed)
        return table

    def _bar(self) -> RenderableType:
        if self.started is None or self.started.trials is None:
            return Text("")
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        left = None if self.left_s is None else max(0.0, self.left_s - (time.monotonic() - self.left_at_s))
        bar = ProgressBar(total=self.started.trials, completed=self.finished)
        grid.add_row(bar, f"{self.finished}/{self.started.trials} trials{_left(left)}")
        return grid

    def _now(self) -> Text:
        if self.trial is None or self.phase is None:
            return Text(self.preparing, overflow="ellipsis", no_wrap=True)
        elapsed_s = time.monotonic() - self.phase_since_s
        attempt = f", attempt {self.trial.attempt}" if self.trial.attempt > 1 else ""
        return Text(
            f"trial {self.trial.number} ({self.trial.role}{attempt}): {self.phase} {elapsed_s:.0f} s", style="bold"
        )

    def _best_line(self) -> Text:
        if self.best is None or self.best.verdict is None:
            return Text("best so far: none yet")
        values = values_text(self.best, self.objective)
        if self.baseline is None or self.baseline.verdict is None or self.best.role is Role.BASELINE:
            return Text(f"best so far: {values} (the baseline)")
        gain = self.objective.gains(self.best.verdict.values, self.baseline.verdict.values)[0]
        return Text(
            f"best so far: trial {self.best.number}, {values} ({gain:+.1%} against the baseline, not yet proven)"
        )


def started(event: events.StudyStarted) -> str:
    """The first line of a sitting."""
    budget = f"{event.trials} trials" if event.trials else "as many trials as time allows"
    resumed = f", {event.finished} of them finished earlier" if event.finished else ""
    return f"study {event.name}: {budget}{resumed}, then {event.confirmations} relaunches of baseline and best"


def spoken(record: TrialRecord, objective: Objective) -> str:
    """A trial's result in a few words."""
    if record.failure:
        verb = "failed" if record.state is State.FAILED else "pruned"
        return f"{verb}: {record.failure.cause} after {record.seconds:.0f} s"
    if record.verdict is None:
        return "no verdict"
    note = "" if record.feasible else f"  ({record.verdict.reason})"
    return values_text(record, objective) + note


def values_text(record: TrialRecord, objective: Objective) -> str:
    """The goals' values with their units."""
    values = record.verdict.values if record.verdict else ()
    return ", ".join(with_unit(name, value) for name, value in zip(objective.goals, values, strict=True))


def with_unit(name: str, value: float) -> str:
    """A metric with its unit, which its name ends in."""
    units = {"_per_s": "/s", "_ms": " ms"}
    unit = next((unit for ending, unit in units.items() if name.endswith(ending)), "")
    what = "tokens" if name == "output_tokens_per_s" else ""
    return f"{value:.1f} {what}{unit}".replace("  ", " ") if what else f"{value:.1f}{unit} {name.rsplit('_', 1)[0]}"


def _left(left_s: float | None) -> str:
    if left_s is None:
        return ""
    minutes, seconds = divmod(round(left_s), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f", {clock} left"
