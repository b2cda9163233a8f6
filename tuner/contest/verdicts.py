"""Which engine is better at a level of concurrency, by the rule of a study's proof.

Each level is asked in both directions, and the error of one proof is spent once over all of these questions: that any
of them calls an engine better which is not happens as rarely as in a study of one engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from tuner import words
from tuner.contest.levels import ConcurrencyLevel
from tuner.load.naming import CONCURRENT, MetricName, parse
from tuner.load.quantities import QUANTITIES
from tuner.proof.decision import Decision, Effect, Kind
from tuner.proof.estimate import level as level_of
from tuner.proof.rule import ALPHA, ProofLaunch, Terms, decide
from tuner.records import verdict
from tuner.records.compare import launch
from tuner.records.record import TrialRecord

_DIRECTIONS = 2
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class LevelVerdict:
    """What the launches say at one level.

    Attributes:
        level: Which.
        names: The engines; ``second`` is the decision on the second one against the first, ``first`` the other way.
        first: Whether the first engine is better than the second.
        second: Whether the second engine is better than the first.
        min_gain: A gain below this share is no difference.
    """

    level: ConcurrencyLevel
    names: tuple[str, str]
    first: Decision
    second: Decision
    min_gain: float

    @property
    def over(self) -> bool:
        """Whether no further launch can or need change it."""
        return any(each.kind is Kind.BETTER for each in self._both) or all(each.over for each in self._both)

    @property
    def ahead(self) -> Decision:
        """The decision that the verdict is about: on the engine that is better, or reads better."""
        order = {Kind.BETTER: 0, Kind.LIMIT_NOT_SHOWN: 1}
        return min(self._both, key=lambda each: (order.get(each.kind, 2), -each.gain))

    @property
    def kind(self) -> Kind:
        """The verdict."""
        if self.ahead.kind in (Kind.BETTER, Kind.LIMIT_NOT_SHOWN):
            return self.ahead.kind
        same = all(each.kind is Kind.NO_DIFFERENCE for each in self._both)
        return Kind.NO_DIFFERENCE if same else Kind.NOT_DECIDED

    @property
    def winner(self) -> str | None:
        """The engine that is better beyond doubt; ``None`` if neither is."""
        return self.leader if self.kind is Kind.BETTER else None

    @property
    def leader(self) -> str:
        """The engine that is better, or reads better."""
        return self.names[self.ahead is self.second]

    @property
    def title(self) -> str:
        """The verdict in a few words."""
        if self.kind in (Kind.BETTER, Kind.LIMIT_NOT_SHOWN):
            return f"{self.leader} {verdict.title(self.ahead)}"
        return "no difference" if self.kind is Kind.NO_DIFFERENCE else "not decided"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        other = self.names[self.leader == self.names[0]]
        gains = "; ".join(_changed(name, effect) for name, effect in self.ahead.goals.items())
        of_each = f"{gains}, over {verdict.launches(self.ahead)} of each"
        start = f"For {self.level.said}"
        match self.kind:
            case Kind.BETTER:
                return f"{start} {self.leader} is better than {other}: {of_each}."
            case Kind.LIMIT_NOT_SHOWN:
                but = verdict.but(self.ahead, self.level.limits)
                return f"{start} {self.leader} is better than {other}, but {but}: {of_each}."
            case Kind.NO_DIFFERENCE:
                return f"{start} there is no difference above {words.percent(self.min_gain)}: {self.leader}: {of_each}."
        return f"{start} it is not decided{self._why}: {self.leader} against {other}: {of_each}."

    @property
    def _why(self) -> str:
        if self.ahead.died:
            return f", since a launch died ({self.ahead.died[0]})"
        if not self.over:
            return " yet"
        noise = self.ahead.noise
        varied = "by more than can be told" if noise is None else f"by {words.percent(noise)}"
        return f", since this machine varied {varied} between launches of one configuration"

    @property
    def _both(self) -> tuple[Decision, Decision]:
        return self.first, self.second

    def values(self, name: str) -> tuple[str, str]:
        """A metric of both engines, each with its 95 % interval."""
        effect = self.second.effect(name)
        return (_level(name, effect.baseline), _level(name, effect.candidate)) if effect else ("", "")

    def change(self, name: str) -> str:
        """A metric of the second engine against the first one's, with its interval."""
        effect = self.second.effect(name)
        return _changed(name, effect).removeprefix(plain(name)).strip() if effect else ""


def verdict_of(
    level: ConcurrencyLevel,
    levels: Sequence[ConcurrencyLevel],
    names: tuple[str, str],
    launches: Sequence[tuple[TrialRecord, bool]],
    most: int,
    min_gain: float,
) -> LevelVerdict:
    """The verdict at a level.

    Args:
        level: Which.
        levels: All of them, which share the error.
        names: The engines.
        launches: In their order, each with whether it is of the second engine.
        most: Launches of each at the most.
        min_gain: A gain below this share is no difference.
    """
    terms = Terms(
        goals=level.goals,
        limits=level.limits,
        most=most,
        alpha=ALPHA / (_DIRECTIONS * len(levels)),
        min_gain=min_gain,
        guard=None,  # what is better for one user may be worse for five: that is asked of each
    )
    second = [launch(record, terms.needed, candidate=of_second) for record, of_second in launches]
    first = [ProofLaunch(not each.candidate, each.numbers, each.died) for each in second]
    return LevelVerdict(level, names, decide(first, terms), decide(second, terms), min_gain)


def metrics_of(level: ConcurrencyLevel, *, last: bool) -> list[str]:
    """What a table shows of a level: its goals, and what users feel."""
    stage = CONCURRENT if last else level.name
    felt = (("output_tokens_per_s", None), ("ttft_ms", 50.0), ("tpot_ms", 50.0))
    names = (MetricName(QUANTITIES[name], percent, stage).text for name, percent in felt)
    return list(dict.fromkeys([*level.goals, *names]))


def _level(name: str, values: Sequence[float]) -> str:
    """The geometric mean of some launches: ``190 [181, 199] tokens/s``."""
    if not values:
        return ""
    known = level_of(values)
    unit = words.metric(name).unit
    low, high = known.bounds(_TAIL)
    ends = f" [{words.digits(exp(low))}, {words.digits(exp(high))}]" if known.noise is not None and high < 50 else ""
    return f"{words.digits(exp(known.center))}{ends} {unit}"


def _changed(name: str, effect: Effect) -> str:
    """A metric's change with its interval, without its level."""
    return f"{plain(name)}{verdict.changed(name, effect).removeprefix(words.metric(name).short)}"


def plain(name: str) -> str:
    """A metric's name without its level, which stands next to it in a table."""
    found = parse(name)
    return words.metric(MetricName(found.quantity, found.percent).text).short
