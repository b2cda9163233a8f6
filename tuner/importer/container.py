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
