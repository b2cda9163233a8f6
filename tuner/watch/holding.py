"""Whether a stretch of real traffic is like that of the proof, and whether the server does then what was proven.

Users' traffic is no experiment: only what is comparable is compared. A histogram tells between which bounds a median
lies, so that a server is called slower only where the whole bucket is beyond what was proven and a margin.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.export.profile import Profile
from tuner.load.workload import Workload
from tuner.schema import Schema
from tuner.watch.probing import ProbeResult
from tuner.watch.proven import MeanTpot
from tuner.watch.scatter import margin
from tuner.watch.stretch import MedianBucket, Stretch
from tuner.words import digits, metric

_ALIKE = 1.5
"""Mean lengths and users within this factor of the proof's are the proof's traffic."""
_ALONE_METRIC = "tpot_p50_ms"
_MARGIN = 0.25
"""So much slower than its launches in the proof a median may be: they differ among themselves, and no two hours of
users are alike. More where its own launches differ by more."""
_MEAN_MARGIN = 0.12
"""Likewise of a mean over thousands of tokens, which no bucket blurs."""
_MEAN = "mean"
_BUSIER = 1.1
"""With so many times the proof's load, or more, a stretch that is slower speaks of its load."""
_ALONE = 0.5
"""Fewer requests at once than this, in the mean, hardly slow a probe down."""
_FEWEST = 20
"""Requests that have to end within a stretch before their median says anything."""


class WatchState(StrEnum):
    """What a stretch says of the proof."""

    IDLE = "idle"
    """Too few requests ended to say anything."""
    OTHER_TRAFFIC = "other traffic"
    """They were not those of the proof."""
    HOLDS = "holds"
    """Nothing is slower than was proven, beyond the margin."""
    SLOWER = "slower"
    """Something is."""


class Judgement(Schema):
    """A stretch, and what it says."""

    state: WatchState
    why: tuple[str, ...] = ()
    """In what the traffic is another, or what is slower."""
    slower_by: float = 0.0
    """Of what is slower, the largest share; 0 where nothing is."""


