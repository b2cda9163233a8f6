"""The engine's own process: it does nothing, but it is there, as vLLM's is, and its death is noticed.

It ends when its parent does, unless it is to be an orphan, as a worker that outlives its server: then only SIGKILL
ends it.
"""

import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Child:
    """A running child.

    Attributes:
        pid: Its process id.
        life: A file descriptor that reads as ended when it dies.
        leash: A file descriptor whose end lets it go.
    """

    pid: int
    life: int
    leash: int

    def kill(self) -> None:
        """End it and wait for that; nothing happens if it is gone."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def spawn(*, orphan: bool = False, name: str = "VLLM::EngineCore") -> Child:
    """Fork a child; call it before there are threads.

    Args:
        orphan: Whether it outlives its parent.
        name: What ``ps`` shows.
    """
    leash_read, leash_write = os.pipe()
    life_read, life_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(leash_read, life_write, orphan, name)
    os.close(leash_read)
    os.close(life_write)
    return Child(pid, life_read, leash_write)


def _live(leash: int, life: int, orphan: bool, name: str) -> None:
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(leash, life)
        _rename(name)
        os.read(leash, 1)
        while orphan:
            time.sleep(3600)
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    start = 3
    for number in (*sorted(kept), 1024):
        os.closerange(start, number)
        start = number + 1


def _rename(name: str) -> None:
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name[:15])
    except OSError:  # no such file but on Linux; only the name in ps differs
        return
