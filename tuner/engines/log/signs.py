"""What a sign in a log is, and how a log is searched for them: the mechanism; the signs themselves are tables.

A sign ties a shape of line to a cause. Many lines of a failing log match some sign, and most of them are not why it
failed: a worker runs out of memory, its neighbours report a lost connection, the engine that it has died, and the API
server that initialisation failed. So each sign has a rank, which says how close its words are to the root cause; the
highest rank found decides, and among equals the earliest line.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from tuner.engines.causes import Cause
from tuner.engines.log.lines import Level, LogLine, parse_line
from tuner.engines.log.shapes import relaxed


class Rank(IntEnum):
    """How close a sign's words are to the root cause."""

    WRAPPER = 10
    """Says that something failed, and that the reason stands elsewhere."""
    AFTERMATH = 20
    """Says that the engine is dead; the reason may stand elsewhere."""
    CRASH = 30
    """Says how a process died: a signal, a segmentation fault, a CUDA error."""
    BROKEN = 35
    """Any other exception in the engine's code, kernels or compilers: what a process that then ended died of."""
    PEER = 40
    """Says that a process was killed or lost its peers, which is often the doing of another that failed first."""
    RAISED = 45
    """An exception of the engine's own checks that no sign knows better."""
    FAMILY = 50
    """A kind of sentence that many versions word differently; it may also tell of an error that was survived."""
    KNOWN = 60
    """A fixed text of torch, CUDA, the hub or the operating system."""
    EXACT = 70
    """The engine's own sentence about this very cause."""


@dataclass(frozen=True)
class Sign:
    """A shape of line that speaks for a cause.

    Attributes:
        cause: What it speaks for.
        rank: How close it is to the root cause.
        any_of: Regular expressions, searched in the program's own words; one is enough. Their named groups are the
            line's numbers; a group's name carries the unit (``free_gib``), and ``free_gib_unit`` the unit printed.
            A group called ``named`` is no number, but what the line says is missing.
        advice: What to do, in one sentence; ``{above}`` stands for the setting that the line above names, the name of
            a number for that number, ``{named}`` for what the line says is missing, ``{share}`` for the setting that
            the size of the KV cache follows from.
        versions: Where the words were seen.
        serving: Whether it still counts once the server serves. A rejected flag can only come before; after that the
            same words are about a single request.
        level: The quietest level at which it counts.
        after: A shape that must stand in one of the few lines before it.
        unless: A shape that must not.
        raised_in: A shape of the file in which the exception was raised, as the traceback above names it; of the empty
            string where none does.
        said_by: A shape of the name of the process that says it, which is empty where the log names none.
        machine: Whether this machine is at fault, though it usually is the configuration with this cause.
        lasting: Whether it would end so at every start, though a cause like this usually may pass.
    """

    cause: Cause
    rank: Rank
    any_of: tuple[str, ...]
    advice: str
    versions: str = ""
    serving: bool = False
    level: Level = Level.NONE
    after: str = ""
    unless: str = ""
    raised_in: str = ""
    said_by: str = ""
    machine: bool = False
    lasting: bool = False

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """``any_of`` as one pattern."""
        return re.compile("|".join(self.any_of))

    @cached_property
    def relaxed(self) -> re.Pattern[str]:
        """What is found in every line of a shape if ``regex`` may be found in one."""
        return re.compile(relaxed(self.regex.pattern))

    @cached_property
    def _after(self) -> re.Pattern[str]:
        return re.compile(self.after)

    @cached_property
    def _unless(self) -> re.Pattern[str]:
        return re.compile(self.unless)

    @cached_property
    def _raised_in(self) -> re.Pattern[str]:
        return re.compile(self.raised_in)

    @cached_property
    def _said_by(self) -> re.Pattern[str]:
        return re.compile(self.said_by)

    def match(self, line: LogLine, context: "Context") -> re.Match[str] | None:
        """The match, if this line in this context is the sign."""
        if line.level < self.level or not (found := self.regex.search(line.text)):
            return None
        if self.after and not any(self._after.search(text) for text in context.recent):
            return None
        if self.unless and any(self._unless.search(text) for text in context.recent):
            return None
        if self.raised_in and not self._raised_in.search(context.frame):
            return None
        if self.said_by and not self._said_by.search(line.process):
            return None
        return found


