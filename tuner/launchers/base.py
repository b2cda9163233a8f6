"""The contract between a trial and whatever runs its server."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tuner.launchers.log import ServerLog


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything a launcher needs to start one server.

    Attributes:
        name: Who this is, for labels and lock files: ``study/0003``.
        argv: The command line; ``{host}`` and ``{port}`` are filled in by the launcher.
        env: Environment variables to add.
        log_path: Where the server's whole output goes, as it comes.
        gpus: Indices, in PCI bus order, of the GPUs that the server may see; empty for none.
        stop_grace_s: How long the server may take to end before it is killed.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Life:
    """Whether a server lives, and how it ended.

    Attributes:
        running: Whether its main process still runs.
        exit_code: Its exit status; negative for a signal. ``None`` while it runs or where nobody can know.
        oom_killed: Whether an out-of-memory kill was reported.
    """

    running: bool
    exit_code: int | None = None
    oom_killed: bool = False


class Server(Protocol):
    """A server that was launched; valid until its launcher's block is left."""

    @property
    def url(self) -> str:
        """Base URL without a trailing slash, ``http://127.0.0.1:40123``."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that every request must carry (a bearer token), or none."""
        ...

    @property
    def log(self) -> ServerLog:
        """Its output, readable while it grows."""
        ...

    @property
    def pids(self) -> tuple[int, ...] | None:
        """Processes of this host whose descendants, with themselves, are the server; ``None`` if they are not known."""
        ...

    def life(self) -> Life:
        """Whether it lives, without blocking."""
        ...


class Launcher(Protocol):
    """Starts servers and removes every trace of them."""

    def launch(self, spec: LaunchSpec) -> AbstractContextManager[Server]:
        """Start a server and yield it at once, not yet ready.

        Leaving the block, for whatever reason, ends the server and all its processes.

        Raises:
            EngineUnavailable: The executable or the container engine is not there.
            GpuBusy: Another launch holds one of the GPUs.
            PortTaken: No port could be had.
        """
        ...
