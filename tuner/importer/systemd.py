"""systemd units: ``ExecStart`` with its environment; and Podman's ``.container`` files."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.errors import ConfigError
from tuner.importer import carried, composed, dockerrun, dotenv, gpus, notation
from tuner.importer.container import Container, Options
from tuner.importer.interpolation import Variables

_SECTION = re.compile(r"^\[(\w+)\]\s*$", re.MULTILINE)
_PREFIXES = "@-:+!|"
_LISTS: Mapping[str, str] = {
    "AddCapability": "cap_add",
    "AddDevice": "devices",
    "AddHost": "extra_hosts",
    "DNS": "dns",
    "DNSOption": "dns_opt",
    "DNSSearch": "dns_search",
    "DropCapability": "cap_drop",
    "GroupAdd": "group_add",
    "Sysctl": "sysctls",
    "Tmpfs": "tmpfs",
}
_TEXTS: Mapping[str, str] = {
    "Memory": "mem_limit",
    "PidsLimit": "pids_limit",
    "ReadOnly": "read_only",
    "ShmSize": "shm_size",
    "User": "user",
    "UserNS": "userns_mode",
    "WorkingDir": "working_dir",
}


@dataclass(slots=True)
class Unit:
    """A unit's settings by section and name; one that stands several times has several values."""

    settings: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def all(self, section: str, name: str) -> list[str]:
        """The values, without those that an empty one takes back."""
        kept: list[str] = []
        for value in self.settings.get((section, name), []):
            kept = [*kept, value] if value else []
        return kept

    def last(self, section: str, name: str) -> str | None:
        """The value that counts."""
        return next(reversed(self.all(section, name)), None)


def is_unit(text: str) -> bool:
    """Whether a text is a unit with a service or a container in it."""
    return bool({"Service", "Container"} & set(_SECTION.findall(text)))


def containers(text: str, path: Path, outside: Mapping[str, str]) -> list[Container]:
    """What a unit starts, and what its drop-ins change of it."""
    unit = _parsed("\n".join([text, *_drop_ins(path)]))
    if unit.last("Container", "Image"):
        return [_quadlet(unit, path, outside)]
    return [each for command in unit.all("Service", "ExecStart") for each in _started(unit, path, command, outside)]


def _drop_ins(path: Path) -> Iterator[str]:
    for one in sorted(path.parent.glob(f"{path.name}.d/*.conf")):
        yield one.read_text("utf-8", "replace")


def _parsed(text: str) -> Unit:
    unit, section = Unit(), ""
    for line in _lines(text):
        if found := _SECTION.fullmatch(line):
            section = found[1]
        elif "=" in line:
            name, _, value = line.partition("=")
            unit.settings.setdefault((section, name.strip()), []).append(value.strip())
    return unit


def _lines(text: str) -> Iterator[str]:
    """Lines with their continuations, in which comments may stand."""
    begun = ""
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";")):
            continue
        begun += line.strip() if not begun else f" {line.strip()}"
        if begun.endswith("\\"):
            begun = begun[:-1].rstrip()
            continue
        yield begun
        begun = ""
    yield begun


def _started(unit: Unit, path: Path, command: str, outside: Mapping[str, str]) -> list[Container]:
    """What one ``ExecStart`` starts: the services of a compose file, or one server."""
    folder = Path(unit.last("Service", "WorkingDirectory") or path.absolute().parent)
    several = composed.containers(_split(command.lstrip(_PREFIXES)), outside, folder)
    if several is None:
        return [_service(unit, path, command, outside)]
    said = tuple(_restarted(unit, path.name))
    return [replace(one, unread=(*said, *one.unread)) for one in several]