@dataclass(frozen=True)
class Context:
    """What is above a line.

    Attributes:
        before: The last few physical lines before its own.
        siblings: What its own physical line says before it.
        frame: The file of the innermost frame of its process's traceback, or ``""``.
    """

    before: Sequence[str] = ()
    siblings: Sequence[str] = ()
    frame: str = ""

    @cached_property
    def recent(self) -> Sequence[str]:
        """The last few texts, oldest first; found out only where a sign asks for them."""
        return [*(text for raw in self.before for text in _texts(raw)), *self.siblings][-_RECENT:]


@dataclass(frozen=True, slots=True)
class Finding:
    """A sign that was found.

    Attributes:
        sign: Which.
        line: Where.
        numbers: The figures in it.
        above: The text of the line above it.
        named: What it says is missing, or ``""``.
    """

    sign: Sign
    line: LogLine
    numbers: Mapping[str, float]
    above: str = ""
    named: str = ""

    @property
    def advice(self) -> str:
        """The sign's, with the line's numbers and the setting's name filled in, where the line above is one."""
        name = self.above.strip()
        filled = self.sign.advice.replace("{above}", name if _NAME.fullmatch(name) else "the setting")
        filled = filled.replace("{named}", self.named or "what the line names")
        for number, value in self.numbers.items():
            filled = filled.replace(f"{{{number}}}", f"{value:.0f}" if value.is_integer() else f"{value:g}")
        return filled


FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+')
"""The place of a frame of a traceback."""
_NAMED = "named"
_NAME = re.compile(r"[a-z_][\w.]*")
_RECENT = 10
_UNKNOWN_EXCEPTION = (Rank.BROKEN, Rank.RAISED)
_PROCESSES = 1_000
_BYTES = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_UNIT_OF_NAME = {"bytes": "bytes", "mib": "MiB", "gib": "GiB"}


class Trail:
    """What the lines before the present one leave behind, as far as a sign can ask for it."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._frames: dict[str, str] = {}

    def enter(self, line: LogLine) -> None:
        """Note the frame that a line names, if it names one."""
        if frame := FRAME.match(line.text):
            if len(self._frames) >= _PROCESSES:
                self._frames.clear()
            self._frames[line.process] = frame["file"]

    def passed(self, raw: str) -> None:
        """A physical line is over."""
        self._recent.append(raw)

    def skip(self, lines: Sequence[str]) -> None:
        """Physical lines are over that name no frame."""
        self._recent.extend(lines[-_RECENT:])

    def context(self, line: LogLine, siblings: Iterable[LogLine] = ()) -> Context:
        """What is above a line; ``siblings`` are those before it in the same physical line."""
        return Context(tuple(self._recent), [each.text for each in siblings], self._frames.get(line.process, ""))


def _texts(raw: str) -> list[str]:
    return [line.text for line in parse_line(raw)]


def find(lines: Iterable[LogLine], table: Sequence[Sign], traps: re.Pattern[str]) -> Iterator[Finding]:
    """Every sign among some lines, in order; at most one per line, as ``best`` has it.

    Args:
        lines: The log.
        table: The signs to look for.
        traps: Shapes of lines that look like a failure and are none.
    """
    trail = Trail()
    for line in lines:
        trail.enter(line)
        if finding := best(line, table, traps, trail.context(line)):
            yield finding
        trail.passed(line.text)


def best(line: LogLine, table: Sequence[Sign], traps: re.Pattern[str], context: Context) -> Finding | None:
    """The sign of highest rank in a line (first in the table among equals); ``None`` if there is none.

    An exception that another sign knows is that sign, whatever its rank.
    """
    found = [(sign, match) for sign in table if (match := sign.match(line, context))]
    if not found or traps.search(line.text):
        return None
    known = [pair for pair in found if pair[0].rank not in _UNKNOWN_EXCEPTION]
    sign, match = max(known or found, key=lambda pair: pair[0].rank)
    above = context.recent[-1] if "{above}" in sign.advice and context.recent else ""
    return Finding(sign, line, numbers_of(match), above, match.groupdict().get(_NAMED) or "")


def numbers_of(match: re.Match[str]) -> dict[str, float]:
    """The numbers in a match's named groups, in the unit that each group's name carries."""
    groups = {name: text for name, text in match.groupdict().items() if text and name != _NAMED}
    figures = {name: text for name, text in groups.items() if not name.endswith("_unit")}
    return {name: _number(text) * _factor(name, groups.get(f"{name}_unit")) for name, text in figures.items()}


def _number(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))


def _factor(name: str, printed: str | None) -> float:
    wanted = _UNIT_OF_NAME.get(name.rsplit("_", 1)[-1])
    return _BYTES[printed] / _BYTES[wanted] if printed and wanted else 1.0
