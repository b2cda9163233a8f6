"""Compose files: one or several, with what they extend and include, their variables filled in.

Where ``docker compose config`` can be asked, it has the last word; elsewhere tuner's own reading, which needs no
Docker, says the same.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner import documents
from tuner.errors import ConfigError
from tuner.importer import compose_config, dotenv
from tuner.importer.interpolation import Variables

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_LISTS = frozenset({"command", "entrypoint"})
"""A later file replaces these as a whole; other lists it adds to."""
_MAPPINGS = frozenset({"environment", "labels", "sysctls", "args"})
"""These may be written as a list, too."""


@dataclass(slots=True)
class Project:
    """The services of one or several compose files, merged.

    Attributes:
        name: The project's name, which begins the names of its volumes.
        folder: Relative paths start here.
        services: Each service, extended and merged, its variables filled in.
        volumes: The named volumes.
        configs: Files that services share, by name.
        variables: What could be filled in, of the environment and ``.env``.
        active: The profiles that are asked for.
        files: The files, with what Compose itself adds to them; the later on top of the earlier.
    """

    name: str
    folder: Path
    variables: Variables
    services: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    volumes: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)
    active: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()

    def starts(self, service: str) -> bool:
        """Whether ``docker compose up`` starts a service without being asked for it."""
        wanted = _list(self.services[service].get("profiles"))
        return not wanted or "*" in self.active or bool(self.active & set(wanted))


def is_compose(tree: Any) -> bool:
    """Whether a YAML document is a compose file; those of the first version name their services at the top."""
    if not isinstance(tree, Mapping) or "apiVersion" in tree:
        return False
    return isinstance(tree.get("services"), Mapping) or _is_first_version(tree)


def _is_first_version(tree: Mapping[str, Any]) -> bool:
    return bool(tree) and all(isinstance(one, Mapping) and {"image", "build"} & set(one) for one in tree.values())


def load(paths: Sequence[Path], environ: Mapping[str, str] | None = None, *, ask: bool = True) -> Project:
    """The project of these files; of a file under its usual name also what Compose itself would add to it.

    Args:
        paths: The files, the later on top of the earlier.
        environ: The variables that they may name, besides those of ``.env``.
        ask: Whether Compose is asked, where it is installed.

    Raises:
        ConfigError: A file cannot be read.
    """
    folder = paths[0].absolute().parent
    outside = dict(os.environ if environ is None else environ)
    own = _dotenv(folder / ".env", outside)
    variables = Variables({**own, **outside})
    merged: dict[str, Any] = {}
    files = _all_files(paths, variables.values)
    for path in files:
        merged = _merged(merged, _file(path, variables))
    name = str(merged.get("name") or variables.values.get("COMPOSE_PROJECT_NAME") or _project_name(folder))
    project = Project(name, folder, variables, volumes=dict(merged.get("volumes") or {}), files=tuple(files))
    project.configs = dict(merged.get("configs") or {})
    project.active = frozenset(filter(None, variables.values.get("COMPOSE_PROFILES", "").split(",")))
    project.services = {str(key): value for key, value in (merged.get("services") or {}).items() if value is not None}
    if ask:
        _read_by_compose(project, files, outside)
    return project


def _read_by_compose(project: Project, files: Sequence[Path], outside: Mapping[str, str]) -> None:
    """Replace our own reading by that of Compose; where it refuses the files, every service has a note that says so."""
    try:
        theirs = compose_config.services(files, outside)
    except compose_config.Refused as refused:
        for name in project.services:
            project.variables.about = name
            project.variables.note(f"docker compose config refuses the file: {refused}")
        return
    project.services |= {name: service for name, service in theirs.items() if name in project.services}


def environment(project: Project, name: str) -> dict[str, str | None]:
    """The variables of a service: its files', then its own; ``None`` where a name is passed through and not set."""
    service, values = project.services[name], project.variables.values
    project.variables.about = name
    found: dict[str, str | None] = {}
    for file in env_files(project, service):
        if file.path.exists():
            said = dotenv.raw(file.path) if file.raw else dotenv.read(file.path, values)
            found |= {name: values.get(name) if text is None else text for name, text in said.items()}
        elif file.required:
            project.variables.note(f"the env_file {file.path} is not there")
    for name, text in mapping(service.get("environment")).items():
        if text is None and name not in values:
            project.variables.note(f"{name} is passed through, and is not set here")
        found[name] = values.get(name) if text is None else text
    return found


