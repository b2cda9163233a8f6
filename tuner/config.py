"""Hydra composes ``conf/`` and the user's overrides; pydantic makes a ``Config`` of the result, or says what is wrong.

Every mistake ends here, before trial 0: nothing else in tuner ever sees a ``DictConfig``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator

from tuner import documents
from tuner.catalog import conf_dir, groups
from tuner.engines.registry import AnyEngine
from tuner.errors import ConfigError
from tuner.host.limits import HostConfig
from tuner.launchers.registry import AnyLauncher
from tuner.load.deciding import unmeasurable
from tuner.load.workload import Workload
from tuner.objective import Objective
from tuner.schema import Schema, Stored, config_error, env_texts, flag_names
from tuner.secrets import Secrets, has_shape, hide, is_api_key, is_plain, is_secret
from tuner.site import SiteConfig
from tuner.space import SearchSpace, Settings


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

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
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
    run_minutes: PositiveFloat | None = None
    """Wall-clock minutes of one run of the command, for a machine that is lent: no launch begins that would not end
    within them if it took as long as the slowest so far. The same command resumes the study."""

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.trials is None and self.hours is None:
            raise ValueError("give trials, hours, or both: a study needs an end")
        return self


class ServiceConfig(Schema):
    """The deployed service, as the exported compose file starts it; trials have names and ports of their own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Its container's name; the served model's name if null."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """The port of the host that it is published on."""
    listen: str = "127.0.0.1"
    """The address of the host that it is published on."""


class ModelConfig(Schema):
    """The deployment as it runs today: it is the baseline, and what no parameter searches stays as it is here."""

    id: str
    """The model as the engine's command line names it: a repository id or a folder."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Flags by name: true gives ``--flag``, false ``--no-flag``, null leaves it out. Dashes are read as underscores."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables that are part of the configuration."""
    service: ServiceConfig = ServiceConfig()
    """Its name and port."""
    known_good: tuple[dict[str, JsonValue], ...] = ()
    """Parameter values that are known to work, on top of the deployment's; tried right after the baseline."""

    @field_validator("args", mode="before")
    @classmethod
    def _with_underscores(cls, raw: Any) -> Any:
        return flag_names(raw)

    @field_validator("known_good", mode="before")
    @classmethod
    def _all_with_underscores(cls, raw: Any) -> Any:
        return [flag_names(values) for values in raw] if isinstance(raw, list | tuple) else raw

    @field_validator("env", mode="before")
    @classmethod
    def _texts(cls, raw: Any) -> Any:
        return env_texts(raw)

    @property
    def settings(self) -> Settings:
        """The deployed flags and variables."""
        return Settings(self.args, self.env)

    @property
    def served_name(self) -> str:
        """The name that clients ask for."""
        names = self.args.get("served_model_name") or self.id
        return str(names[0]) if isinstance(names, list) else str(names)


class GpuConfig(Schema):
    """What is known of one of the machine's GPUs; what the driver or the engine itself says counts more."""

    total_gib: PositiveFloat | None = None
    """Memory, as the engine prints it."""
    free_gib: PositiveFloat | None = None
    """Memory that is free when a server starts, likewise."""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    multiprocessors: PositiveInt | None = None
    """Streaming multiprocessors, as the vendor's data sheet has them."""

    @field_validator("compute_capability", mode="before")
    @classmethod
    def _text(cls, raw: Any) -> Any:
        return str(raw) if isinstance(raw, float) else raw

    @property
    def capability(self) -> tuple[int, int] | None:
        """The compute capability as numbers that can be compared."""
        if self.compute_capability is None:
            return None
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


class HardwareConfig(Schema):
    """The machine, as far as a study needs to know it."""

    name: str
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Indices, in PCI bus order, of the GPUs that the study may use; empty for none."""
    gpu: GpuConfig = GpuConfig()
    """What each of them is; the smallest, where they differ."""
    simulated: dict[str, JsonValue] = Field(default_factory=dict)
    """What the simulated engine is told of its hardware."""


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


class SearchConfig(Schema):
    """Who proposes the next candidate."""

    kind: Literal["auto", "gp", "tpe", "random", "grid"] = "auto"
    """``auto``: ``gp`` where torch is installed, else ``tpe``."""
    startup_trials: Annotated[int, Field(ge=1)] = 8
    """Candidates spread over the space before the model proposes; the baseline and known-good ones count."""


class StorageConfig(Schema):
    """Where Optuna keeps the study; records and logs always lie in the study's folder."""

    url: str | None = None
    """An Optuna storage URL; null for an SQLite file (WAL) in the study's folder."""


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
        """Launches that are kept back from the search for the proof."""
        return 2 * self.study.confirm.max if self.space.params else 0

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


def _leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is set, with its place."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield from [(place, tree)] if isinstance(tree, str) else []
        return
    for key, value in items:
        yield from _leaves(value, f"{place}.{key}" if place else str(key))


