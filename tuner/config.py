"""A whole study as data: what is to be tried, on what, how it is measured and when it ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator, model_validator

from tuner.deployment import ModelConfig
from tuner.engines.hardware import HardwareConfig
from tuner.engines.registry import AnyEngine
from tuner.errors import ConfigError
from tuner.host.limits import HostConfig
from tuner.launchers.registry import AnyLauncher
from tuner.load.deciding import stage_of, unmeasurable
from tuner.load.workload import Workload
from tuner.objective import Objective
from tuner.quality.cases import Quality
from tuner.schema import Schema, Stored
from tuner.search.base import SearchConfig
from tuner.secrets import Secrets, is_api_key
from tuner.space import SearchSpace

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a study may be called."""


class ConfirmConfig(Schema):
    """How the finalist is proven: it and the baseline are launched again in turns, until it is decided."""

    max: Annotated[int, Field(ge=0, le=50)] = 8
    """Launches of each at the most; their share of the budget is kept back from the search. 0 proves nothing."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, raw: Any) -> Any:
        """``study.confirm=4``, as it was written up to 0.1."""
        return {"max": raw} if isinstance(raw, int) else raw


class StudyConfig(Schema):
    """Which study this is."""

    name: Annotated[str, Field(pattern=NAME, max_length=200)]
    """Its folder's name; a study of this name that exists is resumed. File names are made of it: 255 bytes at most."""
    folder: Path = Path("studies")
    """Where study folders lie."""
    seed: int = 0
    """Everything random takes this seed."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is tried again after an error of this machine, before the study stops."""
    confirm: ConfirmConfig = ConfirmConfig()
    """The proof of the finalist."""
    min_gain: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """A gain below this share is not worth a change: "no difference above 2 %"."""
    min_effect: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A changed setting of the winner goes back to the deployed value before the proof, unless it is shown to earn more
    than this share."""
    soak_min: Annotated[float, Field(ge=0, le=600)] = 0.0
    """The proven winner is launched once more and, after its load, soaked for so many minutes of the engine's own time
    before it is exported; less where its KV cache has been filled three times before. 0 for never."""
    control_every: Annotated[int, Field(ge=0)] = 8
    """After so many launches of the search the deployed configuration is launched again, so that the machine's noise
    and drift are known; 0 for never."""
    preflight: bool = True
    """Rule out before launch what cannot start, by flags, combinations, predicted memory and earlier failures."""

    @property
    def path(self) -> Path:
        """The study's own folder."""
        return self.folder / self.name


class Budget(Schema):
    """When the study ends; the first limit that is reached counts."""

    trials: PositiveInt | None = 46
    """Launches that end with a verdict, in all: baseline, search, controls and the proof, whose share is kept back from
    the search. What is ruled out before a launch is free."""
    hours: PositiveFloat | None = None
    """Wall-clock hours, over all runs of the study, the proof included."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The search ends where another launch is expected to gain less than this share (``search.kind=auto``); 0 for
    never."""
    run_minutes: PositiveFloat | None = None
    """Wall-clock minutes of one run of the command, for a machine that is lent: no launch begins that would not end
    within them if it took as long as the slowest so far. The same command resumes the study."""
    until: Annotated[str, Field(pattern=r"^([01]?\d|2[0-3]):[0-5]\d$")] | None = None
    """A time of day, such as ``"06:00"``, by which one run of the command is over and the services of ``site.stop``
    serve again: no launch begins that would not end in time, and one that takes longer is ended as by Ctrl-C. The same
    command resumes the study the next night."""

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.trials is None and self.hours is None:
            raise ValueError("give trials, hours, or both: a study needs an end")
        return self