def mapping(raw: Any) -> dict[str, str | None]:
    """``NAME: value`` or a list of ``NAME=value``, as Compose takes either."""
    if isinstance(raw, Mapping):
        return {str(name): None if value is None else str(value) for name, value in raw.items()}
    pairs = (str(one).partition("=") for one in _list(raw))
    return {name: value if sign else None for name, sign, value in pairs}


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file of variables that a service names.

    Attributes:
        path: Where it is.
        required: Whether it must be there.
        raw: Whether its values are taken as they stand, quotes included.
    """

    path: Path
    required: bool
    raw: bool


def env_files(project: Project, service: Mapping[str, Any]) -> Iterator[EnvFile]:
    """The files of variables that a service names, the later on top of the earlier."""
    for one in _list(service.get("env_file")):
        said = one if isinstance(one, Mapping) else {"path": one}
        path = project.folder / Path(str(said.get("path"))).expanduser()
        yield EnvFile(path, said.get("required") not in ("false", False), said.get("format") == "raw")


def _dotenv(path: Path, outside: Mapping[str, str]) -> dict[str, str]:
    found = dotenv.read(path, outside) if path.is_file() else {}
    return {name: value for name, value in found.items() if value is not None}


def _all_files(paths: Sequence[Path], values: Mapping[str, str]) -> list[Path]:
    """Those given; a file under its usual name brings its override, and COMPOSE_FILE names them all."""
    (first, *others), folder = paths, paths[0].absolute().parent
    if others or first.name not in NAMES:
        return list(paths)
    named = values.get("COMPOSE_FILE", "")
    listed = [folder / one for one in named.split(values.get("COMPOSE_PATH_SEPARATOR") or os.pathsep) if one]
    if first.absolute() in [one.absolute() for one in listed]:
        return listed
    override = next((each for name in _overrides(first.name) if (each := folder / name).exists()), None)
    return [first, *([override] if override else [])]


def _overrides(name: str) -> Iterator[str]:
    stem = name.rsplit(".", 1)[0]
    yield from (f"{stem}.override.{ending}" for ending in ("yaml", "yml"))


def _file(path: Path, variables: Variables) -> dict[str, Any]:
    """A file, its variables filled in, with what it includes and what its services extend."""
    found = documents.texts(documents.text_of(path), str(path))
    if not found or not is_compose(found[0]):
        raise ConfigError("is no compose file: it has no services", place=str(path))
    if _is_first_version(found[0]):
        found[0] = {"services": found[0]}
    services = found[0]["services"]
    tree: dict[str, Any] = _filled({key: value for key, value in found[0].items() if key != "services"}, variables)
    whole: dict[str, Any] = {}
    for included in _list(tree.pop("include", None)):
        for one in _list(included.get("path") if isinstance(included, Mapping) else included):
            whole = _merged(whole, _file(path.parent / str(one), variables))
    tree["services"] = {}
    for name in services:
        variables.about = str(name)
        tree["services"][name] = _extended(name, services, path, variables, ())
    return _merged(whole, tree)


def _filled(tree: Any, variables: Variables) -> Any:
    if isinstance(tree, Mapping):
        filled = {key: _filled(value, variables) for key, value in tree.items() if not str(key).startswith("x-")}
        return documents.WholeMapping(filled) if isinstance(tree, documents.WholeMapping) else filled
    if isinstance(tree, list):
        items = [_filled(value, variables) for value in tree]
        return documents.WholeList(items) if isinstance(tree, documents.WholeList) else items
    return variables.fill(tree) if isinstance(tree, str) else tree


def _extended(
    name: str, services: Mapping[str, Any], path: Path, variables: Variables, seen: tuple[tuple[Path, str], ...]
) -> Any:
    """A service on top of the one that it extends, of this file or another."""
    service = _filled(services.get(name), variables)
    if not isinstance(service, Mapping) or "extends" not in service:
        return service
    if (path, name) in seen:
        raise ConfigError(f"the service {name} extends itself", place=str(path))
    own = {key: value for key, value in service.items() if key != "extends"}
    extends = service["extends"]
    base, file = (
        (extends.get("service", name), extends.get("file")) if isinstance(extends, Mapping) else (extends, None)
    )
    elsewhere = path.parent / str(file) if file else path
    others = services
    if file:
        others = documents.texts(documents.text_of(elsewhere), str(elsewhere))[0]["services"]
    if base not in others:
        raise ConfigError(f"the service {name} extends {base}, which is not there", place=str(elsewhere))
    below = _extended(str(base), others, elsewhere, variables, (*seen, (path, name)))
    return _merged(dict(below), own)


def _merged(below: dict[str, Any], above: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """One mapping on top of another, as Compose merges them."""
    merged = dict(below)
    for name, value in above.items():
        merged[name] = _on_top(merged[name], value, name) if name in merged else value
    return merged


def _on_top(below: Any, above: Any, key: str) -> Any:
    if (
        key in _LISTS
        or below is None
        or above is None
        or isinstance(above, documents.WholeMapping | documents.WholeList)
    ):
        return above
    if key in _MAPPINGS:
        return {**mapping(below), **mapping(above)}
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return _merged(dict(below), above, key)
    if key == "env_file" or (isinstance(below, list) and isinstance(above, list)):
        return _added(_list(below), _list(above), key)
    return above


def _added(below: list[Any], above: list[Any], key: str) -> list[Any]:
    """Of what goes to one target, the later counts."""
    if key != "volumes":
        return [*below, *(one for one in above if one not in below)]
    targets = [_target(one) for one in above]
    return [*(one for one in below if _target(one) not in targets), *above]


def _target(volume: Any) -> str:
    if isinstance(volume, Mapping):
        return str(volume.get("target"))
    parts = str(volume).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _project_name(folder: Path) -> str:
    kept = "".join(letter for letter in folder.name.lower() if letter.isalnum() or letter in "_-")
    return kept.lstrip("_-")


def _list(raw: Any) -> list[Any]:
    return [] if raw is None else raw if isinstance(raw, list) else [raw]
