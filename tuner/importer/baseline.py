"""A deployment's own file as trial 0: ``deployment=PATH[:SERVICE]`` in the place of a model, GPUs and a launcher."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.base import Flag
from tuner.engines.registry import ENGINES
from tuner.errors import ConfigError
from tuner.host import nvidia
from tuner.importer import sources
from tuner.importer.container import Container, Mount, Options
from tuner.importer.understood import Deployment, hidden
from tuner.secrets import has_shape, hide, is_api_key, is_secret

KEY = "deployment"
_GIVEN_BY_LAUNCHER = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"})
_GIB = 1 << 30
_IN_FRONT = frozenset({"nohup", "exec", "sudo", "env", "time"})
_CACHES: Mapping[str, str] = {"/cache/vllm": "vllm", "/cache/triton": "triton"}
"""Where tuner puts caches of its own, unless the deployment has its own there."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A deployment as parts of a study's configuration.

    Attributes:
        choices: The group choices that it makes, unless the user has made them.
        values: What it says, by dotted key.
        said: What could not be read, or is read otherwise than it is written.
    """

    choices: Mapping[str, str]
    values: Mapping[str, JsonValue]
    said: tuple[str, ...]


def asked(overrides: Sequence[str]) -> tuple[list[str], str | None]:
    """The overrides without ``deployment=…``, and what that says; ``None`` where it names no file."""
    named = [one for one in overrides if one.partition("=")[0].lstrip("+") == KEY]
    if not named:
        return list(overrides), None
    text = named[-1].partition("=")[2].strip("'\"")
    if not _is_file(text):
        return list(overrides), None
    return [one for one in overrides if one not in named], text


def _is_file(text: str) -> bool:
    return bool(re.search(r"[./~]", text)) or Path(text).exists()


def baseline(text: str) -> Baseline:
    """What ``PATH[:SERVICE]`` makes of a study.

    Raises:
        ConfigError: There is no such deployment, or its command line cannot be read.
    """
    path, service = _split(text)
    deployment = sources.read([path], service)
    if deployment.command is None:
        said = "; ".join(deployment.understood.unread)
        fix = "name its running container in place of the file, or write a model group"
        raise ConfigError(f"{path}: its command line cannot be read: {said}", place=KEY, fix=fix)
    hide(value for name, value in deployment.env.items() if value and is_secret(name))
    groups = {"model": "deployed", "hardware": "unknown", "space": "auto"}
    launcher = "docker" if deployment.container.container else "process"
    return Baseline(
        {**groups, "launcher": launcher},
        dict(_values(deployment, path)),
        deployment.understood.unread,
    )


def _split(text: str) -> tuple[Path, str | None]:
    whole = Path(text).expanduser()
    if whole.exists() or ":" not in text:
        return whole, None
    path, _, service = text.rpartition(":")
    return Path(path).expanduser(), service


def _values(deployment: Deployment, path: Path) -> Iterator[tuple[str, JsonValue]]:
    name = _name(deployment, path)
    yield "study.name", name
    yield from _model(deployment, name)
    gpus = _gpus(deployment)
    yield "hardware.name", _hardware(gpus)
    yield "hardware.gpus", [*gpus]
    yield from _secrets(deployment, path)
    program = _program(deployment)
    if program != ("vllm", "serve"):
        yield "engine.executable", [*program]
    if deployment.container.container:
        yield from _docker(deployment, program)


def _name(deployment: Deployment, path: Path) -> str:
    raw = deployment.container.service or path.absolute().stem
    return re.sub(r"[^A-Za-z0-9._-]", "-", raw).lstrip("._-") or "deployment"


@dataclass(frozen=True, slots=True)
class Served:
    """What a deployment serves, as a study's configuration has it; hosts, ports and secrets are not among it."""

    model: str
    args: Mapping[str, JsonValue]
    env: Mapping[str, str]


def served(deployment: Deployment) -> Served:
    """The model, flags and variables of a deployment.

    Raises:
        ConfigError: It names no model.
    """
    command, conventions = deployment.command, ENGINES[deployment.engine].conventions
    model = deployment.settings.model_of(command)
    if model is None:
        raise ConfigError("the deployment names no model", place=KEY, fix="say model.id=…")
    of_file = deployment.settings.command.flags if deployment.settings.command else ()
    flags = [*of_file, *(command.flags if command else ())]
    shown = [flag for flag in flags if not hidden(flag, deployment.engine) and not _is_settings_file(flag, of_file)]
    env = {name: value for name, value in deployment.env.items() if value is not None and is_setting(name, value)}
    return Served(model, conventions.settings(shown), env)


def _model(deployment: Deployment, name: str) -> Iterator[tuple[str, JsonValue]]:
    found = served(deployment)
    yield "model.id", found.model
    yield "model.args", dict(found.args)
    yield "model.env", dict(found.env)
    yield "model.service.name", name
    if port := deployment.understood.host_port:
        yield "model.service.port", port


def _is_settings_file(flag: Flag, of_file: Sequence[Flag]) -> bool:
    """Its settings are known, so that they stand in its place."""
    return flag.name == "--config" and bool(of_file)


def is_setting(name: str, value: str) -> bool:
    """Whether a variable is part of the configuration: no secret, and not what a launcher sets for each launch."""
    return name not in _GIVEN_BY_LAUNCHER and not is_secret(name) and not has_shape(value)


def _secrets(deployment: Deployment, path: Path) -> Iterator[tuple[str, JsonValue]]:
    variables = [secret.name for secret in deployment.understood.secrets if secret.name in deployment.understood.env]
    yield "secrets.deployment", {name: name for name in variables}
    if (beside := path.absolute().parent / ".env").is_file():
        yield "secrets.file", str(beside)


