"""What the search expected of its launches, and what they read: how far its model can be believed."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from tuner import words
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.search.base import Expectation


@dataclass(frozen=True, slots=True)
class ExpectationCheck:
    """A launch that was expected to read something.

    Attributes:
        record: The launch.
        expected: What was expected.
        read: What it read.
    """

    record: TrialRecord
    expected: Expectation
    read: float

    @property
    def inside(self) -> bool:
        """Whether the reading is within the interval."""
        return self.expected.low <= self.read <= self.expected.high

    @property
    def error(self) -> float:
        """By which share it is above what was expected."""
        return self.read / self.expected.value - 1


@dataclass(frozen=True, slots=True)
class Expectations:
    """All of them.

    Attributes:
        metric: The goal.
        checks: Each launch that was measured.
    """

    metric: str
    checks: tuple[ExpectationCheck, ...]

    @property
    def sentence(self) -> str:
        """For a person."""
        inside, count = sum(each.inside for each in self.checks), len(self.checks)
        error = words.percent(median(abs(each.error) for each in self.checks))
        return f"{inside} of {count} readings lie in the interval that should hold nine of ten; median error {error}."


def expectations(outcome: Outcome) -> Expectations | None:
    """How well the search knew; ``None`` where it said nothing."""
    metric = next(iter(outcome.config.objective.goals))
    found = tuple(_checks(outcome, metric))
    return Expectations(metric, found) if found else None


def _checks(outcome: Outcome, metric: str) -> Iterator[ExpectationCheck]:
    for record in outcome.searched:
        read = record.measurement.numbers.get(metric) if record.measurement else None
        if record.expected and read:
            yield ExpectationCheck(record, record.expected, read)
