"""The winner with its proof, as the deployment's profile."""

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import JsonValue

from tuner.compare import Comparison
from tuner.load.metrics import Measurement
from tuner.outcome import Outcome
from tuner.schema import Schema
from tuner.space import Settings
from tuner.storage import TrialRecord


class ProfileEngine(Schema):
    """What served."""

    kind: str
    version: str | None
    """As the engine's own log names it; null where it does not."""


class ProfileStudy(Schema):
    """Where the profile comes from."""

    name: str
    tuner_version: str
    hardware: str
    objective: str
    workload: str
    trials: int
    seed: int


class ProfileVerdict(Schema):
    """Whether to use it."""

    proven: bool
    """Whether it beats the baseline beyond the spread of their relaunches."""
    sentence: str
    comparison: Comparison | None


class Profile(Schema):
    """A configuration, what it was measured to do, and how that compares to what was deployed before."""

    schema_version: Literal[1] = 1
    engine: ProfileEngine
    model: str
    args: dict[str, JsonValue]
    """Flags by name with underscores: true gives ``--flag``, false ``--no-flag``."""
    env: dict[str, str]
    measurement: Measurement
    """Of the trial itself, which was chosen for reading high; what was measured again is in the comparison."""
    baseline: Measurement
    study: ProfileStudy
    trial: int
    """Number of the trial that ran this configuration; 0 is the deployment as it was."""
    verdict: ProfileVerdict

    def to_yaml(self) -> str:
        """The file's text."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120, allow_unicode=True)
        return text


def profile_of(outcome: Outcome) -> Profile | None:
    """The profile of what a study recommends: the best if it is proven, else the deployment as it was.

    ``None`` if there is no baseline to compare with, or nothing could be measured.
    """
    chosen = recommended(outcome)
    if chosen is None or chosen.measurement is None or outcome.baseline is None or outcome.baseline.measurement is None:
        return None
    settings = settings_of(outcome, chosen)
    return Profile(
        engine=ProfileEngine(
            kind=outcome.config.engine.kind, version=chosen.facts.engine_version if chosen.facts else None
        ),
        model=outcome.config.model.id,
        args=nested(settings.args),
        env={name: value for name, value in settings.env.items() if value is not None},
        measurement=chosen.measurement,
        baseline=outcome.baseline.measurement,
        study=_study(outcome, chosen),
        trial=chosen.number,
        verdict=ProfileVerdict(proven=outcome.proven, sentence=outcome.sentence, comparison=outcome.comparison),
    )


def recommended(outcome: Outcome) -> TrialRecord | None:
    """The best trial if it is proven, else the deployment as it was; ``None`` where not even that could be measured."""
    return outcome.best if outcome.proven else outcome.baseline


def settings_of(outcome: Outcome, chosen: TrialRecord) -> Settings:
    """All flags and variables of a trial's configuration, the deployment's own included."""
    config = outcome.config
    return config.model.settings.merged(config.space.settings(config.space.candidate(chosen.params)))


def _study(outcome: Outcome, chosen: TrialRecord) -> ProfileStudy:
    config = outcome.config
    return ProfileStudy(
        name=config.study.name,
        tuner_version=chosen.tuner_version,
        hardware=config.hardware.name,
        objective=config.objective.name,
        workload=config.workload.name,
        trials=len(outcome.searched),
        seed=config.study.seed,
    )


def nested(args: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Flags as a deployment writes them: without those left out, and dotted names inside the JSON of their flag."""
    tree: dict[str, Any] = {}
    for name, value in args.items():
        *path, leaf = name.split(".")
        if value is None:
            continue
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[leaf] = dict(value) if isinstance(value, dict) else value
    return tree
