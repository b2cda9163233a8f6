"""Every candidate in turn."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

from tuner.errors import ConfigError
from tuner.search.base import NOTHING, Admits, Observation, anything, known
from tuner.space import Candidate, SearchSpace, Settings


class GridSearch:
    """Every candidate that keeps the rules, in the order of the parameters."""

    doubts: ClassVar[int] = 3

    def __init__(self, space: SearchSpace, deployed: Settings) -> None:
        if space.size is None:
            endless = [name for name, parameter in space.params.items() if parameter.levels is None]
            places = ", ".join(f"space.params.{name}" for name in endless)
            raise ConfigError(
                f"a grid needs steps, but {places} is continuous", place="search.kind", fix="give it a step"
            )
        self._space = space
        self._deployed = deployed

    def propose(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue] = NOTHING, admits: Admits = anything
    ) -> Candidate | None:
        """See ``Search.propose``."""
        met = known(seen)
        settle = (self._space.candidate({**c.params, **settled}) for c in self._space.all_candidates())
        fresh = (candidate for candidate in settle if candidate.digest not in met)
        legal = (candidate for candidate in fresh if not self._space.violated(candidate, self._deployed))
        return next((candidate for candidate in legal if admits(candidate)), None)
