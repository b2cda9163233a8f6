"""What every search answers, and what it is shown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field, JsonValue

from tuner.proof.estimate import Noise
from tuner.schema import Schema
from tuner.space import Candidate

CANNOT_RUN = 1.0
"""Violation of a configuration that cannot run: more than that of any which surely misses a limit."""
NOTHING: Mapping[str, JsonValue] = MappingProxyType({})
Admits = Callable[["Candidate"], bool]


class SearchConfig(Schema):
    """Who proposes the next candidate."""

    kind: Literal["auto", "gp", "tpe", "random", "grid"] = "auto"
    """``auto``: a model of single effects and pairs; of several goals at once ``gp`` where torch is installed, else
    ``tpe``."""
    live: Literal["auto", "off"] = "auto"
    """``auto``: a launch measures further settings in the running server, where engine and search can do that; what
    wins is launched as it would be deployed all the same."""
    live_settings: Annotated[int, Field(ge=1)] = 6
    """So many of them in one launch at the most."""
    warm_from: tuple[str, ...] = ()
    """Earlier studies of the same model to begin with, as names of studies or as folders: on another GPU, of another
    version of the engine. Each is believed as far as it agrees with what this study measures."""
    startup_trials: Annotated[int, Field(ge=1)] = 8
    """Candidates spread over the space before the model proposes; the baseline and known-good ones count."""


_SCREENED = 0.5
"""A screened reading is worth half a launch, its bias aside: it has its server's noise, and as much of its own."""


@dataclass(frozen=True, slots=True)
class LiveIn:
    """The running server in which something was screened.

    Attributes:
        candidate: What it was started with, as it ran.
        asked: Digest of what was asked of it: its own launch goes by that.
    """

    candidate: Candidate
    asked: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one candidate.

    Attributes:
        candidate: Its parameters, as they ran.
        asked: Digest of the candidate that was proposed, which may not be what ran; empty where it is.
        values: The goals' metrics; ``None`` if it could not be measured.
        margins: By which log each limit's metric is beyond its bound; negative where the limit is kept.
        launches: Of how many launches the values are the mean.
        error: How well one of them knew its own value: standard error of its log.
        noise: Between launches of one configuration in the goal, as far as the study has measured it.
        margin_noise: The same by limit.
        screened: Whether it was measured in the running server of another configuration: no launch, and less certain.
        server: Where that was, if it is known.
        violation: At most 0 when the limits are rather kept than not: a half less the probability that they are kept;
            1 if it cannot run.
    """

    candidate: Candidate
    values: tuple[float, ...] | None
    violation: float = CANNOT_RUN
    asked: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)
    launches: int = 1
    error: float = 0.0
    noise: Noise | None = None
    margin_noise: Mapping[str, Noise] = field(default_factory=dict)
    screened: bool = False
    server: LiveIn | None = None

    @property
    def worth(self) -> float:
        """As many launches tell as much of the goal."""
        return _SCREENED if self.screened else float(self.launches)


def anything(candidate: Candidate) -> bool:
    """Every candidate may be proposed."""
    return True


@dataclass(frozen=True, slots=True)
class Planned:
    """A launch.

    Attributes:
        candidate: What is launched.
        screened: What is measured in its running server, too.
    """

    candidate: Candidate
    screened: tuple[Candidate, ...] = ()


Why = Literal["new choices", "exploit", "explore"]
"""It has choices that were never launched; the model holds it to be the best so far; or it may be."""


class Expectation(Schema):
    """What a search expects of a launch, and why it asks for it."""

    why: Why
    value: float
    """The goal's metric, in its unit."""
    low: float
    high: float
    """What the launch reads is held to be between them in nine launches of ten, its own noise included."""


class Search(Protocol):
    """Proposes candidates; what only a model of the whole space can answer has a default for those without one.

    Attributes:
        doubts: So many of its proposals are put off at each step for being likely to fail; then it is believed.
        screens: Whether it knows what a reading in the running server of another configuration is worth.
    """

    doubts: ClassVar[int]
    screens: ClassVar[bool] = False

    def propose(
        self, seen: Sequence[Observation], settled: Mapping[str, JsonValue] = NOTHING, admits: Admits = anything
    ) -> Candidate | None:
        """The next candidate, none that was seen before; ``None`` when the space holds no other.

        Args:
            seen: Everything that is known.
            settled: Parameters that are not worth varying any more, with the value that they keep.
            admits: Whether a candidate may be proposed at all.

        The answer depends on the arguments and the seed alone, so a resumed study continues as if it had never stopped.
        """
        ...

    def plan(
        self,
        live: Sequence[str],
        count: int,
        seen: Sequence[Observation],
        settled: Mapping[str, JsonValue] = NOTHING,
        admits: Admits = anything,
        sound: Admits = anything,
    ) -> Planned | None:
        """The next launch, with what is worth screening in it; ``None`` when the space holds no other.

        Args:
            live: Parameters that a running server can change.
            count: The most settings to screen.
            seen: As in ``propose``; likewise the next two.
            settled: Parameters that are not worth varying any more.
            admits: Whether a candidate may be proposed.
            sound: Whether nothing at all speaks against launching a larger one in its stead.
        """
        candidate = self.propose(seen, settled, admits)
        return Planned(candidate) if candidate else None

    def expected_gain(
        self, seen: Sequence[Observation], candidates: Sequence[Candidate], settled: Mapping[str, JsonValue] = NOTHING
    ) -> float | None:
        """What the most promising of some candidates is expected to gain, in logs; ``None`` if that is not known."""
        return None

    def expectation(self, seen: Sequence[Observation], candidate: Candidate) -> Expectation | None:
        """What it expects of a launch; ``None`` if it has no view."""
        return None

    def agreement(self, seen: Sequence[Observation]) -> Mapping[str, float]:
        """By earlier study that it began with: how much that has in common with what was measured, from 0 to 1."""
        return {}

    def recommend(self, seen: Sequence[Observation]) -> Candidate | None:
        """The launched candidate that it holds to be the best and to keep its limits; ``None`` if it has no view."""
        return None


def known(seen: Iterable[Observation]) -> set[str]:
    """Digests of what was proposed and of what ran: neither is worth another launch, what was only screened is."""
    launched = (observation for observation in seen if not observation.screened)
    return {
        digest for observation in launched for digest in (observation.candidate.digest, observation.asked) if digest
    }
