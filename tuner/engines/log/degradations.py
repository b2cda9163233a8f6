"""What a server silently does slower than it could: the mechanism that the engines' tables share."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.engines.base import Degradation
from tuner.engines.log.lines import LogLine, parse_line
from tuner.engines.log.literals import Index
from tuner.engines.log.shapes import Shapes, relaxed


@dataclass(frozen=True, slots=True)
class Slower:
    """A kind of degradation.

    Attributes:
        name: What, in one word.
        severe: Whether it alone makes a measurement worthless.
        pattern: The words in which it is mentioned.
    """

    name: str
    severe: bool
    pattern: re.Pattern[str]


def slower(name: str, *any_of: str, severe: bool = False) -> Slower:
    """A kind of degradation that any of these regular expressions mentions."""
    return Slower(name, severe, re.compile("|".join(any_of)))


def telling(patterns: Iterable[re.Pattern[str]]) -> Shapes[bool]:
    """Which shapes of line may hold one of these patterns."""
    index = Index((re.compile(relaxed(pattern.pattern)), True) for pattern in patterns)
    return Shapes(lambda lines: any(index.find(line.text) for line in lines))


class DegradationReader:
    """Reads a log line by line and keeps the first line of each degradation.

    Args:
        table: What to look for.
        shapes: The lines that ``take`` wants to see.
    """

    def __init__(self, table: Sequence[Slower], shapes: Shapes[bool]) -> None:
        self._table = table
        self._telling = shapes
        self._first: dict[str, Degradation] = {}
        self._number = 0
        self.idle = False
        """Whether neither the last line nor another of its shape mentions anything."""

    def read(self, raw: str) -> None:
        """Take the next physical line."""
        self._number += 1
        self.idle = not self._telling.of(raw)
        if not self.idle:
            for line in parse_line(raw, self._number):
                self.take(line)

    def skip(self, lines: Sequence[str]) -> None:
        """Take lines that mention nothing."""
        self._number += len(lines)

    def take(self, line: LogLine) -> None:
        """Look at a logical line whose shape may tell something."""
        for each in self._table:
            if each.name not in self._first and each.pattern.search(line.text):
                self.note(each.name, line, severe=each.severe)

    def note(self, name: str, line: LogLine, *, severe: bool) -> None:
        """Keep a degradation, unless it was mentioned before."""
        self._first.setdefault(name, Degradation(name, line.raw, line.number, severe))

    @property
    def found(self) -> tuple[Degradation, ...]:
        """Each degradation that was mentioned, once, at its first line, in the order of the log."""
        return tuple(sorted(self._first.values(), key=lambda each: each.line_number))
