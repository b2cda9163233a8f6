"""Reads a server's log line by line and can say at any time what it means: what it keeps does not grow with the log.

The log is cut at each new start of the server, since a container that restarts writes one log. In the last start, what
was said before the server became ready was survived and does not count; what was said after it was told to stop is not
why it stopped. Of what is left, the sign closest to the root cause decides. ``diagnosis`` judges what is kept here.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from functools import cached_property

from tuner.engines.causes import Cause, Diagnosis
from tuner.engines.log.lines import Level, LogLine, parse_line
from tuner.engines.log.literals import Index
from tuner.engines.log.shapes import Shapes, relaxed
from tuner.engines.log.signs import FRAME, Finding, Rank, Sign, Trail, best

SURVIVABLE = (Cause.V0_FALLBACK, Cause.DEGRADED)
"""Causes that do not end a server."""

NEVER = re.compile(r"(?!)")
_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Failure|Timeout)\b(?::|\(['\"]|\s*$)")
_USAGE = re.compile(": error: ")
"""Argparse's, before it ends the program."""


@dataclass(frozen=True)
class LogGrammar:
    """How to read one engine's log. What is found out about the shapes of its lines is kept with it.

    Attributes:
        signs: What speaks for a cause.
        traps: Lines that look like a sign and are none.
        version: Names the engine's version, in one of its groups.
        start: The first line of a start of the server.
        ready: Said once, when the server begins to serve.
        serving: Said by a server that serves, ``ready`` included.
        started: Said when nothing can fail any more before ``ready``.
        told_to_stop: Said when somebody ends the server on purpose.
        not_the_root: Exceptions that only report another one.
        waiting: Said again and again by a server that waits for its own workers.
        progress: Said by one whose requests move on.
        fixed_cache: Says that the size of the KV cache is given, so that no share of the GPU decides it.
    """

    signs: tuple[Sign, ...]
    traps: re.Pattern[str]
    version: re.Pattern[str]
    start: re.Pattern[str]
    ready: re.Pattern[str]
    serving: re.Pattern[str]
    started: re.Pattern[str]
    told_to_stop: re.Pattern[str]
    not_the_root: re.Pattern[str]
    waiting: re.Pattern[str] = NEVER
    progress: re.Pattern[str] = NEVER
    fixed_cache: re.Pattern[str] = NEVER

    @cached_property
    def shapes(self) -> "Shapes[ShapeKind]":
        """What the lines of each shape may be."""
        return Shapes(self._classify)

    def _classify(self, lines: Sequence[LogLine]) -> "ShapeKind":
        signs: dict[int, Sign] = {}
        marks = 0
        for line in lines:
            signs |= {id(sign): sign for sign in self._signs_at[line.level].find(line.text)}
            for mark in self._marks.find(line.text):
                marks |= mark.value
        return ShapeKind(tuple(signs.values()), marks)

    @property
    def patterns(self) -> Iterator[re.Pattern[str]]:
        """One of these is found in every line that says anything."""
        yield from (sign.relaxed for sign in self.signs)
        yield from (pattern for pattern, _ in _marks(self))

    @cached_property
    def _signs_at(self) -> "Mapping[Level, Index[Sign]]":
        """The signs that count at each level."""
        return {level: Index((sign.relaxed, sign) for sign in self.signs if sign.level <= level) for level in Level}

    @cached_property
    def _marks(self) -> "Index[Mark]":
        return Index(_marks(self))


class Mark(Flag):
    """What a line may be, in addition to a sign. Kept as numbers, since each of a million lines is asked."""

    VERSION = auto()
    START = auto()
    READY = auto()
    SERVING = auto()
    STARTED = auto()
    TOLD_TO_STOP = auto()
    WAITING = auto()
    PROGRESS = auto()
    FIXED_CACHE = auto()
    FRAME = auto()
    EXCEPTION = auto()


