"""What of a compose service travels into each trial's container, and what stays with the deployment, key by key."""

from collections.abc import Iterator, Mapping
from typing import Any

from tuner.importer import notation
from tuner.importer.compose import mapping
from tuner.importer.container import Options

_READ = frozenset(
    {"build", "command", "configs", "entrypoint", "env_file", "environment", "extends", "gpus", "image", "ports"}
    | {"profiles", "secrets", "volumes"}
)
"""Read elsewhere."""
_CARRIED = frozenset(
    {"cap_add", "cap_drop", "cgroup", "cgroup_parent", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset"}
    | {"device_cgroup_rules", "devices", "dns", "dns_opt", "dns_search", "extra_hosts", "group_add", "init", "ipc"}
    | {"mem_limit", "memswap_limit", "pid", "pids_limit", "privileged", "read_only", "runtime", "security_opt"}
    | {"shm_size", "sysctls", "tmpfs", "ulimits", "user", "userns_mode", "working_dir"}
)
_STAYS = frozenset(
    {"annotations", "attach", "container_name", "depends_on", "develop", "domainname", "expose", "healthcheck"}
    | {"hostname", "label_file", "labels", "logging", "mac_address", "network_mode", "networks", "pull_policy"}
    | {"pull_refresh_after", "restart", "scale", "stdin_open", "stop_grace_period", "stop_signal", "tty", "uts"}
)
"""What makes a service known, reached, watched and started again: a trial has its own, or none."""
_OF_DEPLOY = frozenset({"resources.limits.cpus", "resources.limits.memory", "resources.limits.pids"})
_NOTHING: tuple[Any, ...] = (None, "", "false", False, [], {}, {"default": None})
"""Values that say no more than a missing key; Compose itself writes the last of them for networks."""


def options(service: Mapping[str, Any]) -> Options:
    """What travels into each trial's container."""
    swap = str(service.get("memswap_limit") or "")
    return Options(
        devices=notation.devices(devices(service)),
        group_add=_texts(service.get("group_add")),
        security_opt=_texts(service.get("security_opt")),
        cap_add=_texts(service.get("cap_add")),
        cap_drop=_texts(service.get("cap_drop")),
        device_cgroup_rules=_texts(service.get("device_cgroup_rules")),
        privileged=_is_on(service.get("privileged")),
        user=_text(service.get("user")),
        ulimits={name: _ulimit(limit) for name, limit in (service.get("ulimits") or {}).items()},
        extra_hosts=tuple(_hosts(service.get("extra_hosts"))),
        shm_bytes=notation.size(str(service["shm_size"])) if service.get("shm_size") else None,
        ipc=_text(service.get("ipc")),
        pid=_hosts_own(service.get("pid")),
        userns=_hosts_own(service.get("userns_mode")),
        cgroup=_text(service.get("cgroup")),
        cgroup_parent=_text(service.get("cgroup_parent")),
        pids=_pids(service),
        cpus=_cpus(service),
        cpuset=_text(service.get("cpuset")),
        cpu_shares=_whole(service.get("cpu_shares")),
        memory_bytes=notation.size(str(service.get("mem_limit") or _limits(service).get("memory") or "")),
        memory_swap_bytes=-1 if swap == "-1" else notation.size(swap),
        sysctls={name: value or "" for name, value in mapping(service.get("sysctls")).items()},
        dns=_texts(service.get("dns")),
        dns_opt=_texts(service.get("dns_opt")),
        dns_search=_texts(service.get("dns_search")),
        read_only=_is_on(service.get("read_only")),
        tmpfs=(*_texts(service.get("tmpfs")), *_memory_volumes(service)),
        runtime=_runtime(service),
        working_dir=_text(service.get("working_dir")),
    )


def left_out(service: Mapping[str, Any]) -> Iterator[str]:
    """What a trial's container does not have of the service's, in a few sentences."""
    keys = [name for name, value in service.items() if _says(name, value)]
    stays = [*(name for name in keys if name in _STAYS), *_deploy(service)]
    if stays:
        yield f"{', '.join(stays)} {_verb('stays', 'stay', stays)} with the deployment: no trial has {_them(stays)}"
    others = [name for name in keys if name not in _STAYS | _CARRIED | _READ | {"deploy"}]
    if others:
        yield f"{', '.join(others)} {_verb('is', 'are', others)} not carried into a trial, and may matter"
    yield from _elsewhere(service)
    yield from _other_volumes(service)


def _elsewhere(service: Mapping[str, Any]) -> Iterator[str]:
    """Namespaces that are shared with something that no trial can share."""
    for name in ("pid", "userns_mode", "ipc"):
        given = _text(service.get(name))
        if given and given != "host" and (name, given) not in (("ipc", "shareable"), ("ipc", "private")):
            yield f"{name}: {given} is not carried into a trial, and may matter"


def _other_volumes(service: Mapping[str, Any]) -> Iterator[str]:
    for one in service.get("volumes") or []:
        kind = one.get("type") if isinstance(one, Mapping) else None
        if kind not in (None, "bind", "volume", "tmpfs"):
            yield f"the volume at {one.get('target')} ({kind}) is not carried into a trial, and may matter"


def _says(name: str, value: Any) -> bool:
    return value not in _NOTHING and not name.startswith("x-") and not (name == "scale" and str(value) == "1")


def _deploy(service: Mapping[str, Any]) -> Iterator[str]:
    """Where its replicas run and how they are replaced; what one of them may use is carried."""
    for place, value in _leaves(service.get("deploy")):
        known = place in _OF_DEPLOY or place.startswith("resources.reservations.devices")
        if not known and value not in _NOTHING and (place, str(value)) != ("replicas", "1"):
            yield f"deploy.{place}"


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Of ``resources`` each setting, of anything else the key alone."""
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        place = f"{above}{name}"
        if isinstance(value, Mapping) and place in ("resources", "resources.limits", "resources.reservations"):
            yield from _leaves(value, f"{place}.")
        else:
            yield place, value


def _verb(one: str, several: str, names: list[str]) -> str:
    return one if len(names) == 1 else several


def _them(names: list[str]) -> str:
    return _verb("it", "them", names)


def _limits(service: Mapping[str, Any]) -> Mapping[str, Any]:
    tree: Any = service
    for key in ("deploy", "resources", "limits"):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _pids(service: Mapping[str, Any]) -> int | None:
    given = _whole(service.get("pids_limit")) or _whole(_limits(service).get("pids"))
    return given if given is None or given > 0 else -1


def _cpus(service: Mapping[str, Any]) -> float | None:
    """A quota is a number of processors, written otherwise."""
    given = service.get("cpus") or _limits(service).get("cpus")
    quota = _whole(service.get("cpu_quota"))
    if given:
        return float(str(given)) or None
    return quota / (_whole(service.get("cpu_period")) or 100_000) if quota and quota > 0 else None


def _runtime(service: Mapping[str, Any]) -> str | None:
    given = _text(service.get("runtime"))
    return None if given in ("nvidia", "runc", "io.containerd.runc.v2") else given


def _memory_volumes(service: Mapping[str, Any]) -> Iterator[str]:
    """Volumes in memory, as ``tmpfs`` has them."""
    for one in service.get("volumes") or []:
        if isinstance(one, Mapping) and one.get("type") == "tmpfs":
            said = one.get("tmpfs")
            size = said.get("size") if isinstance(said, Mapping) else None
            yield f"{one.get('target')}:size={size}" if size else str(one.get("target"))


def devices(service: Mapping[str, Any]) -> list[str]:
    """Devices of the host, by path or by their names in CDI."""
    raw = service.get("devices") or []
    return [_device(one) if isinstance(one, Mapping) else str(one) for one in raw]


def _device(one: Mapping[str, Any]) -> str:
    source = str(one.get("source"))
    return ":".join([source, str(one.get("target") or source), str(one.get("permissions") or "rwm")])


def _text(raw: Any) -> str | None:
    return str(raw) if raw else None


def _hosts_own(raw: Any) -> str | None:
    return "host" if raw == "host" else None


def _is_on(raw: Any) -> bool:
    return raw in ("true", True)


def _whole(raw: Any) -> int | None:
    return int(float(str(raw))) if raw not in (None, "") else None


def _texts(raw: Any) -> tuple[str, ...]:
    return (raw,) if isinstance(raw, str) and raw else tuple(str(one) for one in raw or [])


def _ulimit(limit: Any) -> tuple[int, int]:
    if isinstance(limit, Mapping):
        return int(str(limit["soft"])), int(str(limit["hard"]))
    return int(str(limit)), int(str(limit))


def _hosts(raw: Any) -> Iterator[str]:
    """``NAME:ADDRESS``; a list may have ``=`` between them."""
    if isinstance(raw, Mapping):
        yield from (f"{name}:{address}" for name, address in mapping(raw).items())
    else:
        yield from (str(one).replace("=", ":", 1) if "=" in str(one) else str(one) for one in raw or [])
