"""An earlier study that a search begins with: what its launches read, relative to what it had deployed."""

from operator import attrgetter

from pydantic import Field, JsonValue

from tuner.schema import Schema
from tuner.space import Candidate

_MOST = 80
"""So many configurations of a study are enough: the best half of them, and others evenly."""


class SourceReading(Schema):
    """A configuration of an earlier study."""

    params: dict[str, JsonValue]
    """Its values, in the space of the new study."""
    gain: float
    """The log by which its goal was better than that of its own deployed configuration."""
    beyond: dict[str, float] = Field(default_factory=dict)
    """By which log each limited metric was nearer to its bound than there, or farther beyond it."""

    @property
    def candidate(self) -> Candidate:
        """Its parameters."""
        return Candidate(self.params)


class Source(Schema):
    """An earlier study."""

    name: str
    readings: tuple[SourceReading, ...]
    """Its measured configurations, the deployed one among them."""
    machine: str = ""
    """What it ran on, for a person."""
    skipped: int = 0
    """Measured configurations that the new space does not hold."""

    @property
    def best(self) -> Candidate | None:
        """What read best without being nearer to a limit than the deployed one; ``None`` if nothing was measured."""
        safe = [each for each in self.readings if max(each.beyond.values(), default=0.0) <= 0] or self.readings
        return max(safe, key=attrgetter("gain")).candidate if safe else None

    @property
    def telling(self) -> tuple[SourceReading, ...]:
        """The readings that a model is made of."""
        if len(self.readings) <= _MOST:
            return self.readings
        ranked = sorted(self.readings, key=attrgetter("gain"), reverse=True)
        best, rest = ranked[: _MOST // 2], ranked[_MOST // 2 :]
        return (*best, *rest[:: -(-len(rest) // (_MOST // 2))])