@dataclass(slots=True)
class StartSigns:
    """What is kept of one start of the server.

    Attributes:
        spent: Whether only another start can begin again.
        ready: Where it became ready.
        serving: Where it first served.
        started: Where nothing could fail any more.
        stopped: Where it was told to stop.
        cause: The finding closest to the root cause.
        sure: The same among those that count while the server runs.
        wrapper: The first that only says that something failed.
        broken: The first exception that no sign knows, unless a process had crashed by then.
        survived: The one closest to the root among those that end no server.
        root: The first exception that does not only report another.
        waits: How often it has said that it waits since anything moved, once it served.
        first_wait: Where it said so first.
        fixed_cache: Whether the size of its KV cache is given.
    """

    spent: bool = False
    ready: LogLine | None = None
    serving: LogLine | None = None
    started: LogLine | None = None
    stopped: LogLine | None = None
    cause: Finding | None = None
    sure: Finding | None = None
    wrapper: Finding | None = None
    broken: Finding | None = None
    survived: Finding | None = None
    root: LogLine | None = None
    waits: int = 0
    first_wait: LogLine | None = None
    fixed_cache: bool = False

    def becomes_ready(self, line: LogLine) -> None:
        """What was said before was survived."""
        self.ready = line
        self.cause = self.sure = self.wrapper = self.broken = None
        self.root = None

    def counts(self, sign: Sign) -> bool:
        """Whether a sign counts in the present line."""
        if sign.cause in SURVIVABLE:
            return True
        return self.stopped is None and (sign.serving or self.serving is None)

    @property
    def crashed(self) -> bool:
        """Whether a process has crashed by now: what others raise after that follows from it."""
        return self.cause is not None and self.cause.sign.rank is Rank.CRASH

    def take(self, finding: Finding) -> None:
        """Keep a finding that counts, if it is closer to the root cause than what is there."""
        rank = finding.sign.rank
        if rank is Rank.WRAPPER:
            self.wrapper = self.wrapper or finding
        elif finding.sign.cause in SURVIVABLE:
            self.survived = _closer(self.survived, finding)
        elif rank is Rank.BROKEN:
            self.broken = self.broken or (None if self.crashed else finding)
        else:
            self.cause = _closer(self.cause, finding)
            if rank not in (Rank.FAMILY, Rank.RAISED):
                self.sure = _closer(self.sure, finding)


def _closer(present: Finding | None, other: Finding) -> Finding:
    return other if present is None or _closeness(other) > _closeness(present) else present


def _closeness(finding: Finding) -> tuple[int, bool, bool]:
    """By rank; of one rank, words come before the source code that a traceback quotes, and code before its place."""
    text = finding.line.text
    return finding.sign.rank, not text.startswith("  "), not text.startswith('  File "')


@dataclass(frozen=True, slots=True)
class ShapeKind:
    """What the lines of a shape may be.

    Attributes:
        signs: Signs that may be in them.
        marks: The values of what else they may be.
    """

    signs: tuple[Sign, ...]
    marks: int


