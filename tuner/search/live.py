"""What a launch measures besides its own configuration: settings that its running server can change to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pydantic import JsonValue

from tuner.search.base import Admits, Observation, Planned
from tuner.search.pool import values_of
from tuner.search.surrogate import Surrogate
from tuner.space import Candidate, SearchSpace, Settings

_LIFT = 4
"""A proposal is launched with up to so many times the largest value so far, so that more can be screened in it."""
_SURE = 0.9
"""The chance that it runs, below which it is launched as it was proposed."""
_WORTH = 0.002
"""A setting whose expected gain is less, in logs, is not worth a load."""


@dataclass(frozen=True, slots=True)
class LivePlan:
    """Plans a launch whose running server can change some parameters.

    Attributes:
        space: What may be tried.
        deployed: The deployment's settings, which rules may speak of.
        live: Parameters that the running server can change.
        model: What is held of the space.
        seen: What it is held by.
    """

    space: SearchSpace
    deployed: Settings
    live: Sequence[str]
    model: Surrogate
    seen: Sequence[Observation]

    def of(self, proposed: Candidate, count: int, sound: Admits) -> Planned:
        """The launch of a proposal, with up to so many settings that are worth screening in it."""
        launched = self._lifted(proposed, sound)
        return Planned(launched, tuple(self._screened(launched, count)))

    def _screened(self, launched: Candidate, count: int) -> Iterator[Candidate]:
        """The settings of the largest expected gains, each far from those before it."""
        met = {launched.digest, *(digest for each in self.seen for digest in (each.candidate.digest, each.asked))}
        found = [each for each in within(self.space, self.live, launched) if self._may_run(each, met)]
        if not found or self.model.best is None:
            return
        gains = self.model.expected_improvement(found)
        for _ in range(count):
            at = int(np.argmax(gains))
            if gains[at] < _WORTH:
                return
            yield found[at]
            gains = gains * (1 - self.model.alike(found, found[at]))

    def _lifted(self, proposed: Candidate, sound: Admits) -> Candidate:
        """The proposal with live parameters larger than any that ran, where that is likely to run: an envelope.

        One step a launch, and none once the largest values have run: what is proposed then is launched as it is.
        """
        past = [each.candidate for each in self.seen if not each.screened]
        steps = {name: _next(self.space, name, proposed, past) for name in self.live}
        raised = {name: value for name, value in steps.items() if value is not None}
        envelope = self.space.candidate({**proposed.params, **raised})
        fresh = self._may_run(envelope, {each.digest for each in past})
        return envelope if raised and fresh and sound(envelope) and self._survives(envelope) else proposed

    def _may_run(self, candidate: Candidate, met: set[str]) -> bool:
        return candidate.digest not in met and not self.space.violated(candidate, self.deployed)

    def _survives(self, candidate: Candidate) -> bool:
        return float(self.model.survival([candidate])[0]) >= _SURE


def within(space: SearchSpace, live: Sequence[str], candidate: Candidate) -> Iterator[Candidate]:
    """Every candidate that differs from one in live parameters only, and is nowhere above it."""
    ladders = {name: _ladder(space, name, candidate) for name in live if name in candidate.params}
    for values in product(*ladders.values()):
        yield space.candidate({**candidate.params, **dict(zip(ladders, values, strict=True))})


def _ladder(space: SearchSpace, name: str, candidate: Candidate) -> list[JsonValue]:
    """The values of a parameter up to a candidate's; only that one where it leaves the choice to the engine."""
    most = candidate.params[name]
    if not isinstance(most, int | float):
        return [most]
    values = values_of(space.params[name])
    return [*(value for value in values if isinstance(value, int | float) and value < most), most]


def _next(space: SearchSpace, name: str, proposed: Candidate, past: Sequence[Candidate]) -> JsonValue:
    """The largest value of a parameter within a step of what has been launched; ``None`` if none is new."""
    tried = [value for each in past if isinstance(value := each.params.get(name), int | float)]
    if not tried or not isinstance(proposed.params.get(name), int | float):
        return None
    values = [value for value in values_of(space.params[name]) if isinstance(value, int | float)]
    return max((value for value in values if max(tried) < value <= _LIFT * max(tried)), default=None)
