"""``docker inspect`` of a container, running or not: its real command line, as it was created."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tuner.importer import carried, gpus
from tuner.importer.container import Container, Gpus, Mount, Options, Port

_COMPOSE_SERVICE = "com.docker.compose.service"
_IMAGES_OWN = re.compile(
    r"PATH|LD_LIBRARY_PATH|LIBRARY_PATH|CUDA_VERSION|CUDA_HOME|NV_\w+|NVARCH|NCCL_VERSION|NVIDIA_REQUIRE_\w+"
    r"|NVIDIA_DRIVER_CAPABILITIES|NVIDIA_PRODUCT_NAME|DEBIAN_FRONTEND|LANG|LC_ALL|PYTHON(?:PATH|UNBUFFERED|_VERSION)"
    r"|PYTHON_\w+|GPG_KEY|UV_\w+|PIP_\w+|VLLM_USAGE_SOURCE|VLLM_BUILD_\w+|SSL_CERT_FILE|HOSTNAME|TORCH_CUDA_ARCH_LIST"
)
"""Variables that images of vLLM and of CUDA set; without the image's own list they are known by their names."""
_KEYS: Mapping[str, str] = {
    "CapAdd": "cap_add",
    "CapDrop": "cap_drop",
    "CgroupParent": "cgroup_parent",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpuShares": "cpu_shares",
    "CpusetCpus": "cpuset",
    "DeviceCgroupRules": "device_cgroup_rules",
    "Dns": "dns",
    "DnsOptions": "dns_opt",
    "DnsSearch": "dns_search",
    "ExtraHosts": "extra_hosts",
    "GroupAdd": "group_add",
    "IpcMode": "ipc",
    "Memory": "mem_limit",
    "PidMode": "pid",
    "PidsLimit": "pids_limit",
    "Privileged": "privileged",
    "ReadonlyRootfs": "read_only",
    "Runtime": "runtime",
    "SecurityOpt": "security_opt",
    "Sysctls": "sysctls",
    "UsernsMode": "userns_mode",
}
"""What a container was created with, as a compose service has it; its cgroup namespace may be the engine's default."""


def is_inspected(tree: Any) -> bool:
    """Whether this is what ``docker inspect`` says of containers."""
    first = tree[0] if isinstance(tree, list) and tree else tree
    return isinstance(first, Mapping) and isinstance(first.get("HostConfig"), Mapping) and "Config" in first


def containers(tree: Any) -> list[Container]:
    """Each container."""
    return [container(one) for one in (tree if isinstance(tree, list) else [tree])]


def container(attrs: Mapping[str, Any], image_env: Collection[str] | None = None) -> Container:
    """One container.

    Args:
        attrs: What ``docker inspect`` says of it.
        image_env: The variables of its image, as ``NAME=VALUE``; they are left out.
    """
    config, host = attrs["Config"], attrs["HostConfig"]
    env = _own(config.get("Env") or [], image_env)
    path = [attrs["Path"]] if attrs.get("Path") else config.get("Entrypoint") or []
    args = attrs["Args"] if attrs.get("Path") else config.get("Cmd") or []
    devices = [_device(one) for one in host.get("Devices") or []]
    return Container(
        service=(config.get("Labels") or {}).get(_COMPOSE_SERVICE) or str(attrs.get("Name", "")).lstrip("/") or None,
        image=config.get("Image"),
        entrypoint=tuple(path),
        command=tuple(args or ()),
        env=env,
        ports=tuple(_ports(host.get("PortBindings") or {})),
        host_network=host.get("NetworkMode") == "host",
        gpus=gpus.visible(_gpus(host, config.get("Env") or []), env, devices),
        mounts=tuple(_mounts(attrs, host)),
        options=_options(config, host, devices),
        unread=tuple(_left_out(config.get("Env") or [], env)) if image_env is None else (),
        left_out=tuple(_shared(host)),
    )


def _own(env: Collection[str], image_env: Collection[str] | None) -> dict[str, str | None]:
    pairs = [one.partition("=")[::2] for one in env]
    if image_env is not None:
        return {name: value for name, value in pairs if f"{name}={value}" not in image_env}
    return {name: value for name, value in pairs if not _IMAGES_OWN.fullmatch(name)}


def _left_out(env: Collection[str], kept: Mapping[str, str | None]) -> Iterator[str]:
    names = [name for one in env if (name := one.partition("=")[0]) not in kept]
    if names:
        yield f"what images of vLLM set by themselves is left out: {', '.join(names)}"


def _shared(host: Mapping[str, Any]) -> Iterator[str]:
    """What it has of other containers."""
    keys = {"PidMode": "pid", "UsernsMode": "userns_mode", "IpcMode": "ipc", "VolumesFrom": "volumes_from"}
    return carried.left_out({key: host.get(name) for name, key in {**keys, "Links": "links"}.items()})


def _gpus(host: Mapping[str, Any], env: Collection[str]) -> Gpus:
    found: Gpus = None
    for request in host.get("DeviceRequests") or []:
        ids, kinds = request.get("DeviceIDs") or [], request.get("Capabilities") or []
        if request.get("Driver") == "cdi" or any("gpu" in each for each in kinds):
            found = gpus.of_requests([{"device_ids": ids, "count": request.get("Count") or -1}])
    if found is None and host.get("Runtime") == "nvidia":
        asked = dict(one.partition("=")[::2] for one in env)
        found = gpus.of_runtime("nvidia", {"NVIDIA_VISIBLE_DEVICES": asked.get("NVIDIA_VISIBLE_DEVICES", "void")})
    return found


def _device(one: Mapping[str, Any]) -> str:
    return ":".join([one["PathOnHost"], one["PathInContainer"], one.get("CgroupPermissions") or "rwm"])


def _ports(bindings: Mapping[str, Any]) -> Iterator[Port]:
    for inside, published in bindings.items():
        for one in published or []:
            if str(one.get("HostPort") or "").isdigit():
                yield Port(int(one["HostPort"]), int(inside.partition("/")[0]))


def _mounts(attrs: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[Mount]:
    for one in attrs.get("Mounts") or []:
        volume = one.get("Name") if one.get("Type") == "volume" else None
        if source := volume or one.get("Source"):
            yield Mount(source, one["Destination"], one.get("RW") is False, volume)


def _options(config: Mapping[str, Any], host: Mapping[str, Any], devices: list[str]) -> Options:
    shm, memory = host.get("ShmSize"), host.get("Memory") or 0
    swap = host.get("MemorySwap") or 0
    as_compose = {
        **{key: host.get(name) for name, key in _KEYS.items()},
        "devices": devices,
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "ulimits": {one["Name"]: {"soft": one["Soft"], "hard": one["Hard"]} for one in host.get("Ulimits") or []},
        "shm_size": shm if shm and shm != 64 << 20 else None,
        "cpus": (host.get("NanoCpus") or 0) / 1e9,
        "memswap_limit": None if swap in (0, 2 * memory) else swap,  # twice the memory is the engine's default
        "tmpfs": [f"{path}:{said}" if said else path for path, said in (host.get("Tmpfs") or {}).items()],
    }
    return carried.options({key: value for key, value in as_compose.items() if value})