class Reader:
    """Reads one log.

    Args:
        reading: How.
        judge: Says what a start ended in, asked once the next begins; ``None`` where that cannot be told.
    """

    def __init__(self, reading: LogGrammar, judge: Callable[[StartSigns], Diagnosis | None]) -> None:
        self.reading = reading
        self.start = StartSigns()
        self.failed: Diagnosis | None = None
        """Of the last of the earlier starts that failed."""
        self.version: str | None = None
        self.out_of_host_memory: Finding | None = None
        """The first sign of it, whatever it counted."""
        self._judge = judge
        self._number = 0
        self._last: str | None = None
        self._trail = Trail()
        self._pass = self._trail.passed
        self._kind_of = reading.shapes.of
        self._wanted = ~0
        self.idle = False
        self.turns = 0

    @property
    def last(self) -> LogLine | None:
        """The last line."""
        return None if self._last is None else parse_line(self._last, self._number)[-1]

    def read(self, raw: str) -> None:
        """Take the next physical line, without its line end."""
        self._number += 1
        kind = self._kind_of(raw)
        if kind.signs or kind.marks & self._wanted:
            self._look(raw, kind)
        self.idle = not (kind.signs or kind.marks & self._wanted)
        self._pass(raw)
        self._last = raw

    def skip(self, lines: Sequence[str]) -> None:
        """Take lines that say nothing: no word that a sign or a mark cannot do without is in them."""
        if lines:
            self._number += len(lines)
            self._trail.skip(lines)
            self._last = lines[-1]

    def _look(self, raw: str, kind: ShapeKind) -> None:
        lines = parse_line(raw, self._number)
        for index, line in enumerate(lines):
            self._place(line)
            self._trail.enter(line)
            finding = best(line, kind.signs, self.reading.traps, self._trail.context(line, lines[:index]))
            if finding is not None:
                self._found(finding)
            self._end(line)
        before, self._wanted = self._wanted, self._still_wanted()
        self.turns += self._wanted != before

    def _place(self, line: LogLine) -> None:
        """What a line says of where the server stands."""
        reading, text = self.reading, line.text
        if self.start.spent and reading.start.search(text):
            self._begin()
        if version := reading.version.search(text):
            self.version = next(group for group in version.groups() if group)
        start = self.start
        if start.ready is None and reading.ready.search(text):
            start.becomes_ready(line)
        if start.serving is None and reading.serving.search(text):
            start.serving = line
        if start.started is None and reading.started.search(text):
            start.started = line
        start.fixed_cache = start.fixed_cache or reading.fixed_cache.search(text) is not None
        self._move(line)

    def _move(self, line: LogLine) -> None:
        """Count in which lines on end the server only waits."""
        start = self.start
        if start.waits and self.reading.progress.search(line.text):
            start.waits, start.first_wait = 0, None
        if start.serving and self.reading.waiting.search(line.text):
            start.waits, start.first_wait = start.waits + 1, start.first_wait or line

    def _begin(self) -> None:
        verdict = self._judge(self.start)
        if verdict and verdict.cause is not Cause.HEALTHY:
            self.failed = verdict
        self.start = StartSigns()

    def _found(self, finding: Finding) -> None:
        if finding.sign.cause is Cause.HOST_OOM:
            self.out_of_host_memory = self.out_of_host_memory or finding
        if self.start.counts(finding.sign):
            self.start.take(finding)

    def _end(self, line: LogLine) -> None:
        """What follows from a line for those after it."""
        start, reading = self.start, self.reading
        if start.stopped is None and reading.told_to_stop.search(line.text):
            start.stopped = line
        raised = _EXCEPTION.match(line.text) is not None
        if raised and start.root is None and start.stopped is None and self._is_root(line):
            start.root = line
        start.spent = start.spent or _spends(line, reading)

    def _is_root(self, line: LogLine) -> bool:
        reading = self.reading
        told = reading.traps.search(line.text) or reading.not_the_root.search(line.text)
        return line.level >= Level.NONE and not told

    def _still_wanted(self) -> int:
        """What a line may be that would change anything."""
        start = self.start
        over = {
            Mark.READY: start.ready is not None,
            Mark.SERVING: start.serving is not None,
            Mark.STARTED: start.started is not None,
            Mark.TOLD_TO_STOP: start.stopped is not None and start.spent,
            Mark.EXCEPTION: start.root is not None and start.spent,
            Mark.FIXED_CACHE: start.fixed_cache,
            Mark.PROGRESS: not start.waits,
            Mark.WAITING: start.serving is None,
            Mark.START: not start.spent,
        }
        return ~sum(mark.value for mark, is_over in over.items() if is_over)


def _marks(reading: LogGrammar) -> Iterator[tuple[re.Pattern[str], Mark]]:
    """How to tell by its shape what a line may be."""
    patterns = (
        (reading.version, Mark.VERSION),
        (reading.start, Mark.START),
        (reading.ready, Mark.READY),
        (reading.serving, Mark.SERVING),
        (reading.started, Mark.STARTED),
        (reading.told_to_stop, Mark.TOLD_TO_STOP),
        (reading.waiting, Mark.WAITING),
        (reading.progress, Mark.PROGRESS),
        (reading.fixed_cache, Mark.FIXED_CACHE),
        (FRAME, Mark.FRAME),
        (_EXCEPTION, Mark.EXCEPTION),
        (_USAGE, Mark.EXCEPTION),
    )
    return ((re.compile(relaxed(pattern.pattern)), mark) for pattern, mark in patterns if pattern is not NEVER)


def last_start(lines: Sequence[LogLine], reading: LogGrammar) -> Sequence[LogLine]:
    """Those of some lines that were said since the server was last started."""
    begin, spent = 0, False
    for index, line in enumerate(lines):
        if spent and reading.start.search(line.text):
            begin, spent = index, False
        spent = spent or _spends(line, reading)
    return lines[begin:]


def version_of(lines: Sequence[LogLine], reading: LogGrammar) -> str | None:
    """The engine's version, where the lines name it; the last named where they name several."""
    found = (reading.version.search(line.text) for line in reversed(lines))
    return next((next(group for group in version.groups() if group) for version in found if version), None)


def _spends(line: LogLine, reading: LogGrammar) -> bool:
    """Whether after this line only a new start can begin again."""
    patterns = (reading.ready, reading.told_to_stop, _EXCEPTION, _USAGE)
    return any(pattern.search(line.text) for pattern in patterns)
