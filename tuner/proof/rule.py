"""The rule of a proof: from launches made in turns to a decision, and whether another launch is worth its time.

One-sided error ``alpha`` for a false *better*, over all looks. A goal must be above zero by its interval; a limit is
kept only if its interval says so, each at its own ``alpha`` (all of them must hold, so nothing is shared:
intersection-union test, Berger 1982). Several goals share ``alpha`` (Bonferroni).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, isfinite, log, sqrt
from typing import ClassVar

from tuner.load.deciding import is_long_prompt
from tuner.load.naming import counted, symptom
from tuner.objective import Direction, Limit, direction
from tuner.proof.boundaries import levels, spent
from tuner.proof.decision import Bound, Decision, Effect, Kind
from tuner.proof.estimate import MOST, Estimate, Noise, Point, level, ratio, share

ALPHA = 0.0203
"""Spent on false wins. The promise is 2.5 %: nominal levels of t statistics err more often than they say, by a tenth
under normal noise and by a third on a machine of two speeds."""
_LATE = -5.5
"""Most of alpha is kept for the end, where most launches are (the shape of O'Brien and Fleming); for limits as well:
spent evenly, a limit that leaves 5 % of room at 3 % noise is shown in too few proofs."""
FIRST_LOOK = 3
"""Launches of each before anything is decided where the noise is known beforehand …"""
_KNOWN_WELL = 4.0
"""… with so many degrees of freedom …"""
FIRST_ALONE = 4
"""… and where it is known from these launches alone. Three of each fall into two groups by chance once in 64 where a
machine has two states, and then show no scatter at all."""
_HOPELESS = 0.01
"""A proof ends when the chance that it still shows a gain is below this, seen in a favourable light …"""
_POINTLESS = 0.2
"""… and the chance that it still shows that there is none worth a change is below this."""
_NOT_WORSE = 0.05
"""Share by which a goal that is not the better one may be worse at the most."""


@dataclass(frozen=True, slots=True)
class ProofLaunch:
    """One launch of a proof.

    Attributes:
        candidate: Whether of the candidate; else of the baseline.
        numbers: Every metric that it measured, as ``comparable`` has it; empty if it died.
        died: Why it gave no measurement.
    """

    candidate: bool
    numbers: Mapping[str, float]
    died: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What is to be shown.

    Attributes:
        goals: Direction by metric; the first one is what the verdict speaks of.
        limits: Limit by metric.
        most: Launches of each at the most.
        noise: What is known of the noise of a metric beforehand.
        alpha: One-sided error that this proof may spend.
        min_gain: A gain below this share is not worth a change.
        guard: By which share a metric without a limit may get worse; ``None`` for any.
        unguarded: Metrics that may get worse by more.
    """

    goals: Mapping[str, Direction]
    limits: Mapping[str, Limit]
    most: int = 8
    noise: Mapping[str, Noise] = field(default_factory=dict)
    alpha: float = ALPHA
    min_gain: float = 0.02
    guard: float | None = 0.25
    unguarded: frozenset[str] = frozenset()

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics without which a launch says nothing."""
        return (*self.goals, *self.limits)

    @property
    def first_look(self) -> int:
        """Launches of each before which nothing is decided."""
        return FIRST_LOOK if all(map(self._known_well, self.goals)) else FIRST_ALONE

    @property
    def looks(self) -> tuple[int, ...]:
        """Launches of each after which is looked."""
        return tuple(range(min(self.first_look, self.most), self.most + 1))

    def _known_well(self, name: str) -> bool:
        return name in self.noise and self.noise[name].dof >= _KNOWN_WELL


def decide(launches: Sequence[ProofLaunch], terms: Terms) -> Decision:
    """What the launches say.

    Args:
        launches: In the order in which they were made; only whole pairs (one of each) count.
        terms: What is to be shown.
    """
    return _Look(_pairs(launches), terms).decision()


def decide_once(launches: Sequence[ProofLaunch], terms: Terms) -> Decision:
    """What launches say that were not made in turns, such as those of today and one that was saved earlier.

    They may be of unequal numbers, and are looked at once. What changed between the two sides, a driver or the
    machine's load, is in no interval.

    Args:
        launches: One of each at least.
        terms: What is to be shown.
    """
    return _Once(launches, terms).decision()


def _pairs(launches: Sequence[ProofLaunch]) -> list[ProofLaunch]:
    """As many of each as there are of both."""
    whole = min(sum(each.candidate for each in launches), sum(not each.candidate for each in launches))
    seen = {True: 0, False: 0}
    kept = []
    for launch in launches:
        seen[launch.candidate] += 1
        if seen[launch.candidate] <= whole:
            kept.append(launch)
    return kept


@dataclass(frozen=True)
class _Look:
    """One look at whole pairs of launches."""

    launches: Sequence[ProofLaunch]
    terms: Terms
    in_turns: ClassVar[bool] = True

    @property
    def pairs(self) -> int:
        """Launches of each."""
        return len(self.launches) // 2

    @property
    def last(self) -> bool:
        """Whether there can be no other."""
        return self.pairs >= self.terms.most

    @property
    def tells(self) -> bool:
        """Whether there are launches enough to believe their scatter."""
        return self.pairs >= self.terms.first_look

    @property
    def dead(self) -> bool:
        """Whether the candidate died in a relaunch: it cannot win any more, however fast it is while it lives."""
        return any(launch.candidate and launch.died for launch in self.launches)

    def decision(self) -> Decision:
        """The decision."""
        goals = {name: self._effect(name, self._goal_level, way) for name, way in self.terms.goals.items()}
        limits = {name: self._bound(name, limit) for name, limit in self.terms.limits.items()}
        others = self._others()
        sacrificed = self._sacrificed(others)
        kind = self._kind(goals, limits, sacrificed)
        over = self._over(kind, goals, limits)
        return Decision(
            kind=kind,
            goals=goals,
            limits=limits,
            others=others,
            sacrificed=sacrificed,
            launches=self.pairs,
            over=over,
            died=tuple(launch.died for launch in self.launches if launch.died),
            too_few=not self.tells,
            spent=self._spent(over),
        )

    def _spent(self, over: bool) -> float:
        """How much of alpha is gone.

        A proof that ends for what was measured has used up all of it: one given up as hopeless would not have won
        later either, so that the error of its later looks is not saved. Only a death, which no measurement foretells,
        and an end before the first look leave something.
        """
        if not self.tells:
            return 0.0
        if over and not self.dead:
            return self.terms.alpha
        return spent(self.terms.alpha, min(1.0, self.pairs / self.terms.most), _LATE)

    def _kind(self, goals: Mapping[str, Effect], limits: Mapping[str, Bound], sacrificed: Sequence[str]) -> Kind:
        if self.dead:
            return Kind.NOT_DECIDED
        if self._better(goals):
            held = all(bound.kept for bound in limits.values()) and not sacrificed
            return Kind.BETTER if held else Kind.LIMIT_NOT_SHOWN
        if self.tells and all(effect.high < self.terms.min_gain for effect in goals.values()):
            return Kind.NO_DIFFERENCE
        return Kind.NOT_DECIDED

    def _better(self, goals: Mapping[str, Effect]) -> bool:
        """One goal better beyond doubt, and none of the others worse by more than a little, beyond doubt as well."""
        if not self.tells:
            return False
        better = any(effect.better for effect in goals.values())
        return better and all(effect.better or effect.low > -_NOT_WORSE for effect in goals.values())

    def _over(self, kind: Kind, goals: Mapping[str, Effect], limits: Mapping[str, Bound]) -> bool:
        """Whether another launch is not worth its time."""
        if self.dead or self.last or kind in (Kind.BETTER, Kind.NO_DIFFERENCE):
            return True
        if any(bound.broken for bound in limits.values()):
            return True
        return self.tells and not any(map(self._hopeful, goals))

    def _hopeful(self, name: str) -> bool:
        """Whether further launches can still show a gain, or that there is none worth a change."""
        estimate = self._ratio(name)
        if estimate is None or not 0 < estimate.error < inf:
            return True
        sign = 1 if self.terms.goals[name] == "maximize" else -1
        z = sign * estimate.center / estimate.error
        short = log(1 + self.terms.min_gain) / estimate.error - z
        return self._power(z, favour=1.0) >= _HOPELESS or self._power(short, favour=0.0) >= _POINTLESS

    def _power(self, z: float, favour: float) -> float:
        """The chance that a statistic that reads ``z`` now is beyond its bound in the end.

        Conditional power after Lan, Simon and Halperin (Sequential Analysis 1, 1982), the truth being ``favour``
        standard errors better than it reads.
        """
        from scipy.special import ndtr, ndtri

        seen = self.pairs / self.terms.most
        final = -float(ndtri(self._levels(self._goal_alpha)[-1]))
        slope = (z + favour) / sqrt(seen)  # of the statistic per share of the launches
        return float(ndtr((z * sqrt(seen) + slope * (1 - seen) - final) / sqrt(1 - seen)))

    # intervals

    @property
    def _goal_alpha(self) -> float:
        return self.terms.alpha / len(self.terms.goals)

    @property
    def _goal_level(self) -> float:
        return self._level(self._goal_alpha)

    def _levels(self, alpha: float) -> tuple[float, ...]:
        return levels(alpha, self.terms.looks, _LATE)

    def _level(self, alpha: float) -> float:
        """The nominal level of this look; that of the first before there is one."""
        first = self.terms.looks[0]
        at = self._levels(alpha)
        return at[min(max(self.pairs, first), self.terms.most) - first]

    def _points(self, name: str) -> list[Point]:
        points = ((launch.candidate, launch.numbers.get(name)) for launch in self.launches)
        return [Point(of, value) for of, value in points if value is not None and isfinite(value) and value > 0]

    def _ratio(self, name: str) -> Estimate | None:
        points = self._points(name)
        if len({point.candidate for point in points}) < 2:
            return None
        return ratio(points, self.terms.noise.get(name), in_turns=self.in_turns)

    def _effect(self, name: str, at: float, way: Direction) -> Effect:
        points, estimate = self._points(name), self._ratio(name)
        baseline = tuple(point.value for point in points if not point.candidate)
        candidate = tuple(point.value for point in points if point.candidate)
        if estimate is None:
            return Effect(gain=0.0, low=-MOST, high=MOST, baseline=baseline, candidate=candidate)
        higher = way == "maximize"
        ends = sorted(share(end, better_if_higher=higher) for end in estimate.bounds(at))
        return Effect(
            gain=share(estimate.center, better_if_higher=higher),
            low=ends[0],
            high=ends[1],
            baseline=baseline,
            candidate=candidate,
            noise=estimate.noise,
        )

    def _bound(self, name: str, limit: Limit) -> Bound:
        """A limit whose metric was not measured in every launch of both is not kept."""
        estimate, factor = self._limited(name, limit.on(name))
        upper = limit.max is not None
        if estimate is None or factor <= 0:
            return Bound(value=1.0, low=0.0, high=1 + MOST, kept=False, broken=False, upper=upper)
        low, high = estimate.bounds(self._level(self.terms.alpha))
        offset = log(factor)
        missing = len(self._points(name)) < len(self.launches)
        return Bound(
            value=_cut(estimate.center - offset),
            low=_cut(low - offset),
            high=_cut(high - offset),
            kept=not missing and (high < offset if upper else low > offset),
            broken=self.pairs >= FIRST_LOOK and (low > offset if upper else high < offset),
            upper=upper,
        )

    def _limited(self, name: str, limit: Limit) -> tuple[Estimate | None, float]:
        factor = limit.bound
        if limit.of == "baseline":
            return self._ratio(name), factor
        values = [point.value for point in self._points(name) if point.candidate]
        return (level(values, self.terms.noise.get(name)) if values else None), factor

    # what nobody named

    def _others(self) -> dict[str, Effect]:
        every = dict.fromkeys(name for launch in self.launches for name in launch.numbers)
        names = [name for name in every if name not in self.terms.goals and not counted(name)]
        at = self._goal_level
        effects = ((name, way, self._effect(name, at, way)) for name in names if (way := direction(name)))
        return {name: effect for name, _, effect in effects if effect.baseline and effect.candidate}

    def _sacrificed(self, others: Mapping[str, Effect]) -> tuple[str, ...]:
        guard = self.terms.guard
        if guard is None:
            return ()
        return (*self._lost(), *self._shrunk(others, guard))

    def _lost(self) -> Iterator[str]:
        """Prompt lengths that the baseline takes and the candidate has no room for."""
        taken = {of: [launch.numbers for launch in self.launches if launch.candidate is of] for of in (True, False)}
        for name in dict.fromkeys(name for numbers in taken[False] for name in numbers if is_long_prompt(name)):
            if name not in self.terms.unguarded and not any(name in numbers for numbers in taken[True]):
                yield name

    def _shrunk(self, others: Mapping[str, Effect], guard: float) -> tuple[str, ...]:
        return tuple(
            name
            for name, effect in others.items()
            if name not in self.terms.limits
            and name not in self.terms.unguarded
            and not symptom(name)
            and effect.worse
            and effect.gain < -guard
        )


@dataclass(frozen=True)
class _Once(_Look):
    """The only look, at all launches: the whole error may be spent on it."""

    in_turns: ClassVar[bool] = False

    @property
    def pairs(self) -> int:
        """Launches of whichever has more."""
        of_candidate = sum(launch.candidate for launch in self.launches)
        return max(of_candidate, len(self.launches) - of_candidate)

    @property
    def last(self) -> bool:
        """There is no other."""
        return True

    @property
    def tells(self) -> bool:
        """There will be no more to tell."""
        return True

    def _level(self, alpha: float) -> float:
        return alpha


def _cut(log_value: float) -> float:
    return min(exp(min(log_value, 50.0)), 1 + MOST) if log_value > -inf else 0.0