def _remedy_for(place: str) -> str:
    if place == "storage.url":
        return "leave it to PGPASSWORD or ~/.pgpass"
    return "put it in .env, and name it under secrets.deployment or secrets.trial"


def load(
    overrides: Sequence[str], config_dir: Path | None = None, measured: Mapping[str, JsonValue] | None = None
) -> Config:
    """Compose and validate.

    Args:
        overrides: Hydra's override grammar, ``experiment=demo budget.trials=40``.
        config_dir: A folder with groups of the user's own, in addition to tuner's.
        measured: Values by dotted key that a server or another program gave. They fill keys that the configuration
            leaves open, and are data: no grammar reads them.

    Raises:
        ConfigError: Anything is wrong; it names the place, the value and the valid ones.
    """
    config = validate(_compose(overrides, config_dir, measured or {}))
    _check_folder(config.study.path)
    _check_space(config.space)
    hide(config.secrets.known().hidden)
    _check_secrets(config)
    # not a part of `validate`: a study of an earlier version stays readable
    config.check_budget()
    if refused := unmeasurable(config.workload, config.objective.deciding):
        raise ConfigError(refused[0], place="objective", fix=refused[1])
    return config


def _check_secrets(config: Config) -> None:
    """Everything in a configuration is written to the study's folder, so that it holds no secret."""
    known = config.secrets.known().hidden
    for place, value in _leaves(config.model_dump(mode="json", exclude={"secrets"})):
        named = any(map(is_secret, place.split("."))) and not is_plain(value)
        if named or has_shape(value) or any(secret in value for secret in known):
            raise ConfigError("secrets are not written into configurations", place=place, fix=_remedy_for(place))


def _check_space(space: SearchSpace) -> None:
    if space.params and space.size == 1:
        fix = "give a parameter more values, or measure the deployment alone with space=none"
        raise ConfigError("nothing to search: every parameter has one value", place="space.params", fix=fix)


def _check_folder(path: Path) -> None:
    """SQLite's URLs give these characters a meaning of their own."""
    if found := re.search(r"[?#]", str(path.absolute())):
        fix = "choose another study.folder or study.name"
        raise ConfigError(f"{path.absolute()}: {found[0]!r} cannot stand in a path", place="study.folder", fix=fix)


def read(path: Path) -> Config:
    """The resolved configuration that a study keeps in its folder.

    Raises:
        ConfigError: The file is not a configuration of this version of tuner.
    """
    raw = documents.yaml_of(path)
    if not isinstance(raw, Mapping):
        fix = "restore it from a copy, or `tuner study rm` the study"
        raise ConfigError("is empty, or no configuration", place=str(path), fix=fix)
    try:
        config = validate(raw)
    except ConfigError as error:
        raise ConfigError(error.message, place=str(path), fix=error.fix) from error
    hide(config.secrets.known().hidden)
    return config


def validate(raw: Mapping[str, Any]) -> Config:
    """A ``Config`` of a composed tree.

    Raises:
        ConfigError: With all mistakes, each with its place.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _misnamed(raw, error) or config_error(error, _TAGS) from error


_TAGS = frozenset({"range", "choice", "int", "float"})


def _misnamed(raw: Any, error: ValidationError) -> ConfigError | None:
    """A parameter that lacks what every parameter has, and whose name is nearly that of one that has it."""
    params = raw.get("space", {}).get("params") or {}
    for mistake in error.errors(include_url=False):
        match mistake["loc"], mistake["type"]:
            case ("space", "params", str(name), *_), "missing":
                near = get_close_matches(name, set(params) - {name}, n=1)
                if near:
                    said = f"there is no parameter {name!r}; did you mean {near[0]!r}?"
                    there = ", ".join(sorted(set(params) - {name}))
                    fix = f"a new parameter needs low and high, or choices (there: {there})"
                    return ConfigError(said, place=f"space.params.{name}", fix=fix)
    return None


def _compose(overrides: Sequence[str], config_dir: Path | None, measured: Mapping[str, JsonValue]) -> Mapping[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search_path = _search_path(config_dir)
    group_names = frozenset(group.name for group in groups(config_dir))
    adapted = [_adapted(override, group_names) for override in overrides]
    try:
        with (
            _environment_for_secrets_only(),
            initialize_config_dir(config_dir=str(conf_dir().resolve()), version_base="1.3"),
        ):
            tree = compose("config", overrides=[*search_path, *adapted])
            open_keys = [key for key in measured if OmegaConf.select(tree, key) is None]  # ??? or null
            for key in open_keys:
                OmegaConf.update(tree, key, "")  # a stand-in: what came from outside must not be interpolated
            resolved = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(cause := _cause(error), ConfigError):
            raise cause from None
        raise ConfigError(_plainly(str(error)), fix=_remedy(str(error))) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"not YAML: {error}", fix="fix that line") from error
    except RecursionError as error:
        fix = "write it with fewer levels"
        raise ConfigError("nested too deeply to be read", place="command line", fix=fix) from error
    if not isinstance(resolved, dict):
        raise AssertionError(f"Hydra composed {type(resolved).__name__}")
    for key in open_keys:
        _put(resolved, key, measured[key])
    return {str(key): value for key, value in resolved.items() if key != "experiment"}


def _put(tree: dict[Any, Any], key: str, value: JsonValue) -> None:
    *path, leaf = key.split(".")
    for part in path:
        tree = tree[part]
    tree[leaf] = value


def _cause(error: BaseException) -> BaseException:
    """The error that began a chain."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