class SecretsConfig(Schema):
    """Which secrets go where; only their names stand here, never their values."""

    file: Path = Path(".env")
    """Where they are read from, besides the environment."""
    download: tuple[str, ...] = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    """Reach the container that downloads the model."""
    trial: tuple[str, ...] = ()
    """Reach the server of every trial; no API keys, which vLLM may print."""
    deployment: dict[str, str] = Field(default_factory=dict)
    """Variables of the deployed service by the name of the secret that they hold: they stand as ``${NAME}`` in the
    compose file and reach no trial."""
    redact: tuple[str, ...] = ()
    """Further variables whose values are redacted from all that is written, although their names do not look secret."""

    def known(self) -> Secrets:
        """The secrets of the environment and of the file, those named here among them."""
        return Secrets.of(self.file, None, (*self.download, *self.trial, *self.deployment.values(), *self.redact))

    @field_validator("trial")
    @classmethod
    def _no_api_keys(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if keys := [name for name in names if is_api_key(name)]:
            raise ValueError(
                f"{keys[0]} is an API key: vLLM prints it (vllm#52523) and a trial needs none; put it in deployment"
            )
        return names


class StorageConfig(Schema):
    """Where Optuna keeps the study; records and logs always lie in the study's folder."""

    url: str | None = None
    """An Optuna storage URL; null for an SQLite file (WAL) in the study's folder."""


class SiteConfig(Schema):
    """What else runs on this machine."""

    stop: tuple[str, ...] = ()
    """Services whose GPUs the study needs, by container or compose service: stopped at its start, back at its end."""
    beside: tuple[str, ...] = ()
    """Containers that hold a GPU of the study's and may keep running, such as monitoring."""
    stop_grace_s: Annotated[int, Field(ge=1)] = 60
    """How long a service may take to end."""
    idle_gib: PositiveFloat = 2.5
    """Memory in use up to which a GPU counts as free: what a desktop holds."""
    free_timeout_s: PositiveFloat = 90.0
    """How long a GPU's memory may take to become free after its holder has ended."""
    health_timeout_s: PositiveFloat = 900.0
    """How long a service may take to be healthy again."""


class ExecutorConfig(Schema):
    """Where trials run."""

    kind: Literal["local"] = "local"


class Config(Stored):
    """A whole study, resolved and valid."""

    schema_version: Literal[1] = 1
    study: StudyConfig
    budget: Budget = Budget()
    engine: AnyEngine
    model: ModelConfig
    hardware: HardwareConfig
    launcher: AnyLauncher
    space: SearchSpace
    workload: Workload
    objective: Objective
    quality: Quality = Quality()
    search: SearchConfig
    storage: StorageConfig
    executor: ExecutorConfig
    site: SiteConfig = SiteConfig()
    host: HostConfig = HostConfig()
    secrets: SecretsConfig = SecretsConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        self._attached_is_fixed()
        self.space.check_rules(frozenset(self.model.args) | frozenset(self.model.env))
        baseline = self.space.deployed(self.model.settings)
        if broken := self.space.violated(baseline, self.model.settings):
            raise ConfigError(
                f"the deployed configuration breaks {broken.message}", place="model", fix="correct the rule"
            )
        for number, values in enumerate(self.model.known_good):
            self._check_known_good(f"model.known_good.{number}", values)
        return self

    def _attached_is_fixed(self) -> None:
        if not self.launcher.starts_servers and self.space.params:
            fix = "choose space=none to measure it, or a launcher that starts servers"
            raise ConfigError(
                "the settings of a server that runs already cannot be searched", place="launcher", fix=fix
            )

    @property
    def reserve(self) -> int:
        """Launches that are kept back from the search for the proof, and for the winner's soak."""
        return 2 * self.study.confirm.max + (self.soak_s > 0) if self._proves else 0

    @property
    def _proves(self) -> bool:
        return bool(self.space.params and self.study.confirm.max)

    @property
    def soak_s(self) -> float:
        """How long a winner is soaked at most, in seconds of wall time; 0 where there is no proof either."""
        return self.study.soak_min * 60 / self.engine.clock_scale if self._proves else 0.0

    def check_budget(self) -> None:
        """The search needs launches of its own, in addition to those that are kept back for the proof.

        Raises:
            ConfigError: There are none.
        """
        trials, least = self.budget.trials, self.reserve + 2
        if self.reserve and trials is not None and trials < least:
            raise ConfigError(
                f"{trials} launches leave nothing to search: the proof may take {self.reserve} of them",
                place="budget.trials",
                fix=f"say {least} or more, or lower study.confirm.max (now {self.study.confirm.max})",
            )

    def check_objective(self) -> None:
        """What decides can be measured: by this workload, of this launcher's servers, at a price that is known.

        Raises:
            ConfigError: It never will be; it says what to write instead.
        """
        self.objective.check_unguarded()
        for said in filter(None, (unmeasurable(self.workload, self.objective.deciding), self._unknown())):
            raise ConfigError(said[0], place="objective", fix=said[1])

    def _unknown(self) -> tuple[str, str] | None:
        for name in self.objective.deciding.names:
            if name == "cost_per_million_tokens" and self.hardware.price_per_hour is None:
                return f"{name} needs the price of the machine", "say hardware.price_per_hour=…"
            if not self.launcher.starts_servers and stage_of(name) is None:
                return f"{name} is read off a server's start, and this one runs already", "name another"
        return None

    def _check_known_good(self, place: str, values: Mapping[str, JsonValue]) -> None:
        for name, value in values.items():
            if name not in self.space.params:
                fix = f"name one of: {', '.join(self.space.params)}"
                raise ConfigError(f"{name} is no parameter of the space", place=place, fix=fix)
            if not self.space.params[name].accepts(value):
                raise ConfigError(f"{name} cannot be {value!r}", place=place, fix=f"see space.params.{name}")

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs that our servers will use; a server that runs already has its own."""
        return self.hardware.gpus if self.launcher.starts_servers else ()

    def to_yaml(self) -> str:
        """The resolved configuration as it is in the study's folder."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)
        return text