def _service(unit: Unit, path: Path, command: str, outside: Mapping[str, str]) -> Container:
    env: dict[str, str] = {}
    unread = [f"%{found} in {path.name} is filled in by systemd" for found in _specifiers(command)]
    unread += _restarted(unit, path.name)
    for one in unit.all("Service", "EnvironmentFile"):
        env |= _file(one, unread)
    for one in unit.all("Service", "Environment"):
        env |= dict(part.partition("=")[::2] for part in _split(one))
    words = _filled(_split(command.lstrip(_PREFIXES)), env, unread)
    folder = Path(unit.last("Service", "WorkingDirectory") or path.parent)
    if (behind := dockerrun.arguments(words)) is not None:
        made = dockerrun.container(behind, {**outside, **env}, folder)
        return replace(made, service=path.stem, unread=(*unread, *made.unread))
    return Container(
        service=path.stem,
        command=tuple(words),
        env=dict(env),
        gpus=gpus.visible(None, dict(env)),
        options=Options(user=unit.last("Service", "User")),
        container=False,
        unread=tuple(unread),
    )


def _restarted(unit: Unit, name: str) -> Iterator[str]:
    """A study that needs its GPUs must not meet it again."""
    policy = unit.last("Service", "Restart")
    if policy in ("always", "on-failure"):
        yield f"systemd starts it again whenever it ends (Restart={policy}): `systemctl stop {name}` for a study's time"


def _file(named: str, unread: list[str]) -> dict[str, str]:
    path = Path(named.lstrip("-"))
    try:
        found = dotenv.read(path, {})
    except ConfigError:
        unread.append(f"the EnvironmentFile {path} cannot be read")
        return {}
    return {name: value for name, value in found.items() if value is not None}


def _filled(words: list[str], env: Mapping[str, str], unread: list[str]) -> list[str]:
    """``${X}`` stands for one word, ``$X`` alone for as many as it holds; ``$$`` is a dollar sign."""
    variables = Variables(env)
    filled: list[str] = []
    for word in words:
        text = variables.fill(word)
        alone = re.fullmatch(r"\$[A-Za-z_]\w*", word)
        filled.extend(_split(text) if alone else [text])
    unread.extend(variables.of(""))
    return filled


def _specifiers(command: str) -> list[str]:
    return sorted(set(re.findall(r"(?<!%)%([a-zA-Z])", command)))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _quadlet(unit: Unit, path: Path, outside: Mapping[str, str]) -> Container:
    """A ``.container`` file, which Podman makes a service of."""
    env: dict[str, str | None] = {}
    unread: list[str] = []
    for one in unit.all("Container", "EnvironmentFile"):
        env |= _file(one, unread)
    for one in unit.all("Container", "Environment"):
        env |= dict(part.partition("=")[::2] for part in _split(one))
    devices, as_compose = unit.all("Container", "AddDevice"), _as_compose(unit)
    home = outside.get("HOME", str(Path.home()))
    volumes = (one.replace("%h", home) for one in unit.all("Container", "Volume"))
    mounts = [notation.mount(one, path.parent, home) for one in volumes]
    entrypoint = unit.last("Container", "Entrypoint")
    return Container(
        service=unit.last("Container", "ContainerName") or path.stem,
        image=unit.last("Container", "Image"),
        entrypoint=tuple(_split(entrypoint)) if entrypoint else None,
        command=tuple(_split(unit.last("Container", "Exec") or "")),
        env=env,
        secrets={one.split(",")[0]: "a secret of Podman's" for one in unit.all("Container", "Secret")},
        ports=tuple(found for one in unit.all("Container", "PublishPort") if (found := notation.port(one))),
        host_network=unit.last("Container", "Network") == "host",
        gpus=gpus.visible(None, env, devices),
        mounts=tuple(filter(None, mounts)),
        options=carried.options(as_compose),
        unread=(*unread, *_left_out(unit)),
        left_out=tuple(carried.left_out(as_compose)),
    )


def _as_compose(unit: Unit) -> dict[str, Any]:
    """What a ``.container`` file asks of Podman, as a compose service has it."""
    lists = {key: unit.all("Container", name) for name, key in _LISTS.items()}
    texts = {key: unit.last("Container", name) for name, key in _TEXTS.items()}
    unlabelled = unit.last("Container", "SecurityLabelDisable") == "true"
    return {**lists, **texts, "security_opt": ["label=disable"] if unlabelled else []}


def _left_out(unit: Unit) -> Iterator[str]:
    for one in unit.all("Container", "PodmanArgs"):
        yield f"PodmanArgs={one} is not read"