@dataclass(frozen=True, slots=True)
class ProofFigures:
    """What a profile promised, and under which traffic.

    Attributes:
        medians_ms: Time to first token and gap between tokens, by metric: the mean of the winner's launches.
        prompt_tokens: Of the mean request of the proof. Likewise the next.
        output_tokens: Generated.
        users: At once; ``None`` where they came on schedule.
        alone_ms: Time per token of a user alone; ``None`` where the proof does not tell.
        per_s: Requests answered in a second.
        tpot_ms: All gaps over all tokens but the first ones; ``None`` where the study's requests are not at hand.
        margins: By which share one more launch may be slower, by metric; that mean's is called ``mean``.
    """

    medians_ms: tuple[tuple[str, float], ...]
    prompt_tokens: float
    output_tokens: float
    users: int | None
    alone_ms: float | None = None
    per_s: float | None = None
    tpot_ms: float | None = None
    margins: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, workload: Workload, mean: MeanTpot | None = None) -> "ProofFigures":
        """A profile's, proven under this workload."""
        prompt, output = workload.typical
        known = {name: each.winner.mean for name, each in profile.measured.items()}
        medians = tuple((name, known[name]) for name in ("ttft_p50_ms", "itl_p50_ms") if name in known)
        users, per_s = workload.closed_users, known.get("requests_per_s")
        tpot_ms = mean.ms if mean else None
        return cls(medians, prompt, output, users, known.get(_ALONE_METRIC), per_s, tpot_ms, _margins(profile, mean))

    @property
    def text(self) -> str:
        """What was proven, in a line."""
        medians = [f"{_named(name)} {digits(ms)} ms" for name, ms in self.medians_ms]
        medians += [f"TPOT {digits(self.tpot_ms)} ms in the mean"] if self.tpot_ms else []
        users = f", {self.users} at once" if self.users else ""
        lengths = f"{self.prompt_tokens:,.0f} prompt and {self.output_tokens:,.0f} output tokens"
        return f"{', '.join(medians)} for {lengths}{users}"

    def judge(self, stretch: Stretch, probe: ProbeResult | None = None) -> Judgement:
        """What a stretch says, and the probe at its end if there was one."""
        users = self._of_users(stretch)
        probed = self._of_probe(stretch, probe)
        if probed is None or users.state is WatchState.SLOWER:
            return users
        if probed.state is WatchState.SLOWER or users.state is WatchState.IDLE:
            return probed
        return users

    def _of_probe(self, stretch: Stretch, probe: ProbeResult | None) -> Judgement | None:
        """What a probe says that had the server to itself; ``None`` if it says nothing."""
        quiet = stretch.users is None or stretch.users < _ALONE
        if probe is None or probe.tpot_p50_ms is None or self.alone_ms is None or not quiet:
            return None
        if probe.tpot_p50_ms <= self.alone_ms * self._allowed(_ALONE_METRIC):
            return Judgement(state=WatchState.HOLDS)
        why = f"{_named(_ALONE_METRIC)} of a probe {digits(probe.tpot_p50_ms)} ms for {digits(self.alone_ms)} ms"
        return Judgement(state=WatchState.SLOWER, why=(why,), slower_by=probe.tpot_p50_ms / self.alone_ms - 1)

    def _of_users(self, stretch: Stretch) -> Judgement:
        if (stretch.answered or 0) < _FEWEST:
            return Judgement(state=WatchState.IDLE)
        if others := tuple(self._others(stretch)):
            return Judgement(state=WatchState.OTHER_TRAFFIC, why=others)
        slower = dict(self._slower(stretch))
        if slower and (busier := tuple(self._others(stretch, at_most=_BUSIER))):
            return Judgement(state=WatchState.OTHER_TRAFFIC, why=busier)
        state = WatchState.SLOWER if slower else WatchState.HOLDS
        return Judgement(state=state, why=tuple(slower), slower_by=max(slower.values(), default=0.0))

    def _others(self, stretch: Stretch, at_most: float = _ALIKE) -> Iterator[str]:
        """In what the traffic differs from the proof's."""
        lengths = (
            ("prompt tokens", stretch.prompt_tokens, self.prompt_tokens),
            ("output tokens", stretch.output_tokens, self.output_tokens),
        )
        yield from (_said(*side) for side in lengths if _differs(side[1], side[2], _ALIKE))
        yield from self._other_load(stretch, at_most)

    def _other_load(self, stretch: Stretch, at_most: float) -> Iterator[str]:
        """In both of what a load is known by, where both are known.

        A server that is slower has more requests at once if they keep coming, and fewer of them come if its users wait
        for it: neither makes the traffic another.
        """
        per_s = None if stretch.arrived is None else stretch.arrived / stretch.seconds
        sides = (("requests at once", stretch.users, self.users), ("requests a second", per_s, self.per_s))
        known = [side for side in sides if side[1] is not None and side[2]]
        if all(_differs(side[1], side[2], at_most) for side in known):
            yield from (_said(*side) for side in known)

    def _slower(self, stretch: Stretch) -> Iterator[tuple[str, float]]:
        """What is slower than was proven, beyond its margin, and by which share at least."""
        seen: dict[str, MedianBucket | None] = {"ttft_p50_ms": stretch.ttft_p50, "itl_p50_ms": stretch.itl_p50}
        for name, proven_ms in self.medians_ms:
            bucket = seen[name]
            if bucket and bucket.low_ms > proven_ms * self._allowed(name):
                said = f"{_named(name)} at least {digits(bucket.low_ms)} ms for {digits(proven_ms)} ms"
                yield said, bucket.low_ms / proven_ms - 1
        if stretch.tpot_ms and self.tpot_ms and stretch.tpot_ms > self.tpot_ms * self._allowed(_MEAN):
            said = f"TPOT {digits(stretch.tpot_ms)} ms in the mean for {digits(self.tpot_ms)} ms"
            yield said, stretch.tpot_ms / self.tpot_ms - 1

    def _allowed(self, name: str) -> float:
        """How many times what was proven a metric may be."""
        return 1 + max(_MEAN_MARGIN if name == _MEAN else _MARGIN, self.margins.get(name, 0.0))


def _margins(profile: Profile, mean: MeanTpot | None) -> Mapping[str, float]:
    """From what the proof's launches differ by, in each metric itself."""
    effects = {name: profile.verdict.decision.effect(name) for name in ("ttft_p50_ms", "itl_p50_ms", _ALONE_METRIC)}
    launches = {name: (each.candidate, each.baseline) for name, each in effects.items() if each}
    launches |= {_MEAN: (mean.winner, mean.baseline)} if mean else {}
    return {name: margin(*both) for name, both in launches.items()}


def _named(name: str) -> str:
    return metric(name).short


def _differs(seen: float | None, proven: float | None, at_most: float) -> bool:
    return seen is not None and bool(proven) and not (proven or 0) / _ALIKE <= seen <= (proven or 0) * at_most


def _said(what: str, seen: float | None, proven: float | None) -> str:
    return f"{digits(seen or 0)} {what} for {digits(proven or 0)}"
