"""How a study over engines stands, read from its folder and from those of its engines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tuner.config import NAME, Config
from tuner.contest.levels import ConcurrencyLevel, levels_of
from tuner.contest.sharing import Share, given_up, share_of, turn
from tuner.contest.verdicts import LevelVerdict, verdict_of
from tuner.errors import ConfigError
from tuner.proof.order import turns
from tuner.records.folder import StudyFolder, read_json
from tuner.records.outcome import Outcome
from tuner.records.record import State, TrialRecord
from tuner.schema import Stored
from tuner.space import Candidate


class ContestTerms(Stored):
    """What a study over engines was asked: ``engines.json`` in its folder."""

    schema_version: Literal[1] = 1
    engines: dict[str, Annotated[str, Field(pattern=NAME)]] = Field(min_length=2, max_length=2)
    """The study of each engine, by the engine; in the same folder as this one."""
    trials: int | None = None
    """Launches of both searches together."""
    hours: float | None = None
    """Wall-clock hours of all, the proof included."""
    confirm: int = Field(ge=1)
    """Launches of each in the proof, at the most."""
    searches: bool = True
    """Whether each is searched; else they are finished studies, whose winners are compared."""
    profiles: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """The parameters of what is launched, by the engine, where a profile names it."""


class Finalists(Stored):
    """Between which configurations the proof is, from its first launch on: ``finalists.json``."""

    schema_version: Literal[1] = 1
    digests: dict[str, str] = Field(default_factory=dict)
    """The configuration, by the engine."""
    most: int
    """Launches of each, at the most."""


@dataclass(frozen=True)
class ContestOutcome:
    """A study over engines, so far or at its end.

    Attributes:
        folder: Where it is.
        terms: What it was asked.
        outcomes: The study of each engine; ``None`` before it has begun.
        relaunches: The launches of the proof, failed attempts included.
        finalists: Between what it is; ``None`` before it has begun.
    """

    folder: StudyFolder
    terms: ContestTerms
    outcomes: Mapping[str, Outcome | None]
    relaunches: tuple[TrialRecord, ...]
    finalists: Finalists | None

    @classmethod
    def of(cls, path: Path) -> "ContestOutcome":
        """The one in a folder.

        Raises:
            ConfigError: It holds none that this version of tuner can read.
        """
        folder = StudyFolder(path)
        if not holds_contest(path):
            raise ConfigError(f"{path} holds no study over engines", fix="name a folder with an engines.json")
        terms = read_json(terms_path(path), ContestTerms)
        studies = {engine: StudyFolder(path.parent / study) for engine, study in terms.engines.items()}
        outcomes = {engine: Outcome.of(study) if study.config.exists() else None for engine, study in studies.items()}
        finalists = read_json(finalists_path(path), Finalists) if finalists_path(path).exists() else None
        return cls(folder, terms, outcomes, tuple(folder.confirmations()), finalists)

    @property
    def name(self) -> str:
        """The study's."""
        return self.folder.path.name

    @property
    def names(self) -> tuple[str, str]:
        """Both engines: in the proof the second is compared with the first."""
        first, second = self.terms.engines
        return first, second

    @property
    def config(self) -> Config | None:
        """Of whichever engine has begun; what is common to both can be read from it."""
        return next((outcome.config for outcome in self.outcomes.values() if outcome), None)

    @cached_property
    def levels(self) -> tuple[ConcurrencyLevel, ...]:
        """Where they are compared; none before anything has begun."""
        return levels_of(self.config.workload, self.config.objective) if self.config else ()

    # the search

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """How the engines stand in the common budget."""
        return tuple(share_of(name, outcome, self.levels) for name, outcome in self.outcomes.items())

    @property
    def given_up(self) -> dict[str, str]:
        """Engines that get, or got, no more launches while the other one did, each with why."""
        if not self.terms.searches:
            return {}
        most = max(share.launched for share in self.shares)
        behind = [share for share in self.shares if self.next_turn or share.launched < most]
        said = ((each.name, given_up(each, self.shares, self.levels, self.terms.trials)) for each in behind)
        return {name: why for name, why in said if why}

    @property
    def next_turn(self) -> str | None:
        """Whose launch is next; ``None`` once the searches are over."""
        if not self.terms.searches or self.finalists or self._out_of_time:
            return None
        return turn(self.shares, self.levels, self.terms.trials)

    @property
    def spent_s(self) -> float:
        """Server time so far."""
        return sum(each.spent_s for each in self.outcomes.values() if each) + sum(r.seconds for r in self.relaunches)

    @property
    def _out_of_time(self) -> bool:
        launched = sum(share.launched for share in self.shares)
        if self.terms.hours is None or not launched or any(each is None for each in self.outcomes.values()):
            return False
        kept_s = 2 * self.terms.confirm * self.spent_s / launched
        return self.spent_s + kept_s >= self.terms.hours * 3600

    def best(self, engine: str) -> TrialRecord | None:
        """The trial whose configuration stands for an engine: the best within its limits, as the objective has it.

        Of a finished study it is what its verdict says to deploy.
        """
        outcome = self.outcomes[engine]
        if outcome is None:
            return None
        if engine in self.terms.profiles:
            return self._measured(outcome, Candidate(self.terms.profiles[engine]).digest)
        if self.finalists is None:
            return outcome.best if outcome.proven or outcome.decision is None else outcome.baseline
        return self._measured(outcome, self.finalists.digests[engine])

    def _measured(self, outcome: Outcome, digest: str) -> TrialRecord | None:
        launches = (*outcome.searched, *outcome.confirmations)
        return next((each for each in launches if each.digest == digest and each.measurement), None)

    def candidate(self, engine: str) -> Candidate:
        """That configuration."""
        if engine in self.terms.profiles:
            return Candidate(self.terms.profiles[engine])
        best, own = self.best(engine), self.outcomes[engine]
        assert best is not None
        if own and own.best and own.reduced is not None and own.best.digest == best.digest:
            return own.partly(own.best, own.reduced)
        return Candidate(best.params)

    # the proof

    @cached_property
    def counted(self) -> tuple[TrialRecord, ...]:
        """Its launches that ended with a verdict of their own, in order."""
        return tuple(record for record in self.relaunches if record.state is not State.FAILED)

    @property
    def most(self) -> int:
        """Launches of each in the proof, at the most."""
        return self.finalists.most if self.finalists else self.terms.confirm

    @property
    def order(self) -> tuple[bool, ...]:
        """For each launch of the proof whether the second engine is launched, else the first."""
        return turns(f"{self.name}:{self.names}", self.most)

    @cached_property
    def verdicts(self) -> tuple[LevelVerdict, ...]:
        """Of each level; none before the proof has begun."""
        config = self.config
        if not self.counted or config is None:
            return ()
        least, second = config.study.min_gain, self.terms.engines[self.names[1]]
        launches = [(record, record.study == second) for record in self.counted]
        return tuple(verdict_of(level, self.levels, self.names, launches, self.most, least) for level in self.levels)

    @property
    def provable(self) -> bool:
        """Whether each engine has a configuration that can be launched for it."""
        return all(self.best(name) for name in self.names)

    @property
    def proven(self) -> bool:
        """Whether no further launch can or need change the verdicts."""
        if len(self.counted) >= 2 * self.most:
            return True
        whole = len(self.counted) % 2 == 0
        return bool(self.verdicts) and whole and all(verdict.over for verdict in self.verdicts)

    @property
    def over(self) -> bool:
        """Whether nothing is left to be run."""
        return self.next_turn is None and (not self.provable or self.proven)


def terms_path(path: Path) -> Path:
    """What was asked, in the folder of a study over engines."""
    return path / "engines.json"


def finalists_path(path: Path) -> Path:
    """Between what its proof is."""
    return path / "finalists.json"


def holds_contest(path: Path) -> bool:
    """Whether a folder is that of a study over engines."""
    return terms_path(path).exists()
