"""What a study has found, read from its folder: the same for the closing table, the report and the profile."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from pydantic import JsonValue

from tuner import composing
from tuner.config import Config
from tuner.load.metrics import Measurement
from tuner.load.records import DisturbedStage
from tuner.proof.decision import Decision, Kind
from tuner.records.compare import Proof, alpha_left, proofs
from tuner.records.folder import StudyFolder
from tuner.records.readings import Readings
from tuner.records.record import SEARCHED, ProofTerms, Role, State, TrialRecord
from tuner.records.tally import Tally
from tuner.space import Candidate

_WEIGHT = {Kind.BETTER: 0, Kind.LIMIT_NOT_SHOWN: 1}
"""Which of several proofs the verdict is about: the strongest, else the first."""
_LEAST_PAIRS = 4
"""Launches of each that a further proof needs to have any chance."""


def named(role: Role, number: int) -> str:
    """A launch as people tell it from others: relaunches are counted on their own."""
    return f"{'trial' if role in SEARCHED else 'relaunch'} {number}"


@dataclass(frozen=True)
class Outcome:
    """A study's result, so far or at its end.

    Attributes:
        folder: Where it is.
        config: What it was asked.
        records: Its trials by number, failed attempts included.
        relaunches: Baseline and finalists, launched again for the proof, failed attempts included.
        earlier_readings: Those of an earlier look at the same study, to begin from.
        earlier_tally: Likewise.
    """

    folder: StudyFolder
    config: Config
    records: tuple[TrialRecord, ...]
    relaunches: tuple[TrialRecord, ...]
    earlier_readings: Readings | None = field(default=None, repr=False, compare=False)
    earlier_tally: Tally = field(default=Tally(), repr=False, compare=False)

    @classmethod
    def of(cls, folder: StudyFolder) -> "Outcome":
        """The outcome of the study in a folder.

        Raises:
            ConfigError: The folder holds no study that this version of tuner can read.
        """
        return cls(folder, composing.read(folder.config), tuple(folder.records()), tuple(folder.confirmations()))

    def now(self) -> "Outcome":
        """The outcome with what was saved in the meantime; itself if nothing was, with all that it has worked out."""
        saved = tuple(self.folder.records()), tuple(self.folder.confirmations())
        if saved == (self.records, self.relaunches):
            return self
        return Outcome(self.folder, self.config, *saved, earlier_readings=self.readings, earlier_tally=self.tally)

    @cached_property
    def deployed(self) -> Mapping[str, JsonValue]:
        """What the deployment sets of each parameter, whether it acts there or not."""
        return self.config.space.set_by(self.config.model.settings)

    # the search

    @cached_property
    def tally(self) -> Tally:
        """The trials, sorted and counted."""
        return self.earlier_tally.grown(self.records)

    @property
    def searched(self) -> Sequence[TrialRecord]:
        """Trials that ended with a verdict of their own: measured, or pruned with a cause."""
        return self.tally.searched

    @property
    def launched(self) -> Sequence[TrialRecord]:
        """Those for which a server was started: only they count against the budget."""
        return self.tally.launched

    @property
    def ruled_out(self) -> list[TrialRecord]:
        """Those that were pruned before any launch."""
        return [record for record in self.searched if not record.launched]

    @property
    def baseline(self) -> TrialRecord | None:
        """The deployment as it stands, once it has been measured."""
        return next((record for record in self.records if record.role is Role.BASELINE and record.measurement), None)

    @cached_property
    def readings(self) -> Readings:
        """What the launches say together of each configuration."""
        digest = self.baseline.digest if self.baseline else ""
        measured, earlier, objective = self.tally.measured, self.earlier_readings, self.config.objective
        if earlier and earlier.begins(objective, measured, digest):
            return earlier.grown(measured)
        return Readings(objective, measured, digest)

    @property
    def teaching(self) -> Sequence[TrialRecord]:
        """What a search learns from: its own trials, and the measured relaunches of proofs, as they ran."""
        return _in_order(self.searched, self._measured_again)

    @cached_property
    def all_readings(self) -> Readings:
        """What all launches say together, those of proofs among them; no verdict is drawn from it."""
        if not self._measured_again:
            return self.readings
        records = _in_order(self.readings.records, self._measured_again)
        return Readings(self.readings.objective, records, self.readings.deployed)

    @property
    def _measured_again(self) -> list[TrialRecord]:
        return [record for record in self.confirmations if record.measurement]

    def kept(self, record: TrialRecord) -> float:
        """The probability that a trial's configuration keeps every limit; 0 if it was not measured."""
        return self.readings.kept(record.digest) if record.measurement else 0.0

    def within(self, record: TrialRecord) -> bool:
        """Whether a trial's configuration rather keeps its limits than not."""
        return record.measurement is not None and self._likely(record)

    def _likely(self, record: TrialRecord) -> bool:
        if self.baseline is None and self.config.objective.needs_baseline:
            return False
        return self.readings.likely(record.digest)

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """One trial of each configuration that rather keeps its limits, the best first; the baseline among them."""
        return list(filter(self.within, self._by_worth))

    @property
    def _by_worth(self) -> Iterator[TrialRecord]:
        """The first measured trial of each configuration, the best first, whether it keeps its limits or not."""
        return self.readings.by_worth(self._origin)

    def _worth(self, record: TrialRecord) -> float:
        return self.readings.worth(record.digest, self._origin)

    @cached_property
    def _origin(self) -> str:
        """Whose goals a worth is a share of: the baseline's or, without one, those of the first trial of any use."""
        origin = self.baseline or next((r for r in self.searched if self.within(r)), None)
        return origin.digest if origin else ""

    @cached_property
    def best(self) -> TrialRecord | None:
        """The trial that the deciding proof is about; before there is one, the best that rather keeps its limits."""
        if self.proof and (proven := self._trial_of(self.proof.terms.winner or self.proof.terms.candidate)):
            return proven
        # not the first of `ranked`: how likely limits are kept is asked of few configurations only, after every trial
        return next(filter(self.within, self._by_worth), None)

    @property
    def chosen(self) -> Candidate | None:
        """The configuration that the verdict is about: the best trial's, or what its proof has kept of it."""
        if self.best is None:
            return None
        kept = self.reduced
        return self.plain(Candidate(self.best.params)) if kept is None else self.partly(self.best, kept)

    @property
    def reduced(self) -> tuple[str, ...] | None:
        """What is kept of the best trial's changes, by name; ``None`` if the verdict is about all of them."""
        about = self.best is not None and self.proof is not None and self.proof.terms.winner == self.best.digest
        return self.proof.terms.kept if about and self.proof else None

    def finalist(self, terms: ProofTerms) -> Candidate:
        """What is launched in a proof: a trial's configuration, or a part of its changes."""
        trial = self._trial_of(terms.winner or terms.candidate)
        assert trial is not None
        return self.partly(trial, terms.kept) if terms.winner else Candidate(trial.params)

    def partly(self, trial: TrialRecord, kept: Iterable[str]) -> Candidate:
        """The deployed configuration with some of a trial's changes."""
        values = {name: trial.params[name] for name in kept}
        return self.plain(self.config.space.candidate({**self.deployed, **values}))

    def plain(self, candidate: Candidate) -> Candidate:
        """Without settings that say what the engine does anyway."""
        return self.config.space.plain(candidate, self.deployed)

    def changes(self, trial: TrialRecord) -> dict[str, JsonValue]:
        """What a trial set otherwise than the deployment, by parameter."""
        return self.config.space.changes(trial.params, self.deployed)

    def _trial_of(self, digest: str) -> TrialRecord | None:
        return next((record for record in self.searched if record.digest == digest and record.measurement), None)

    @property
    def improved(self) -> bool:
        """Whether the search has found something better than the baseline, proven or not."""
        return self.best is not None and (self.baseline is None or self.best.digest != self.baseline.digest)

    @property
    def near_misses(self) -> list[TrialRecord]:
        """Trials that read better than the finalist, and beyond a limit by what noise may explain; the best first."""
        bar = self._worth(self.best) if self.best else float("-inf")
        near = [r for r in self.searched if r.measurement and self.baseline and self.readings.near(r.digest)]
        better = {record.digest: record for record in near if self._worth(record) > bar}
        return sorted(better.values(), key=self._worth, reverse=True)

    def is_near_miss(self, measurement: Measurement) -> bool:
        """Whether a first reading is better than the best so far, and beyond a limit by what noise may explain."""
        return self.readings.near_miss(measurement, self._worth(self.best) if self.best else 0.0)

    # the proof

    @cached_property
    def confirmations(self) -> list[TrialRecord]:
        """The relaunches that ended with a verdict of their own."""
        return [record for record in self.relaunches if record.state is not State.FAILED]

    @cached_property
    def proofs(self) -> tuple[Proof, ...]:
        """Every candidate that was launched again, in order."""
        if not self.confirmations:
            return ()
        objective = self.config.objective
        names = (*objective.goals, *objective.limits)
        noise = {name: known for name in names if (known := self.readings.scatter(name).noise)}
        return proofs(self.config, self.confirmations, noise)

    @property
    def proof(self) -> Proof | None:
        """The one that the verdict is about; ``None`` before there is any."""
        return min(self.proofs, key=lambda proof: _WEIGHT.get(proof.decision.kind, 2), default=None)

    @property
    def decision(self) -> Decision | None:
        """What the relaunches say."""
        return self.proof.decision if self.proof else None

    @property
    def proven(self) -> bool:
        """Whether the best beats the baseline, and keeps every limit, beyond doubt."""
        return self.decision is not None and self.decision.kind is Kind.BETTER

    @property
    def open_proof(self) -> Proof | None:
        """One that has begun and is not decided."""
        return next((proof for proof in self.proofs if not proof.decision.over), None)

    def soak_terms(self) -> ProofTerms | None:
        """Whose winner is to be soaked: nothing else is left to be proven, and it would be exported now."""
        if not self.config.soak_s or self.proof is None or self.proof.soak or self.open_proof or self.next_terms():
            return None
        shown = self.proof.decision.kind in (Kind.BETTER, Kind.LIMIT_NOT_SHOWN)
        return self.proof.terms if shown else None

    def next_terms(self) -> ProofTerms | None:
        """What the next proof would be about: the finalist, or a runner-up while error rate and launches are left."""
        if self.proven or self.baseline is None or not self.config.study.confirm.max:
            return None
        tried = {proof.terms.candidate for proof in self.proofs} | {self.baseline.digest}
        candidate = next((record for record in self.ranked if record.digest not in tried), None)
        alpha, most = alpha_left(self.proofs), self._pairs_left
        if candidate is None or self._worth(candidate) <= 0 or alpha is None or most < 1:
            return None
        if self.proofs and most < _LEAST_PAIRS:
            return None
        return ProofTerms(candidate=candidate.digest, alpha=alpha, most=most)

    @property
    def _pairs_left(self) -> int:
        """Launches of each that a further proof may make."""
        most, trials = self.config.study.confirm.max, self.config.budget.trials
        if not self.proofs:
            return most
        if trials is None:
            return 0
        soak = self.config.soak_s > 0
        return min(most, (trials - len(self.launched) - len(self.confirmations) - soak) // 2)

    @property
    def causes(self) -> Counter[str]:
        """How many trials were pruned, by cause."""
        return Counter(r.failure.cause for r in self.searched if r.failure)

    @cached_property
    def spent_s(self) -> float:
        """Server time so far, relaunches included."""
        return self.tally.spent_s + sum(record.seconds for record in self.relaunches)

    @property
    def over(self) -> bool:
        """Whether the search's share of the budget is used up, or the space; never before the baseline is measured."""
        budget, reserve = self.config.budget, self.config.reserve
        if self.config.objective.needs_baseline and self.baseline is None:
            return False
        if self.folder.exhausted.exists():
            return True
        if budget.trials is not None and len(self.launched) >= budget.trials - reserve:
            return True
        if budget.hours is None:
            return False
        launch_s = self.tally.launched_s / max(1, len(self.launched))
        return self.spent_s + reserve * launch_s + self.config.soak_s >= budget.hours * 3600

    @property
    def confirmed(self) -> bool:
        """Whether every relaunch that the study owes has been made; none where there is nothing to compare with."""
        return self.open_proof is None and self.next_terms() is None and self.soak_terms() is None

    # what is said

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        from tuner.records.verdict import sentence

        return sentence(self)

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
    def disturbed(self) -> list[str]:
        """Stages of the finalists that count although all of their turns were disturbed."""
        finalists = [record for record in (self.baseline, self.best if self.improved else None) if record]
        return [
            f"{each.stage} of {named(record.role, record.number)}: {_disturber(each)} in every turn of it"
            for record in (*finalists, *self.confirmations)
            for each in record.disturbed
            if each.counts
        ]

    @property
    def missed(self) -> Counter[str]:
        """How many measured trials are likelier beyond each limit than not."""
        measured = {record.digest for record in self.searched if record.measurement}
        return Counter(name for digest in measured for name in self.readings.misses(digest))


def _in_order(records: Sequence[TrialRecord], others: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """Both, as they ran."""
    return sorted([*records, *others], key=attrgetter("started_at")) if others else records


def _disturber(disturbed: DisturbedStage) -> str:
    return f"others used this machine ({disturbed.line})" if disturbed.by_others else "the server compiled kernels"
