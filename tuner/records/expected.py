"""What the search expected of its launches, and what they read: how far its model can be believed."""

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

    @property
    def told(self) -> str:
        """For a person, where what was expected has been said before."""
        error = words.percent(self.error, sign=True)
        return f"{error} against what was expected" + ("" if self.inside else ", outside its interval")


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
    found = (check_of(record, metric) for record in outcome.searched)
    checks = tuple(each for each in found if each)
    return Expectations(metric, checks) if checks else None


def check_of(record: TrialRecord, metric: str) -> ExpectationCheck | None:
    """What was expected of a launch and what it read; ``None`` where either is missing."""
    read = record.measurement.numbers.get(metric) if record.measurement else None
    return ExpectationCheck(record, record.expected, read) if record.expected and read else None


def foreseen(expected: Expectation, metric: str) -> str:
    """For a person: why a launch is asked for, and what it should read."""
    return f"{expected.why}, {interval(expected, metric)} expected"


def interval(expected: Expectation, metric: str) -> str:
    """What a launch should read, with its interval."""
    value, low, high = (words.metric(metric).said(at) for at in (expected.value, expected.low, expected.high))
    return f"{value} [{low}, {high}]"
