"""What a proof has come to: the verdict, and the numbers that it rests on."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from tuner.proof.soak import Soaked
from tuner.quality.comparing import Compared
from tuner.schema import Schema


class Kind(StrEnum):
    """The verdict on a candidate."""

    BETTER = "better"
    """Better beyond doubt, and every limit is shown to be kept."""
    NO_DIFFERENCE = "no_difference"
    """Not better by as much as would be worth a change."""
    LIMIT_NOT_SHOWN = "limit_not_shown"
    """Better, but a limit is not shown to be kept, or something that nobody limited got worse by a lot."""
    REFUSED = "refused"
    """However fast it is: it answers less rightly than the baseline, or does not last."""
    NOT_DECIDED = "not_decided"
    """The launches made so far, or all that were allowed, do not tell."""


class Effect(Schema):
    """By which share a metric of the candidate is better; negative where it is worse. Always finite."""

    gain: float
    low: float
    high: float
    """The interval: that both ends miss the truth happens in at most 5 % of proofs, whenever they end."""
    baseline: tuple[float, ...] = ()
    """The metric in each relaunch of the baseline, in its unit and in order. Likewise the next."""
    candidate: tuple[float, ...] = ()
    noise: float | None = None
    """By which share two launches of one configuration differ (standard deviation of the log)."""

    @property
    def better(self) -> bool:
        """Whether it is better beyond doubt."""
        return self.low > 0

    @property
    def worse(self) -> bool:
        """Whether it is worse beyond doubt."""
        return self.high < 0


class Bound(Schema):
    """How a limit was kept: its metric in units of the bound; a ``max`` is kept up to 1, a ``min`` from 1 on."""

    value: float
    low: float
    high: float
    """The interval; it, not the value, has to be on the right side."""
    kept: bool
    """Shown to be kept."""
    broken: bool
    """Shown to be broken."""
    upper: bool = True
    """Whether the limit is a ``max``."""


class Decision(Schema):
    """What the launches of a candidate and of the baseline say, so far or in the end."""

    kind: Kind
    goals: dict[str, Effect] = Field(default_factory=dict)
    limits: dict[str, Bound] = Field(default_factory=dict)
    others: dict[str, Effect] = Field(default_factory=dict)
    """Every other metric that both measured, limited or not."""
    sacrificed: tuple[str, ...] = ()
    """Those without a limit that got worse beyond noise by more than the guard allows."""
    launches: int
    """Of each configuration, those that died included."""
    over: bool
    """Whether no further launch can or need change it."""
    died: tuple[str, ...] = ()
    """Relaunches that gave no measurement, and why."""
    too_few: bool = False
    """Whether these are fewer launches than could tell anything, whatever they read."""
    spent: float = 0.0
    """How much of the study's error rate this proof has used up."""
    answers: Compared | None = None
    """The candidate's answers against the baseline's; null where they were not asked."""
    soak: Soaked | None = None
    """What came of the candidate's soak; null before it, and where there is none."""
    refused: tuple[str, ...] = ()
    """Why it is refused, whatever its speed."""

    @property
    def gain(self) -> float:
        """The first goal's share."""
        return self._first.gain

    @property
    def low(self) -> float:
        """The lower end of its interval."""
        return self._first.low

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        return self._first.high

    @property
    def _first(self) -> Effect:
        return next(iter(self.goals.values()))

    @property
    def open_limits(self) -> tuple[str, ...]:
        """Limits that are not shown to be kept."""
        return tuple(name for name, bound in self.limits.items() if not bound.kept)

    @property
    def noise(self) -> float | None:
        """By which share launches of one configuration differed in the first goal."""
        return self._first.noise

    def effect(self, name: str) -> Effect | None:
        """What became of a metric; ``None`` if not both measured it."""
        return self.goals.get(name) or self.others.get(name)

    def worse(self) -> Iterator[tuple[str, Effect]]:
        """Everything that got worse beyond noise, goals and others alike."""
        yield from ((name, effect) for name, effect in {**self.goals, **self.others}.items() if effect.worse)