def _gpus(deployment: Deployment) -> tuple[int, ...]:
    """Indices on this host; none where it is given none, or none of NVIDIA's."""
    given = deployment.understood.gpus
    here = nvidia.read()
    seen = tuple(gpu.index for gpu in here)
    match given:
        case list():
            return tuple(sorted(_index(one, here) for one in given))
        case int():
            return seen[:given] or tuple(range(given))
        case "all":
            return seen or tuple(range(_ranks(deployment)))
    return ()


def _index(named: JsonValue, here: Sequence[nvidia.Gpu]) -> int:
    """A GPU's index on this host, whether it is named by that or by its UUID.

    Raises:
        ConfigError: This host has no GPU of this UUID.
    """
    if isinstance(named, int):
        return named
    found = next((gpu.index for gpu in here if gpu.uuid.startswith(str(named))), None)
    if found is None:
        fix = "say hardware.gpus=[…], as `nvidia-smi -L` numbers them"
        raise ConfigError(f"there is no GPU {named} on this host", place=KEY, fix=fix)
    return found


def _ranks(deployment: Deployment) -> int:
    """How many GPUs the command line needs."""
    command, count = deployment.command, 1
    for flag in command.flags if command else ():
        if re.fullmatch(r"--(?:tensor|pipeline|data)-parallel-size", flag.name) and flag.values[:1]:
            count *= int(flag.values[0]) if flag.values[0].isdigit() else 1
    return count


def _hardware(gpus: Sequence[int]) -> str:
    return f"GPU {', '.join(map(str, gpus))} of this host" if gpus else "this host, without NVIDIA's GPUs"


def _program(deployment: Deployment) -> tuple[str, ...]:
    """The words in front of the model, with what must run before them."""
    own = deployment.command.program if deployment.command else ()
    while own and (own[0] in _IN_FRONT or "=" in own[0]):
        own = own[1:]
    program = (*deployment.wrapper, *(("vllm", "serve") if own in ((), ("serve",)) and not deployment.wrapper else own))
    if not deployment.before:
        return program
    return ("/bin/sh", "-c", f'{" && ".join(deployment.before)} && exec "$@"', "deployment", *program)


def _docker(deployment: Deployment, program: Sequence[str]) -> Iterator[tuple[str, JsonValue]]:
    container = deployment.container
    kept = list(container.mounts)
    if container.image:
        yield "launcher.image", container.image
    hub = _hub(container)
    if hub:
        kept.remove(hub)
        yield "launcher.hf_home", hub.source
    elif any("huggingface" in mount.target for mount in kept) or {"HF_HOME", "HF_HUB_CACHE"} & set(container.env):
        yield "launcher.hf_home", None
        yield "secrets.trial", [name for name in container.env if is_secret(name) and not is_api_key(name)]
    yield "launcher.mounts", [str(mount) for mount in kept if mount.is_path]
    yield "launcher.volumes", [_volume(mount) for mount in kept if mount.volume is not None]
    for mount in kept:
        if mount.target.rstrip("/") in _CACHES:
            yield f"launcher.caches.{_CACHES[mount.target.rstrip('/')]}", None
    yield "launcher.wrapped", _is_wrapped(deployment, program)
    yield from _carried(container.options)


_LISTS = (
    *("devices", "group_add", "security_opt", "cap_add", "cap_drop", "device_cgroup_rules", "extra_hosts"),
    *("dns", "dns_opt", "dns_search", "tmpfs"),
)
_VALUES = (
    *("privileged", "user", "pid", "userns", "cgroup", "cgroup_parent", "cpus", "cpuset", "cpu_shares"),
    *("read_only", "runtime", "working_dir"),
)


def _carried(options: Options) -> Iterator[tuple[str, JsonValue]]:
    """What its container needs besides GPUs and mounts."""
    yield from ((f"launcher.{name}", [*getattr(options, name)]) for name in _LISTS)
    yield from ((f"launcher.{name}", getattr(options, name)) for name in _VALUES)
    yield "launcher.ulimits", {name: [*limits] for name, limits in options.ulimits.items()}
    yield "launcher.sysctls", dict(options.sysctls)
    if options.pids is not None:
        yield "launcher.pids", options.pids if options.pids > 0 else None
    if options.memory_bytes:
        yield "launcher.memory_gib", options.memory_bytes / _GIB
    if options.memory_swap_bytes:
        swap = options.memory_swap_bytes
        yield "launcher.memory_swap_gib", swap / _GIB if swap > 0 else -1
    if options.shm_bytes:
        yield "launcher.shm_gib", options.shm_bytes / _GIB
    yield "launcher.ipc", "host" if options.ipc == "host" or not options.shm_bytes else "private"


def _is_wrapped(deployment: Deployment, program: Sequence[str]) -> bool:
    """Whether an entrypoint of the image's own runs in front of a program that the deployment names."""
    container, command = deployment.container, deployment.command
    own = container.entrypoint is None and container.command[:1] == tuple(program[:1])
    return own and command is not None and not command.repeats


def _hub(container: Container) -> Mount | None:
    """The mount of the host's Hugging Face folder at its usual place: trials share its models, and not its token."""
    if {"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} & set(container.env):
        return None
    return next((one for one in container.mounts if one.is_path and _is_home(one.target)), None)


def _is_home(target: str) -> bool:
    return target.rstrip("/").endswith("/.cache/huggingface")


def _volume(mount: Mount) -> str:
    return f"{mount.volume}:{mount.target}{':ro' if mount.read_only else ''}"
