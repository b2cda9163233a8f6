"""What a study has found, read from its folder: the same for the closing table, the report and the profile."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from tuner import config, words
from tuner.compare import Comparison, compare
from tuner.config import Config
from tuner.objective import Objective, metric
from tuner.pace import Pace
from tuner.storage import Role, State, StudyFolder, TrialRecord

SEARCHED = (Role.BASELINE, Role.KNOWN_GOOD, Role.SEARCH, Role.REPAIR)
"""Roles of the trials that count against the budget and that the search learns from."""


def named(role: Role, number: int) -> str:
    """A launch as people tell it from others: relaunches are counted on their own."""
    return f"{'trial' if role in SEARCHED else 'relaunch'} {number}"


@dataclass(frozen=True)
class Outcome:
    """A study's result, so far or at its end.

    Attributes:
        folder: Where it lies.
        config: What it was asked.
        records: Its trials by number, failed attempts included.
        relaunches: Baseline and best, launched again at the end, failed attempts included.
    """

    folder: StudyFolder
    config: Config
    records: tuple[TrialRecord, ...]
    relaunches: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, folder: StudyFolder) -> "Outcome":
        """The outcome of the study in a folder.

        Raises:
            ConfigError: The folder holds no study that this version of tuner can read.
        """
        return cls(folder, config.read(folder.config), tuple(folder.records()), tuple(folder.confirmations()))

    @cached_property
    def deployed(self) -> Mapping[str, JsonValue]:
        """What the deployment sets of each parameter, whether it acts there or not."""
        return self.config.space.set_by(self.config.model.settings)

    @property
    def searched(self) -> list[TrialRecord]:
        """Trials that ended with a verdict of their own: measured, or pruned with a cause."""
        return [r for r in self.records if r.role in SEARCHED and r.state is not State.FAILED]

    @property
    def launched(self) -> list[TrialRecord]:
        """Those for which a server was started: only they count against the budget."""
        return [record for record in self.searched if record.launched]

    @property
    def ruled_out(self) -> list[TrialRecord]:
        """Those that were pruned before any launch."""
        return [record for record in self.searched if not record.launched]

    @property
    def baseline(self) -> TrialRecord | None:
        """The deployment as it stands, once it has been measured."""
        return next((record for record in self.records if record.role is Role.BASELINE and record.measurement), None)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that meets all limits; the baseline if nothing beats it."""
        return best_of(self.searched, self.config.objective, self.baseline)

    @property
    def improved(self) -> bool:
        """Whether the search has found something better than the baseline, proven or not."""
        return self.best is not None and self.best.role is not Role.BASELINE

    @property
    def confirmations(self) -> list[TrialRecord]:
        """The relaunches of today's finalists that ended with a verdict of their own."""
        finalists = {record.digest for record in (self.baseline, self.best) if record}
        return [r for r in self.relaunches if r.digest in finalists and r.state is not State.FAILED]

    @property
    def comparison(self) -> Comparison | None:
        """Baseline against best in their relaunches; ``None`` before there are any."""
        return compare(self.config.objective, self.confirmations)

    @property
    def proven(self) -> bool:
        """Whether the best beats the baseline beyond the spread of the relaunches."""
        return self.improved and self.comparison is not None and self.comparison.proven

    @property
    def causes(self) -> Counter[str]:
        """How many trials were pruned, by cause."""
        return Counter(r.failure.cause for r in self.searched if r.failure)

    @property
    def over(self) -> bool:
        """Whether the budget is used up, or the space; never before the baseline that its limits need is measured."""
        budget = self.config.budget
        if self.config.objective.needs_baseline and self.baseline is None:
            return False
        if self.folder.exhausted.exists():
            return True
        if budget.trials is not None and len(self.launched) >= budget.trials:
            return True
        return budget.hours is not None and self._committed_s >= budget.hours * 3600

    @property
    def _committed_s(self) -> float:
        """What the search took, and what it will take to launch baseline and best again, in seconds."""
        relaunches = 2 * self.config.study.confirm if self.improved else 0
        return sum(record.seconds for record in self.records) + relaunches * (Pace.of(self.records).launch_s or 0.0)

    @property
    def confirmed(self) -> bool:
        """Whether every relaunch that the study owes has been made; none where there is nothing to compare with."""
        if not self.improved or self.best is None or self.baseline is None:
            return True
        made = Counter(record.role for record in self.confirmations)
        return all(made[role] >= self.config.study.confirm for role in (Role.CONFIRM_BASELINE, Role.CONFIRM_BEST))

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.searched:
            return "Nothing has been tried yet."
        if self.best is None:
            return f"No configuration could be used: {self._why_nothing()}."
        if self.baseline is None:
            return (
                f"The deployed configuration does not run here; trial {self.best.number} is the best of those that do."
            )
        if not self.improved:
            return self._unbeaten
        if self.comparison is None:
            return f"Trial {self.best.number} reads better than the baseline, but has not been measured again."
        return self._compared(self.best, self.comparison)

    @property
    def _unbeaten(self) -> str:
        if self.baseline is not None and len(self.searched) == 1:
            return "Nothing but the deployed configuration has been tried."
        if not self.over:
            return "So far the deployed configuration has not been beaten."
        return "The deployed configuration could not be beaten: keep it."

    def _compared(self, best: TrialRecord, comparison: Comparison) -> str:
        if comparison.failures:
            return (
                f"Unproven: trial {best.number} did not survive its relaunches ({comparison.failures[0]}); keep yours."
            )
        gains = "; ".join(self.changed(name) for name in comparison.goals)
        if comparison.missed_limits:
            missed = ", ".join(f"the limit on {words.metric(name).short}" for name in comparison.missed_limits)
            return f"Unproven: trial {best.number} misses {missed} when launched again; keep yours."
        if any(goal.spread is None for goal in comparison.goals.values()):
            once = "once each, which shows no spread (study.confirm=2 does)"
            return f"Unproven: trial {best.number} and the baseline were launched again {once}: {gains}; keep yours."
        if comparison.proven:
            return f"Trial {best.number} beats the deployed configuration: {gains}."
        return (
            f"Unproven: trial {best.number} differs from the baseline by no more than its spread: {gains}; keep yours."
        )

    @property
    def failed_requests(self) -> list[str]:
        """Requests of baseline and best that failed: few enough for a measurement, too many to be passed over."""
        told = []
        for record in (self.baseline, self.best if self.improved else None):
            if record and record.measurement and (failed := record.measurement.failed):
                kinds, of = ", ".join(record.measurement.failures), failed + record.measurement.completed
                told.append(f"{failed} of {of} in trial {record.number} ({kinds}); its requests.jsonl says why")
        return told

    @property
    def spoiled(self) -> list[str]:
        """Stages of the finalists that count although the server was busy with itself in all of their turns."""
        finalists = [record for record in (self.baseline, self.best if self.improved else None) if record]
        return [
            f"{each.stage} of {named(record.role, record.number)}: the server compiled kernels in every turn of it"
            for record in (*finalists, *self.confirmations)
            for each in record.spoiled
            if each.counts
        ]

    def changed(self, name: str) -> str:
        """By how much a goal's metric changed from the baseline's relaunches to the best's, and their spread.

        The change is as it is: less of a latency reads ``TPOT p50 −18.8%, spread 0.6%``.

        Raises:
            ValueError: Nothing has been launched again.
        """
        if self.comparison is None:
            raise ValueError("nothing has been launched again")
        goal = self.comparison.goals[name]
        change = goal.gain if self.config.objective.goals[name] == "maximize" else -goal.gain
        spread = "unknown" if goal.spread is None else words.percent(goal.spread)
        return f"{words.metric(name).short} {words.percent(change, sign=True)}, spread {spread}"

    def _why_nothing(self) -> str:
        missed = Counter(
            name
            for record in self.searched
            if record.verdict
            for name, violation in record.verdict.violations.items()
            if violation > 0
        )
        reasons = [f"{count} × {words.cause(cause)}" for cause, count in self.causes.most_common()]
        reasons += [f"{count} × {words.metric(name).short} beyond its limit" for name, count in missed.most_common()]
        return ", ".join(reasons) or "none was measured"


def best_of(records: Sequence[TrialRecord], objective: Objective, baseline: TrialRecord | None) -> TrialRecord | None:
    """The feasible record with the largest gain over the baseline, all goals added up."""
    feasible = [record for record in records if record.feasible]
    reference = baseline or next(iter(feasible), None)
    if reference is None or reference.measurement is None:
        return None
    origin = tuple(metric(reference.measurement, name) for name in objective.goals)
    return max(feasible, key=lambda r: sum(objective.gains(r.verdict.values, origin)) if r.verdict else 0, default=None)
