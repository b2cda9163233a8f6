"""What a server silently does slower than it could: the mechanism that the engines' tables share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.engines.base import Degradation
from tuner.engines.literals import Index
from tuner.engines.loglines import LogLine, parse_line
from tuner.engines.shapes import Shapes, relaxed


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


class DegradationReader:
    """Reads a log line by line and keeps the first line of each degradation.

    Args:
        table: What to look for.
        also: Other lines that ``take`` wants to see.
    """

    def __init__(self, table: Sequence[Slower], *also: re.Pattern[str]) -> None:
        self._table = table
        self._first: dict[str, Degradation] = {}
        self._number = 0
        patterns = (*(each.pattern for each in table), *also)
        telling = Index((re.compile(relaxed(pattern.pattern)), True) for pattern in patterns)
        self._telling = Shapes(lambda lines: any(telling.find(line.text) for line in lines))

    def read(self, raw: str) -> None:
        """Take the next physical line."""
        self._number += 1
        if self._telling.of(raw):
            for line in parse_line(raw, self._number):
                self.take(line)

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
