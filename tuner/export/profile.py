"""The winner with its proof, as the deployment's profile."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, JsonValue, ValidationError

from tuner import documents
from tuner.engines.effective import EffectiveSetting
from tuner.errors import ConfigError
from tuner.export.decided import Measured, Tried, measured_of, tried_of
from tuner.export.origin import (
    ProfileImage,
    ProfileMachine,
    ProfileService,
    digest_of,
    image_of,
    machine_of,
    revision_of,
    service_of,
)
from tuner.load.shapes import Documented
from tuner.proof.decision import Decision, Kind
from tuner.records.outcome import Outcome
from tuner.records.record import Role, TrialRecord
from tuner.schema import Stored, config_error
from tuner.space import Candidate, Settings
from tuner.study.minimal import WinnerEffects, effects_of

SCHEMA = "profile.schema.json"
"""The file next to a profile that tells editors what may stand in it."""


class ProfileEngine(Documented):
    """What served."""

    kind: str
    version: str | None
    """As the engine's own log names it; null where it does not."""


class ProfileStudy(Documented):
    """Where the profile comes from."""

    name: str
    tuner_version: str
    hardware: str
    objective: str
    workload: str
    workload_digest: str | None = None
    """Equal for equal traffic."""
    trials: int
    seed: int


class ProfileSettings(Documented):
    """Flags and variables."""

    args: dict[str, JsonValue]
    env: dict[str, str]


class ProfileVerdict(Documented):
    """What its proof came to: every number is the relaunches' own."""

    kind: Kind
    deploy: bool
    """Whether it is there to be deployed. If not, something is not shown: read the sentence, and use it knowingly."""
    sentence: str
    decision: Decision


