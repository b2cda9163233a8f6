"""Hydra composes ``conf/`` and the user's overrides; pydantic makes a ``Config`` of the result, or says what is wrong.

Every mistake ends here, before trial 0: nothing else in tuner ever sees a ``DictConfig``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue, ValidationError

from tuner import deriving, documents
from tuner.catalog import conf_dir, groups
from tuner.config import Config
from tuner.errors import ConfigError
from tuner.importer.baseline import KEY, Baseline, asked, baseline
from tuner.schema import config_error, flag_name
from tuner.secrets import has_shape, hide, is_plain, is_secret
from tuner.space import SearchSpace

ENGINES = "engines"
"""The key of a study over engines: each has a configuration of its own (``tuner.contest.entrants``)."""


def _leaves(tree: Any, place: str = "", of: type = str) -> Iterator[tuple[str, Any]]:
    """Every value of a kind that is set, with its place."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield from [(place, tree)] if isinstance(tree, of) else []
        return
    for key, value in items:
        yield from _leaves(value, f"{place}.{key}" if place else str(key), of)


def _remedy_for(place: str) -> str:
    if place == "storage.url":
        return "leave it to PGPASSWORD or ~/.pgpass"
    return "put it in .env, and name it under secrets.deployment or secrets.trial"


def load(
    overrides: Sequence[str],
    config_dir: Path | None = None,
    measured: Mapping[str, JsonValue] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Config:
    """Compose and validate.

    Args:
        overrides: Hydra's override grammar, ``experiment=demo budget.trials=40``.
        config_dir: A folder with groups of the user's own, in addition to tuner's.
        measured: Values by dotted key that a server or another program gave. They fill keys that the configuration
            leaves open, and are data: no grammar reads them.
        say: Told what could not be read of a deployment's own file (``deployment=PATH``).

    Raises:
        ConfigError: Anything is wrong; it names the place, the value and the valid ones.
    """
    own, named = asked(overrides)
    deployed = None if named is None else _deployed(own, named, say)
    with _in_own_files(own, config_dir):
        config = _filled(_compose(own, config_dir, measured or {}, deployed), say)
    _check_folder(config.study.path)
    _check_space(config.space)
    hide(config.secrets.known().hidden)
    _check_secrets(config)
    # not a part of `validate`: a study of an earlier version stays readable
    config.check_budget()
    config.check_objective()
    return config


def engines_of(overrides: Sequence[str], config_dir: Path | None) -> tuple[str, Mapping[str, tuple[str, ...]]]:
    """The study's name, and for each engine of a study over engines what it is asked besides, as overrides.

    Nothing else is read, so that what each engine needs of its own may be missing. Of a study of one engine there are
    none.

    Raises:
        ConfigError: An override is wrong, or ``engines`` is neither a list nor a mapping of lists.
    """
    own, _ = asked(overrides)
    raw, name = _unresolved(own, config_dir)
    if raw is None:
        return name, {}
    if isinstance(raw, list) and all(isinstance(each, str) for each in raw):
        return name, {each: () for each in raw}
    if isinstance(raw, dict) and all(isinstance(said, list) for said in raw.values()):
        return name, {str(each): tuple(map(str, said)) for each, said in raw.items()}
    fix = "name them, [vllm, llamacpp], or give each a list of overrides: {vllm: [space=vllm-cpu], llamacpp: []}"
    raise ConfigError("is neither a list of engines nor a mapping of them", place=ENGINES, fix=fix)


def _unresolved(overrides: Sequence[str], config_dir: Path | None) -> tuple[Any, str]:
    """``engines`` and ``study.name`` as they are composed."""
    from hydra import compose
    from omegaconf import OmegaConf

    search_path = _search_path(config_dir)
    group_names = frozenset(group.name for group in groups(config_dir))
    adapted = [each for override in overrides for each in _whole(_adapted(override, group_names))]
    with _hydra():
        tree = compose("config", overrides=[*search_path, *adapted])
        engines = OmegaConf.select(tree, ENGINES)
        name = "engines" if OmegaConf.is_missing(tree.study, "name") else str(tree.study.name)
        return (OmegaConf.to_container(engines) if OmegaConf.is_config(engines) else engines), name


def _whole(override: str) -> list[str]:
    """``engines=…`` takes the place of what an experiment says of them, which a list could not be merged with."""
    own = override.startswith(f"++{ENGINES}=")
    # what is null cannot be taken out
    return [f"++{ENGINES}=0", f"~{ENGINES}", f"+{override.lstrip('+')}"] if own else [override]


@contextmanager
def _in_own_files(overrides: Sequence[str], config_dir: Path | None) -> Iterator[None]:
    """A mistake that nothing else is known of is told with the user's own files that it may be in."""
    try:
        yield
    except ConfigError as error:
        chosen = (override.lstrip("+").partition("=") for override in overrides)
        files = [config_dir / group / f"{name}.yaml" for group, _, name in chosen] if config_dir else []
        there = [str(path) for path in files if path.is_file()]
        if error.fix or not there:
            raise
        error.fix = f"correct it where it is set: on the command line, or in {' or '.join(there)}"
        raise


def _filled(raw: Mapping[str, Any], say: Callable[[str], None]) -> Config:
    """The configuration, with what it leaves to the driver and to the engine."""
    _check_finite(raw)
    hardware, space = raw["hardware"], raw["space"]
    if isinstance(hardware, Mapping) and hardware.get(deriving.AUTO):
        raw = {**raw, "hardware": deriving.machine(hardware)}
    if not (isinstance(space, Mapping) and space.get(deriving.AUTO)):
        return validate(raw)
    bare = validate({**raw, "space": {"params": {}}, "model": {**raw["model"], "known_good": []}})
    return validate(deriving.filled(raw, bare, say))


def _deployed(overrides: Sequence[str], named: str, say: Callable[[str], None]) -> Baseline:
    """A deployment's own file; the user's own choices and keys count more than it."""
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    if "model" in keys:
        raise ConfigError("the model is the deployment's own", place=KEY, fix="leave model=… or deployment=… out")
    found = baseline(named)
    for sentence in found.said:
        say(f"{named}: {sentence}")
    preset = {"hardware", "space"} if "experiment" in keys else set()
    choices = {group: choice for group, choice in found.choices.items() if group not in preset | {*keys}}
    sections = {"hardware", "launcher"} - set(choices)
    if "engine" in keys:
        sections.add("engine")
    values = {
        key: value
        for key, value in found.values.items()
        if key.split(".")[0] not in sections and not any(key == one or key.startswith(f"{one}.") for one in keys)
    }
    if "experiment" in keys:
        values.pop("study.name", None)
    return Baseline(choices, values, found.said)


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
    try:
        raw = documents.yaml_of(path)
    except ConfigError as error:
        error.fix = _RESTORE
        raise
    if not isinstance(raw, Mapping):
        raise ConfigError("is empty, or no configuration", place=str(path), fix=_RESTORE)
    try:
        config = validate(_completed(raw))
    except ConfigError as error:
        raise ConfigError(error.message, place=str(path), fix=error.fix or _RESTORE) from error
    hide(config.secrets.known().hidden)
    return config


_RESTORE = "correct it there, restore it from a copy, or `tuner study rm` the study"


def _completed(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A study that began before prompts could be text has sent words: its trials stay comparable with nothing else."""
    workload = raw.get("workload")
    return {**raw, "workload": {"prompts": "words", **workload}} if isinstance(workload, Mapping) else raw


def validate(raw: Mapping[str, Any]) -> Config:
    """A ``Config`` of a composed tree.

    Raises:
        ConfigError: With all mistakes, each with its place.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _misnamed(raw, error) or config_error(error, _TAGS) from error


_TAGS = frozenset({"range", "choice", "int", "float", "fixed", "uniform", "lognormal", "file", "histogram"})


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


def _compose(
    overrides: Sequence[str],
    config_dir: Path | None,
    measured: Mapping[str, JsonValue],
    deployed: Baseline | None,
) -> Mapping[str, Any]:
    from hydra import compose
    from omegaconf import OmegaConf

    search_path = _search_path(config_dir)
    group_names = frozenset(group.name for group in groups(config_dir))
    chosen = [f"{group}={choice}" for group, choice in deployed.choices.items()] if deployed else []
    adapted = [_adapted(override, group_names) for override in (*chosen, *overrides)]
    said = deployed.values if deployed else {}
    with _hydra():
        tree = compose("config", overrides=[*search_path, *adapted])
        if "study.name" not in said and OmegaConf.is_missing(tree.study, "name"):
            OmegaConf.update(tree, "study.name", _named_after(OmegaConf.select(tree, "model.id")))
        open_keys = [key for key in measured if OmegaConf.select(tree, key) is None]  # ??? or null
        for key in (*open_keys, *(key for key in said if OmegaConf.is_missing(*_parent(tree, key)))):
            OmegaConf.update(tree, key, "")  # a stand-in: what came from outside must not be interpolated
        resolved = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    if not isinstance(resolved, dict):
        raise AssertionError(f"Hydra composed {type(resolved).__name__}")
    for key in open_keys:
        _put(resolved, key, measured[key])
    for key, value in said.items():
        _put_below(resolved, key, value)
    if resolved.get(ENGINES):
        fix = "take it to `tuner study start`, or leave engines out: engines=null"
        raise ConfigError("several engines are a study over engines, and no single one", place=ENGINES, fix=fix)
    return {str(key): value for key, value in resolved.items() if key not in ("experiment", KEY, ENGINES)}


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra with ``conf/``; what it and OmegaConf find wrong becomes a ``ConfigError``."""
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    conf = str(conf_dir().resolve())
    try:
        with _environment_for_secrets_only(), initialize_config_dir(config_dir=conf, version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(cause := _cause(error), ConfigError):
            raise cause from None
        raise ConfigError(_plainly(str(error)), fix=_remedy(str(error))) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"not YAML: {error}", fix="fix that line") from error
    except ValueError as error:  # Hydra's own of what files inherit
        raise ConfigError(_plainly(str(error))) from error
    except RecursionError as error:
        fix = "write it with fewer levels, and have no two files inherit each other (`defaults`)"
        raise ConfigError("nested too deeply to be read", place="command line", fix=fix) from error


def _named_after(model: object) -> str:
    """A study's name, of its model's: the last part of a repository's or a folder's name."""
    last = str(model or "").rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip("._-") or "???"


def _parent(tree: Any, key: str) -> tuple[Any, str]:
    """The mapping that a dotted key is in, and its last word; of what is not there, an empty one."""
    from omegaconf import OmegaConf

    section, _, leaf = key.rpartition(".")
    found = OmegaConf.select(tree, section)
    return (OmegaConf.create({leaf: None}) if found is None else found), leaf


def _put_below(tree: dict[Any, Any], key: str, value: JsonValue) -> None:
    """Put a value in, below what the user set of its keys."""
    *path, leaf = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    there = tree.get(leaf)
    tree[leaf] = {**value, **there} if isinstance(value, dict) and isinstance(there, dict) else value


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
        _check_own(path)
        if (conf_dir() / path.parent.name / path.name).exists():
            fix = "give it another name; `defaults: [NAME, _self_]` inherits from tuner's"
            raise ConfigError(f"tuner has a {path.parent.name}/{path.stem} of its own", place=str(path), fix=fix)
    return [f"hydra.searchpath=['file://{config_dir.resolve()}']"]


def _check_own(path: Path) -> None:
    """One of the user's own files is a mapping, and what it inherits is a list of names, as Hydra has it."""
    said = documents.yaml_of(path)
    if said is not None and not isinstance(said, Mapping):
        fix = "write keys and their values, `key: value`"
        raise ConfigError(f"holds {_kind(said)} instead of keys", place=str(path), fix=fix)
    if _has_nameless(said):
        raise ConfigError("has a key without a name", place=str(path), fix="name it, or take it away")
    inherited = (said or {}).get("defaults") or []
    wrong = [one for one in inherited if not _is_choice(one)] if isinstance(inherited, list) else [inherited]
    if wrong or path.stem in inherited:
        what = f"{str(wrong[0])[:60]!r} is no name" if wrong else f"{path.stem} inherits itself"
        fix = "write a list of names or of GROUP: NAME, such as `defaults: [serving, _self_]`"
        raise ConfigError(f"defaults: {what}", place=str(path), fix=fix)


def _check_finite(tree: Mapping[str, Any]) -> None:
    for place, value in _leaves(tree, of=float):
        if not isfinite(value):
            fix = "write a number; null, where there is to be no limit"
            raise ConfigError(f"{value} is no number to work with", place=place, fix=fix)


def _has_nameless(tree: object) -> bool:
    """Whether a key anywhere is null."""
    if isinstance(tree, Mapping):
        return None in tree or any(map(_has_nameless, tree.values()))
    return isinstance(tree, list) and any(map(_has_nameless, tree))


def _is_choice(one: object) -> bool:
    """A name, or a group with a name, or with several."""
    if not isinstance(one, Mapping):
        return isinstance(one, str)
    return len(one) == 1 and all(isinstance(part, str | type(None)) for part in _parts(one))


def _parts(one: Mapping[Any, Any]) -> Iterator[object]:
    for group, choice in one.items():
        yield group
        yield from choice if isinstance(choice, list) else (choice,)


def _kind(said: object) -> str:
    return "a list" if isinstance(said, list) else f"{str(said)[:60]!r}"


_FLAG_KEY = re.compile(r"^([+~]*(?:model\.args|engine\.launch_args|space\.params)\.)([^.=@]+)")
"""A flag in a key may be written with dashes, as on the engine's command line."""


def _adapted(override: str, group_names: frozenset[str]) -> str:
    """Let Hydra take any key: whether it exists is pydantic's to say, since only pydantic knows the valid ones."""
    override = _FLAG_KEY.sub(lambda found: f"{found[1]}{flag_name(found[2])}", override, count=1)
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
    valid = {*Config.model_fields, *group_names, ENGINES, "hydra"}
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
    return message.replace("In 'config': ", "").strip() or "a key or a value that Hydra cannot read"


def _remedy(message: str) -> str:
    if (missing := _missing(message)) == "model.id":
        return "say which model is served: model.id=VALUE, such as Qwen/Qwen3-8B; experiment=demo needs no GPU"
    if missing:
        return f"give {missing}=VALUE on the command line"
    if dangling := _dangling(message):
        group = dangling[0].split(".")[0]
        return f"choose a {group} that has it (`tuner study start --help` lists them), or set {dangling[0]}=VALUE"
    if "You must specify" in message:
        return "choose one, or all of them at once with experiment=NAME (experiment=demo needs no GPU)"
    if "Could not find" in message or "Could not load" in message:
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
