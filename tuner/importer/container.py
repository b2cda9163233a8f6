"""What any source says of one server, before its command line is understood."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Gpus = list[int | str] | int | str | dict[str, list[int | str]] | None
"""Indices (or UUIDs), a count, ``all``, ``{"hip": [4, 5]}``, ``{"devices": ["/dev/dri"]}``, or nothing."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host, or a volume, in a container.

    Attributes:
        source: A path, or a volume's name.
        target: Where it is in the container.
        read_only: Whether it cannot be written to.
        volume: The volume's name in Docker; ``None`` for a path.
    """

    source: str
    target: str
    read_only: bool = False
    volume: str | None = None

    @property
    def is_path(self) -> bool:
        """Whether it is a folder or file of this host; a cluster's volume is neither that nor one of Docker's."""
        return self.volume is None and not self.source[:1].isalnum()

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the host, and the one in the container that it stands for."""

    host: int
    container: int | None


@dataclass(frozen=True, slots=True)
class Options:
    """What a container needs besides GPUs and mounts in order to run its server, as Docker spells it.

    Attributes:
        devices: ``HOST:CONTAINER:rwm``, each.
        group_add: Further groups.
        security_opt: Security options.
        cap_add: Capabilities.
        privileged: Whether it may do everything.
        user: Who the program runs as.
        ulimits: Limits by name, soft and hard.
        extra_hosts: ``NAME:ADDRESS``, each.
        shm_bytes: Shared memory of its own.
        ipc: Whose shared memory it uses.
        cap_drop: Capabilities that it goes without.
        device_cgroup_rules: Devices that it may use without having been given them.
        pid: ``host``: it sees the host's processes.
        userns: ``host``: its root is the host's, also where the engine maps users.
        cgroup: ``host`` or ``private``.
        cgroup_parent: The cgroup that it is counted in.
        pids: The most processes and threads; -1 for no limit.
        cpus: How much of the host's processors it may use.
        cpuset: Which of them.
        cpu_shares: Its weight where they are short.
        memory_bytes: The most of the host's memory.
        memory_swap_bytes: The same with what is swapped out; -1 for no limit.
        sysctls: Settings of the kernel for its namespaces.
        dns: Servers that it asks for names.
        dns_opt: How it asks them.
        dns_search: Domains that it tries.
        read_only: Whether it can write to volumes only.
        tmpfs: ``PATH`` or ``PATH:OPTIONS``, each.
        runtime: What runs it, unless that is the engine's usual one or NVIDIA's, which gives GPUs.
        working_dir: Where its program starts.
    """

    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    privileged: bool = False
    user: str | None = None
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    extra_hosts: tuple[str, ...] = ()
    shm_bytes: int | None = None
    ipc: str | None = None
    cap_drop: tuple[str, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    pid: str | None = None
    userns: str | None = None
    cgroup: str | None = None
    cgroup_parent: str | None = None
    pids: int | None = None
    cpus: float | None = None
    cpuset: str | None = None
    cpu_shares: int | None = None
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    runtime: str | None = None
    working_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One server as its source describes it, in a container or as a process of the host.

    Attributes:
        service: Its name.
        image: Its image; ``None`` for a process, or where the image is built.
        base: The image that it is built from.
        entrypoint: What its source puts in place of the image's entrypoint.
        command: The words after that.
        env: Its variables; ``None`` for one whose value is not known.
        secrets: Secrets that reach it otherwise than by a value in the source: from where, by name.
        ports: What is published.
        host_network: Whether its ports are the host's own.
        gpus: What it is given.
        mounts: Folders and volumes.
        options: What else it needs.
        container: Whether it is one.
        files: Files of variables that were read for it.
        before: Commands of its shell in front of it that have to be run again wherever it is started.
        unread: What could not be read, or is read otherwise than it is written, a sentence each.
        left_out: What no trial's container has of it, likewise.
    """

    service: str | None
    image: str | None = None
    base: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    host_network: bool = False
    gpus: Gpus = None
    mounts: tuple[Mount, ...] = ()
    options: Options = Options()
    container: bool = True
    files: tuple[Path, ...] = ()
    before: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
