"""Every candidate in turn."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import ClassVar

from pydantic import JsonValue

from tuner.errors import ConfigError
from tuner.search.base import NOTHING, Admits, Observation, Search, anything, known
from tuner.space import Candidate, SearchSpace, Settings

_SPREAD_LOG2 = 10
"""So many candidates, as a power of two, are spread out; nobody launches more."""


class GridSearch(Search):
    """Every candidate that keeps the rules, first such that those launched so far are spread over the space.

    Their levels follow a Sobol sequence (I. M. Sobol, 1967; scipy's), so that a grid that is stopped has varied every
    parameter; in the order of the parameters it would have varied the last ones alone.
    """

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
        every = chain(self._spread(), self._space.all_candidates())
        settle = (self._space.candidate({**c.params, **settled}) for c in every)
        fresh = (candidate for candidate in settle if candidate.digest not in met)
        legal = (candidate for candidate in fresh if not self._space.violated(candidate, self._deployed))
        return next((candidate for candidate in legal if admits(candidate)), None)

    def _spread(self) -> Iterator[Candidate]:
        """Some of the candidates, any number of which from the first on are spread over the space."""
        from scipy.stats.qmc import Sobol

        parameters = self._space.params
        for point in Sobol(len(parameters), scramble=True, rng=0).random_base2(_SPREAD_LOG2):
            levels = (int(at * (each.levels or 1)) for at, each in zip(point, parameters.values(), strict=True))
            pairs = zip(parameters.items(), levels, strict=True)
            yield self._space.candidate({name: parameter.value(level) for (name, parameter), level in pairs})
