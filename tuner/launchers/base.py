"""The contract between a trial and whatever runs its server."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tuner.errors import Degraded, MeasurementError, TrialError
from tuner.launchers.log import ServerLog

_LONGEST_NAME = 160
"""A launch's name becomes file names (255 bytes at most, suffixes included), a container's name and labels."""
_DEAD_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything a launcher needs to start one server.

    Attributes:
        name: Who this is, for labels and lock files: ``study/0003``.
        argv: The command line; ``{host}`` and ``{port}`` are filled in by the launcher.
        env: Environment variables to add.
        log_path: Where the server's whole output goes, as it comes; what an earlier launch left there is set aside.
        gpus: Indices, in PCI bus order, of the GPUs that the server may see; empty for none.
        stop_grace_s: How long the server may take to end before it is killed.
        folder: A folder of this host that the server sees and can import from; ``{folder}`` in ``env`` stands for it.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    stop_grace_s: float = 10.0
    folder: Path | None = None

    def seeing(self, env: Mapping[str, str], folder: str) -> dict[str, str]:
        """An environment in which the folder has this name, and its modules can be imported."""
        named = {name: value.replace("{folder}", folder) for name, value in env.items()}
        return {**named, "PYTHONPATH": ":".join(filter(None, (folder, env.get("PYTHONPATH"))))}

    def new_id(self) -> str:
        """A name that no other launch has, fit for a file: ``study-trials-0003-1f0b93a4``."""
        return f"{self.name.replace('/', '-')[-_LONGEST_NAME:].lstrip('-.')}-{uuid4().hex[:8]}"

    def grace_s(self, error: BaseException | None) -> float:
        """How long the server may take to end, after what happened to its trial.

        A server whose failure has been diagnosed has nothing left to save, and many a dead engine ignores SIGTERM. One
        that runs, only not as fast as it should or without a measurement, ends in its own time.

        Args:
            error: What ended the trial; ``None`` if nothing went wrong.
        """
        dead = isinstance(error, TrialError) and not isinstance(error, MeasurementError | Degraded)
        return min(self.stop_grace_s, _DEAD_GRACE_S) if dead else self.stop_grace_s


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

        Leaving the block, for whatever reason, ends the server and all its processes, after ``spec.grace_s`` of what
        went wrong in it.

        Raises:
            EngineUnavailable: The executable or the container engine is not there.
            GpuBusy: Another launch holds one of the GPUs.
            PortTaken: No port could be had.
        """
        ...
