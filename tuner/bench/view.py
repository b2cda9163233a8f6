"""A measurement of a running server as a person follows it: a live line in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tuner import words
from tuner.engines.base import Phase
from tuner.load.progress import Progress
from tuner.load.stage import StopRule


class ProgressListener(Protocol):
    """Who is told how far a measurement has come."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def phase(self, phase: Phase) -> None:
        """A phase begins."""

    def progress(self, progress: Progress) -> None:
        """A stage has come so far; about twice a second."""


@contextmanager
def view(console: Console, *, as_json: bool) -> Iterator[ProgressListener]:
    """The follower that fits where the output goes.

    Args:
        console: Where it goes; standard error, since standard output is for the result.
        as_json: Whether a program reads it, which is told nothing.
    """
    if as_json:
        yield Silent()
    elif console.is_terminal:
        with LiveLine(console) as live:
            yield live
    else:
        yield PlainProgress(console)


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Not said."""

    def phase(self, phase: Phase) -> None:
        """Not said."""

    def progress(self, progress: Progress) -> None:
        """Not said."""


@dataclass
class PlainProgress:
    """A line for each phase, and one for each stage that is measured."""

    console: Console
    current: Phase | None = None
    stage: str = ""

    def note(self, text: str) -> None:
        """Print it."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, phase: Phase) -> None:
        """Print it."""
        self.current, self.stage = phase, ""
        self.note(f"{phase} …")

    def progress(self, progress: Progress) -> None:
        """Print a stage's name when it begins, and how long it may take."""
        if self.current is Phase.MEASURING and progress.stage.name != self.stage:
            self.stage = progress.stage.name
            self.note(f"  {self.stage}: {_asked(progress)}")


@dataclass
class LiveLine:
    """Phase, stage, requests and time in one line, redrawn four times a second."""

    console: Console
    title: str = ""
    current: Phase | None = None
    latest: Progress | None = None
    since_s: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "LiveLine":
        self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Shown above the line from now on."""
        self.title, self.since_s = text, time.monotonic()

    def phase(self, phase: Phase) -> None:
        """Take note."""
        self.current, self.latest = phase, None

    def progress(self, progress: Progress) -> None:
        """Take note."""
        self.latest = progress

    def _draw(self) -> RenderableType:
        stage = f", {spoken(self.latest)}" if self.latest else ""
        took = words.rough(time.monotonic() - self.since_s)
        now = Text(f"{self.current or 'starting'}{stage}; {took} in all", style="bold")
        return Group(Text(self.title), now) if self.title else now


def spoken(progress: Progress) -> str:
    """A stage under way: ``concurrent: 37 requests answered of at least 20, 12 s of 10 s to 60 s``."""
    name, took = progress.stage.name, words.rough(progress.elapsed_s)
    if progress.stage.rule is None:
        return f"{name}: {progress.answered} of {len(progress.stage.requests)} requests answered, {took}"
    rule = progress.stage.rule
    answered = f"{progress.answered} requests answered of at least {rule.least_requests}"
    return f"{name}: {answered}, {took} of {_between(rule)}"


def _asked(progress: Progress) -> str:
    """What a stage is to bring, and how long it may take for that, its ramps not included."""
    rule = progress.stage.rule
    if rule is None:
        count = len(progress.stage.requests)
        return "1 request" if count == 1 else f"{count} requests"
    return f"at least {rule.least_requests} requests, {_between(rule)}"


def _between(rule: StopRule) -> str:
    """How long a stage measures; a percentile that is still short of its sample may take longer."""
    return f"{words.rough(rule.least_s)} to {words.rough(rule.most_s)}"
