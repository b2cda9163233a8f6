"""What a launch leaves on disk while it lives, so that whoever comes later finds and ends it.

A trace is one JSON file per launch, written before its server is started. Its processes are known by three marks, since
each can be lost: the server leads its own session (a worker may leave it), the environment names the launch
(setproctitle, which vLLM uses, overwrites it), and while the guard lives all of them descend from it. Without a trace
the environment still tells: ``strays`` finds those processes.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from tuner.host.files import write_whole
from tuner.host.leases import state_dir
from tuner.host.processes import alive
from tuner.reading import bytes_of

LAUNCH_MARK = "TUNER_LAUNCH"
"""The environment variable by which every process of a launch can be known."""


def scratch_name(launch_id: str) -> str:
    """What a launch's folder for temporary files is called: short, since sockets with bounded paths are made in it."""
    return f"tuner-{launch_id[-8:]}"


@dataclass(frozen=True, slots=True)
class LaunchTrace:
    """One launch under way.

    Attributes:
        launch_id: Its unique name.
        session: The server's process id, which is its session's id; ``None`` until it has been started.
        created: When the server's process was created, seconds since the epoch as the kernel counts it; no later than
            that while it has not been started.
        booted: When the machine was booted; a trace from before is void.
        guard: The guard's process id.
        guard_created: When the guard's process was created.
        scratch: The launch's own folder for temporary files; ``None`` if it has none.
    """

    launch_id: str
    session: int | None
    created: float
    booted: float
    guard: int
    guard_created: float
    scratch: str | None = None

    @classmethod
    def announced(cls, launch_id: str, scratch: Path) -> "LaunchTrace":
        """The trace of a server that this process, its guard, is about to start."""
        born = psutil.Process().create_time()
        return cls(launch_id, None, born, psutil.boot_time(), os.getpid(), born, str(scratch))

    def led_by(self, session: int) -> "LaunchTrace":
        """The same launch, its server started."""
        return replace(self, session=session, created=psutil.Process(session).create_time())

    @property
    def path(self) -> Path:
        """Its file."""
        return state_dir() / "launches" / f"{self.launch_id}.json"

    def write(self) -> None:
        """Put it on disk, whole or not at all.

        Raises:
            OSError: The disk is full or read-only.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(asdict(self)))

    def erase(self) -> None:
        """Nothing of the launch is left: remove its temporary files and the trace itself."""
        if self.scratch is not None and Path(self.scratch).name == scratch_name(self.launch_id):
            shutil.rmtree(self.scratch, ignore_errors=True)
        self.path.unlink(missing_ok=True)

    @property
    def guarded(self) -> bool:
        """Whether its guard still lives and will end it in its own time."""
        return alive(self.guard, self.guard_created)


def survivors(trace: LaunchTrace, ancestor: int | None = None) -> list[int]:
    """The process ids that are left of a launch, zombies not counted."""
    if abs(trace.booted - psutil.boot_time()) > 60:
        return []
    family = {child.pid for child in _children(ancestor)}
    return [process.pid for process in _living() if process.pid in family or _belongs(process, trace)]


def kill_survivors(trace: LaunchTrace, ancestor: int | None = None, patience_s: float = 10.0) -> bool:
    """Kill what is left of a launch, until nothing is; ``False`` if something resists for ``patience_s``.

    Args:
        trace: The launch.
        ancestor: A process all of whose descendants belong to it as well: the guard.
        patience_s: How long a process may take to die; one that waits for a broken driver never does.
    """
    return kill_until_gone(lambda: survivors(trace, ancestor), patience_s)


def kill_until_gone(left: Callable[[], Collection[int]], patience_s: float = 10.0) -> bool:
    """Kill processes until none is left; ``False`` if something resists for ``patience_s``.

    Args:
        left: Asked again and again which process ids are left: dying processes may still have children.
        patience_s: How long a process may take to die.
    """
    deadline = time.monotonic() + patience_s
    while pids := left():
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return True


def end_orphans(only: str | None = None) -> list[str]:
    """End every launch whose guard is gone; returns their names.

    Args:
        only: End just the launch of this name.
    """
    ended = [trace for trace in orphans() if only in (None, trace.launch_id)]
    for trace in ended:
        if kill_survivors(trace):
            trace.erase()
    return [trace.launch_id for trace in ended]


def orphans() -> list[LaunchTrace]:
    """Every launch whose guard is gone."""
    return [trace for trace in _traces() if not trace.guarded]


def _traces() -> Iterator[LaunchTrace]:
    from pydantic import TypeAdapter, ValidationError  # the guard, which never asks, does without

    reader = TypeAdapter(LaunchTrace)
    for path in sorted((state_dir() / "launches").glob("*.json")):
        try:
            trace = reader.validate_json(bytes_of(path))
        except (OSError, ValidationError):
            continue  # damaged, written by another version, or erased meanwhile
        if trace.path == path:
            yield trace


def _living() -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["status", "create_time"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process


def _belongs(process: psutil.Process, trace: LaunchTrace) -> bool:
    if process.info["create_time"] < trace.created - 1:
        return False
    try:
        led = trace.session is not None and os.getsid(process.pid) == trace.session
        return led or process.environ().get(LAUNCH_MARK) == trace.launch_id
    except (psutil.Error, OSError):
        return False


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process whose environment names a launch."""

    pid: int
    session: int
    environ: Mapping[str, str]


def marked() -> Iterator[Marked]:
    """The living processes whose environment names a launch."""
    for process in _living():
        with suppress(psutil.Error, OSError):
            environ = process.environ()
            if LAUNCH_MARK in environ:
                yield Marked(process.pid, os.getsid(process.pid), environ)


def in_sessions(sessions: Collection[int]) -> Iterator[int]:
    """The living processes of these sessions."""
    for process in _living() if sessions else ():
        with suppress(OSError):
            if os.getsid(process.pid) in sessions:
                yield process.pid


def _children(ancestor: int | None) -> list[psutil.Process]:
    try:
        return psutil.Process(ancestor).children(recursive=True) if ancestor else []
    except psutil.Error:
        return []