@contextmanager
def _environment_for_secrets_only() -> Iterator[None]:
    """In this block ``oc.env`` works under ``secrets`` and nowhere else: all else is written to the study's folder."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def env(*words: Any, _node_: Any) -> Any:
        place = _node_._get_full_key(None)
        if not place.startswith("secrets.") and not str(words[0]).startswith("TUNER_"):  # those are our own switches
            fix = "write the value itself; a secret is named under secrets.trial or secrets.deployment"
            raise ConfigError("${oc.env:…} is not for settings, which are written to disk", place=place, fix=fix)
        return oc.env(*words)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _search_path(config_dir: Path | None) -> list[str]:
    if config_dir is None:
        return []
    if not config_dir.is_dir():
        raise ConfigError(f"{config_dir} is not a folder", place="--config-dir")
    if found := re.search(r"[\\'$?#%]", str(config_dir.resolve())):
        fix = "rename the folder, or link to it from another path"
        raise ConfigError(f"{config_dir}: {found[0]!r} cannot stand in this path", place="--config-dir", fix=fix)
    for path in config_dir.glob("*/*.yaml"):
        documents.yaml_of(path)
        if (conf_dir() / path.parent.name / path.name).exists():
            fix = "give it another name; `defaults: [NAME, _self_]` inherits from tuner's"
            raise ConfigError(f"tuner has a {path.parent.name}/{path.stem} of its own", place=str(path), fix=fix)
    return [f"hydra.searchpath=['file://{config_dir.resolve()}']"]


def _adapted(override: str, group_names: frozenset[str]) -> str:
    """Let Hydra take any key: whether it exists is pydantic's to say, since only pydantic knows the valid ones."""
    key, sign, _ = override.partition("=")
    if not sign:
        if override.startswith("~"):
            return override
        raise ConfigError(
            f"{override!r} is not an override", place="command line", fix="write key=value or group=choice"
        )
    bare = key.lstrip("+")
    if bare.split("@")[0] in group_names:
        return override.lstrip("+")
    _check_section(re.split(r"[.@]", bare.lstrip("~"))[0], group_names)
    return override if key.startswith("~") else f"++{override.lstrip('+')}"


def _check_section(section: str, group_names: frozenset[str]) -> None:
    """A misspelled group is no reason to hear that another one is missing."""
    valid = {*Config.model_fields, *group_names, "hydra"}
    if section not in valid:
        near = get_close_matches(section, valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(sorted(valid - {"hydra"}))
        raise ConfigError(f"no such group or key {section!r}", place="command line", fix=f"{hint}There are: {listed}")


def _plainly(message: str) -> str:
    """Hydra's message without its search path, its links and its advice for other programs."""
    message = re.sub(r"\n*(Config search path|See https|To append to your config).*", "", message, flags=re.DOTALL)
    if missing := _missing(message):
        return f"{missing}: a value is needed"
    if dangling := _dangling(message):
        return f"{dangling[1]}: takes its value from {dangling[0]}, which is not there"
    message = re.sub(r"\n\s*full_key: .*", "", message, flags=re.DOTALL)
    return message.replace("In 'config': ", "").strip()


def _remedy(message: str) -> str:
    if missing := _missing(message):
        return f"give {missing}=VALUE on the command line"
    if dangling := _dangling(message):
        group = dangling[0].split(".")[0]
        return f"choose a {group} that has it (`tuner study start --help` lists them), or set {dangling[0]}=VALUE"
    if "You must specify" in message:
        return "choose one, or all of them at once with experiment=NAME (experiment=demo needs no GPU)"
    if "Could not find" in message:
        return "choose one of the available options, or point --config-dir to a folder that has it"
    return "see https://hydra.cc/docs/1.3/advanced/override_grammar/basic for how overrides are written"


def _missing(message: str) -> str | None:
    """The full key of a mandatory value that is missing."""
    found = re.search(r"Missing mandatory value: .*full_key: (\S+)", message, flags=re.DOTALL)
    return found[1] if found else None


def _dangling(message: str) -> tuple[str, str] | None:
    """A key that an interpolation asks for in vain, and the key that asks for it."""
    found = re.search(r"Interpolation key '(\S+)' not found.*full_key: (\S+)", message, flags=re.DOTALL)
    return (found[1], found[2]) if found else None
