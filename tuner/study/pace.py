"""How long things take on this machine, by what they took so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from tuner.engines.base import Phase
from tuner.records.record import TrialRecord

if TYPE_CHECKING:
    from tuner.records.outcome import Outcome

_RECENT = 40
"""Launches that count: enough for a median, few enough to follow a search into faster or slower regions."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a launch is expected to take.

    Attributes:
        phases: Median seconds of each phase that was seen, over the launches that reached it.
        shares: Which share of the launches reached it; the others failed before.
    """

    phases: Mapping[Phase, float] = field(default_factory=dict)
    shares: Mapping[Phase, float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[TrialRecord]) -> "Pace":
        """The pace of the latest launches."""
        launched = islice((record for record in reversed(records) if record.launched), _RECENT)
        recent = [{span.phase: span.seconds for span in record.phases} for record in launched]
        took = {phase: [spans[phase] for spans in recent if phase in spans] for phase in Phase}
        seen = {phase: seconds for phase, seconds in took.items() if seconds}
        return cls(
            phases={phase: median(seconds) for phase, seconds in seen.items()},
            shares={phase: len(seconds) / len(recent) for phase, seconds in seen.items()},
        )

    def soaking(self, most_s: float) -> "Pace":
        """The pace of a launch that is soaked."""
        phase = Phase.SOAKING
        return Pace({**self.phases, phase: self.phases.get(phase, most_s)}, {**self.shares, phase: 1.0})

    @property
    def launch_s(self) -> float | None:
        """A whole launch, those that fail early counted as often as they happen; ``None`` before the first.

        A soak comes once in a study, and is none of it.
        """
        return self._without(Phase.SOAKING)

    @property
    def relaunch_s(self) -> float | None:
        """Likewise a relaunch of a proof, in which no settings are screened."""
        return self._without(Phase.SOAKING, Phase.SCREENING)

    def _without(self, *phases: Phase) -> float | None:
        usual = self.phases.keys() - set(phases)
        return sum(self.phases[phase] * self.shares[phase] for phase in usual) if usual else None

    def left_s(self, phase: Phase, elapsed_s: float) -> float | None:
        """What is left of a launch that has been in a phase for ``elapsed_s``."""
        if not self.phases:
            return None
        order = list(Phase)
        reached = self.shares.get(phase, 1.0)
        later = [p for p in self.phases if order.index(p) > order.index(phase)]
        coming = sum(self.phases[p] * min(1.0, self.shares[p] / reached) for p in later)
        return max(0.0, self.phases.get(phase, 0.0) - elapsed_s) + coming


def left_s(outcome: "Outcome") -> float | None:
    """How long the rest of a study takes, in seconds, relaunches included; ``None`` before its first launch."""
    pace, budget = Pace.of((*outcome.records, *outcome.relaunches)), outcome.config.budget
    launch_s, relaunch_s = pace.launch_s, pace.relaunch_s
    if launch_s is None or relaunch_s is None:
        return None
    limits_s = []
    if budget.trials:
        limits_s.append(max(0, budget.trials - outcome.config.reserve - len(outcome.launched)) * launch_s)
    if budget.hours:
        kept_s = outcome.config.reserve * relaunch_s + outcome.config.soak_s
        limits_s.append(max(0.0, budget.hours * 3600 - outcome.spent_s - kept_s))
    relaunches = max(0, outcome.config.reserve - len(outcome.confirmations))
    soak_s = 0.0 if any(proof.soak for proof in outcome.proofs) else outcome.config.soak_s
    return (0.0 if outcome.over else min(limits_s)) + relaunches * relaunch_s + soak_s