def _second(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Version 1 had spreads instead of intervals, and the chosen trial's own numbers, which read too high."""
    kept = {name: value for name, value in raw.items() if name not in ("measurement", "baseline")}
    verdict, compared = raw["verdict"], raw["verdict"]["comparison"] or {}
    kind = Kind.BETTER if verdict["proven"] else Kind.NOT_DECIDED
    goals = {name: _interval(goal) for name, goal in compared.get("goals", {}).items()}
    launches = max((len(goal["baseline"]) for goal in goals.values()), default=0)
    decision = {"kind": kind, "goals": goals, "launches": launches, "over": True, "died": compared.get("failures", ())}
    now = {"kind": kind, "deploy": verdict["proven"], "sentence": verdict["sentence"], "decision": decision}
    return {**kept, "schema_version": 2, "verdict": now}


def _third(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Version 2 had the launches' readings only, and of the machine no more than its name."""
    decision = Decision.model_validate(raw["verdict"]["decision"])
    machine = {"name": raw["study"]["hardware"]}
    return {**raw, "schema_version": 3, "measured": measured_of(decision), "machine": machine}


def _interval(goal: Mapping[str, Any]) -> Mapping[str, Any]:
    gain, spread = goal["gain"], goal["spread"] or 0.0
    ends = {"low": gain - spread, "high": gain + spread}
    return {"gain": gain, **ends, "baseline": goal["baseline"], "candidate": goal["best"]}


class Profile(Stored):
    """A configuration, what it was measured to do, and how that compares to what was deployed before."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    upgrades = (_second, _third)

    schema_version: Literal[3] = 3
    engine: ProfileEngine
    model: str
    revision: str | None = None
    """The model's commit; null where the study's machine does not tell."""
    image: ProfileImage | None = None
    """Null where it did not run in containers."""
    args: dict[str, JsonValue]
    """Flags by name with underscores: true gives ``--flag``, false ``--no-flag``."""
    env: dict[str, str]
    """Variables that are part of the configuration."""
    kernels: str | None = None
    """A folder of the study's machine that one of these variables names: a container has to see it under this name."""
    effective: tuple[EffectiveSetting, ...] = ()
    """What the running server made of each of them."""
    service: ProfileService = ProfileService()
    machine: ProfileMachine | None = None
    study: ProfileStudy
    trial: int
    """Number of the trial that found this configuration."""
    deployed: ProfileSettings | None = None
    """What was deployed, and what the winner is compared with."""
    measured: dict[str, Measured] = Field(default_factory=dict)
    """Each metric of both, over their relaunches."""
    verdict: ProfileVerdict
    tried: tuple[Tried, ...] = ()
    """Everything else that was tried, with its numbers and why it was rejected."""
    effects: WinnerEffects | None = None
    """What each of that trial's changes earns, and which of them are in this configuration; null where too little was
    measured to say."""

    def to_yaml(self) -> str:
        """The file's text."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120, allow_unicode=True)
        return f"# yaml-language-server: $schema={SCHEMA}\n{text}"


def read_profile(path: Path) -> Profile:
    """A profile from its file.

    Raises:
        ConfigError: It is none.
    """
    tree, fix = documents.yaml_of(path), "name a study's profile.yaml, or restore it from a copy"
    if not isinstance(tree, Mapping):
        raise ConfigError("is no profile: there are no keys in it", place=str(path), fix=fix)
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_first(config_error(error).message), place=str(path), fix=fix) from error


def _first(mistakes: str) -> str:
    """Of a file that is cut off, one mistake tells as much as all of them."""
    lines = mistakes.splitlines()[1:]
    return f"{lines[0].strip()} (and {len(lines) - 1} more)" if lines else mistakes


def profile_of(outcome: Outcome) -> Profile | None:
    """The profile of a winner; ``None`` where the verdict is to keep what is deployed."""
    trial, chosen, decision = recommended(outcome), outcome.chosen, outcome.decision
    if trial is None or chosen is None or decision is None:
        return None
    settings = settings_of(outcome, chosen)
    return Profile(
        engine=ProfileEngine(
            kind=outcome.config.engine.kind, version=trial.facts.engine_version if trial.facts else None
        ),
        model=outcome.config.model.id,
        revision=revision_of(outcome),
        image=image_of(outcome.folder),
        args=nested(settings.args),
        env=_variables(settings),
        kernels=_kernels(outcome, settings),
        effective=_effective(outcome),
        service=service_of(outcome.config),
        machine=machine_of(outcome),
        study=_study(outcome, trial),
        trial=trial.number,
        deployed=profiled(outcome.config.model.settings),
        measured=measured_of(decision),
        tried=tuple(tried_of(outcome)),
        verdict=ProfileVerdict(kind=decision.kind, deploy=outcome.proven, sentence=outcome.sentence, decision=decision),
        effects=effects_of(outcome),
    )


def _variables(settings: Settings) -> dict[str, str]:
    return {name: value for name, value in settings.env.items() if value is not None}


def _kernels(outcome: Outcome, settings: Settings) -> str | None:
    folder = outcome.config.engine.kernels
    return str(folder) if folder and str(folder) in settings.env.values() else None


def profiled(settings: Settings) -> ProfileSettings:
    """Flags and variables as a profile has them."""
    return ProfileSettings(args=nested(settings.args), env=_variables(settings))


def _effective(outcome: Outcome) -> tuple[EffectiveSetting, ...]:
    """As the winner's last relaunch said it."""
    launches = outcome.proof.launches if outcome.proof else ()
    return next((each.effective for each in reversed(launches) if each.role is Role.CONFIRM_BEST), ())


def schema() -> str:
    """The JSON Schema of a profile, for editors and other programs."""
    found = Profile.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"


def recommended(outcome: Outcome) -> TrialRecord | None:
    """The trial of a configuration that is better beyond doubt, all of its limits shown or not; else ``None``."""
    shown = (Kind.BETTER, Kind.LIMIT_NOT_SHOWN)
    decided = outcome.decision is not None and outcome.decision.over and outcome.decision.kind in shown
    return outcome.best if decided else None


def settings_of(outcome: Outcome, candidate: Candidate) -> Settings:
    """All flags and variables of a configuration, the deployment's own included."""
    config = outcome.config
    return config.model.settings.merged(config.space.settings(config.space.candidate(candidate.params)))


def _study(outcome: Outcome, trial: TrialRecord) -> ProfileStudy:
    config = outcome.config
    return ProfileStudy(
        name=config.study.name,
        tuner_version=trial.tuner_version,
        hardware=config.hardware.name,
        objective=config.objective.name,
        workload=config.workload.name,
        workload_digest=digest_of(config.workload),
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
