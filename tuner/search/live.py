"""What a launch measures besides its own configuration: settings that its running server can change to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pydantic import JsonValue

from tuner.search.additive import AdditiveSearch
from tuner.search.base import NOTHING, Admits, Observation, anything
from tuner.search.pool import values_of
from tuner.space import Candidate, SearchSpace

_LIFT = 4
"""A proposal is launched with up to so many times the largest value so far, so that more can be screened in it."""
_SURE = 0.9
"""The chance that it runs, below which it is launched as it was proposed."""
_WORTH = 0.002
"""A setting whose expected gain is less, in logs, is not worth a load."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A launch.

    Attributes:
        candidate: What is launched.
        screened: What is measured in its running server, too.
    """

    candidate: Candidate
    screened: tuple[Candidate, ...]


def planned(
    search: AdditiveSearch,
    live: Sequence[str],
    count: int,
    seen: Sequence[Observation],
    settled: Mapping[str, JsonValue] = NOTHING,
    admits: Admits = anything,
    sound: Admits = anything,
) -> Planned | None:
    """The next launch, with what is worth screening in it; ``None`` when the space holds no other.

    Args:
        search: Who proposes it.
        live: Parameters that a running server can change.
        count: The most settings to screen.
        seen: As in ``Search.propose``; likewise the next two.
        settled: Parameters that are not worth varying any more.
        admits: Whether a candidate may be proposed.
        sound: Whether nothing at all speaks against launching a larger one in its stead.
    """
    proposed = search.propose(seen, settled, admits)
    if proposed is None:
        return None
    names = [name for name in live if name not in settled]
    launched = _lifted(search, names, seen, proposed, sound)
    return Planned(launched, tuple(_screened(search, names, count, seen, launched)))


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


def _screened(
    search: AdditiveSearch, live: Sequence[str], count: int, seen: Sequence[Observation], launched: Candidate
) -> Iterator[Candidate]:
    """The settings of the largest expected gains, each far from those before it."""
    met = {launched.digest, *(each.candidate.digest for each in seen)}
    found = [each for each in within(search.space, live, launched) if _may(search, each, met)]
    model = search.model(seen)
    if not found or model.best is None:
        return
    gains = model.expected_improvement(found)
    for _ in range(count):
        at = int(np.argmax(gains))
        if gains[at] < _WORTH:
            return
        yield found[at]
        gains = gains * (1 - model.alike(found, found[at]))


def _may(search: AdditiveSearch, candidate: Candidate, met: set[str]) -> bool:
    return candidate.digest not in met and not search.space.violated(candidate, search.deployed)


def _lifted(
    search: AdditiveSearch, live: Sequence[str], seen: Sequence[Observation], proposed: Candidate, sound: Admits
) -> Candidate:
    """The proposal with live parameters larger than any that ran, where that is likely to run: an envelope.

    One step a launch, and none once the largest values have run: what is proposed then is launched as it is.
    """
    past = [each.candidate for each in seen if not each.screened]
    raised = {name: value for name in live if (value := _next(search.space, name, proposed, past)) is not None}
    envelope = search.space.candidate({**proposed.params, **raised})
    fresh = _may(search, envelope, {each.digest for each in past})
    return envelope if raised and fresh and sound(envelope) and _survives(search, seen, envelope) else proposed


def _next(space: SearchSpace, name: str, proposed: Candidate, past: Sequence[Candidate]) -> JsonValue:
    """The largest value of a parameter within a step of what has been launched; ``None`` if none is new."""
    tried = [value for each in past if isinstance(value := each.params.get(name), int | float)]
    if not tried or not isinstance(proposed.params.get(name), int | float):
        return None
    values = [value for value in values_of(space.params[name]) if isinstance(value, int | float)]
    return max((value for value in values if max(tried) < value <= _LIFT * max(tried)), default=None)


def _survives(search: AdditiveSearch, seen: Sequence[Observation], candidate: Candidate) -> bool:
    return float(search.model(seen).survival([candidate])[0]) >= _SURE
