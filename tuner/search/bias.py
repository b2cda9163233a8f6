"""By how much what was screened may differ from a launch: coordinates of its own, on which no launch is.

A constant difference, and one for each parameter that was changed in the running server, by how far it was changed from
what the server was started with. Each has a variance of its own, which settings that were both screened and launched
tell; a bias that grows with the distance cannot be told from the effect of the parameter without them, and makes that
less certain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.search.base import Observation
from tuner.search.gaussian import NOWHERE
from tuner.space import Candidate

_WEIGHT = 0.5
"""What each part of the bias is expected to change, over what a setting usually does."""

Place = Callable[[str, Candidate], float]
"""Where a candidate is on a parameter's coordinate."""


@dataclass(frozen=True, slots=True)
class ScreeningBias:
    """The coordinates.

    Attributes:
        names: Parameters that were changed in running servers; ``None`` if nothing was screened.
    """

    names: tuple[str, ...] | None

    @classmethod
    def of(cls, seen: Sequence[Observation], names: Sequence[str]) -> "ScreeningBias":
        """Those of the parameters ``names`` that were changed."""
        screened = [each for each in seen if each.screened]
        return cls(tuple(name for name in names if any(map(_changed(name), screened))) if screened else None)

    @property
    def _count(self) -> int:
        return 0 if self.names is None else 1 + len(self.names)

    @property
    def ordered(self) -> tuple[bool, ...]:
        """Whether distances mean something, by coordinate."""
        return (False, *[True] * len(self.names)) if self.names is not None else ()

    @property
    def weights(self) -> tuple[float, ...]:
        """As ``Axes`` has them."""
        return (_WEIGHT,) * self._count

    @property
    def launched(self) -> list[float]:
        """Where every launch is."""
        return [NOWHERE] * self._count

    def at(self, seen: Observation, place: Place) -> list[float]:
        """Where an observation is."""
        if not seen.screened or self.names is None:
            return self.launched
        return [1.0, *(self._distance(name, seen, place) for name in self.names)]

    def _distance(self, name: str, seen: Observation, place: Place) -> float:
        if seen.server is None or not _changed(name)(seen):
            return NOWHERE
        return abs(place(name, seen.server.candidate) - place(name, seen.candidate))


def _changed(name: str) -> Callable[[Observation], bool]:
    def changed(seen: Observation) -> bool:
        server = seen.server
        return server is not None and server.candidate.params.get(name) != seen.candidate.params.get(name)

    return changed
