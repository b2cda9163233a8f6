"""Whether a stretch of real traffic is like that of the proof, and whether the server does then what was proven.

Users' traffic is no experiment: only what is comparable is compared. A histogram tells between which bounds a median
lies, so that a server is called slower only where the whole bucket is beyond what was proven and a margin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tuner.export.profile import Profile
from tuner.load.workload import Workload
from tuner.schema import Schema
from tuner.watch.probing import ProbeResult
from tuner.watch.stretch import MedianBucket, Stretch
from tuner.words import digits, metric

_ALIKE = 1.5
"""Mean lengths and users within this factor of the proof's are the proof's traffic."""
_ALONE_METRIC = "tpot_p50_ms"
_MARGIN = 1.25
"""So much slower than its launches in the proof a median may be: they differ among themselves, and no two hours of
users are alike."""
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


@dataclass(frozen=True, slots=True)
class ProofFigures:
    """What a profile promised, and under which traffic.

    Attributes:
        medians_ms: Time to first token and gap between tokens, by metric: the mean of the winner's launches.
        prompt_tokens: Of the mean request of the proof. Likewise the next.
        output_tokens: Generated.
        users: At once; ``None`` where they came on schedule.
        alone_ms: Time per token of a user alone; ``None`` where the proof does not tell.
    """

    medians_ms: tuple[tuple[str, float], ...]
    prompt_tokens: float
    output_tokens: float
    users: int | None
    alone_ms: float | None = None

    @classmethod
    def of(cls, profile: Profile, workload: Workload) -> "ProofFigures":
        """A profile's, proven under this workload."""
        prompt, output = workload.typical
        known = {name: each.winner.mean for name, each in profile.measured.items()}
        medians = tuple((name, known[name]) for name in ("ttft_p50_ms", "itl_p50_ms") if name in known)
        return cls(medians, prompt, output, workload.closed_users, known.get(_ALONE_METRIC))

    @property
    def text(self) -> str:
        """What was proven, in a line."""
        medians = (f"{_named(name)} {digits(ms)} ms" for name, ms in self.medians_ms)
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
        if probe.tpot_p50_ms <= self.alone_ms * _MARGIN:
            return Judgement(state=WatchState.HOLDS)
        why = f"{_named(_ALONE_METRIC)} of a probe {digits(probe.tpot_p50_ms)} ms for {digits(self.alone_ms)} ms"
        return Judgement(state=WatchState.SLOWER, why=(why,))

    def _of_users(self, stretch: Stretch) -> Judgement:
        if (stretch.answered or 0) < _FEWEST:
            return Judgement(state=WatchState.IDLE)
        if others := tuple(self._others(stretch)):
            return Judgement(state=WatchState.OTHER_TRAFFIC, why=others)
        slower = tuple(self._slower(stretch))
        return Judgement(state=WatchState.SLOWER if slower else WatchState.HOLDS, why=slower)

    def _others(self, stretch: Stretch) -> Iterator[str]:
        """In what the traffic differs from the proof's."""
        sides = (
            ("prompt tokens", stretch.prompt_tokens, self.prompt_tokens),
            ("output tokens", stretch.output_tokens, self.output_tokens),
            ("requests at once", stretch.users, self.users),
        )
        for what, seen, proven in sides:
            if seen is not None and proven and not proven / _ALIKE <= seen <= proven * _ALIKE:
                yield f"{digits(seen)} {what} for {digits(proven)}"

    def _slower(self, stretch: Stretch) -> Iterator[str]:
        seen: dict[str, MedianBucket | None] = {"ttft_p50_ms": stretch.ttft_p50, "itl_p50_ms": stretch.itl_p50}
        for name, proven_ms in self.medians_ms:
            bucket = seen[name]
            if bucket and bucket.low_ms > proven_ms * _MARGIN:
                yield f"{_named(name)} at least {digits(bucket.low_ms)} ms for {digits(proven_ms)} ms"


def _named(name: str) -> str:
    return metric(name).short
