"""Who made a thing that outlives a process: a container, a take-over; and whether that process still lives."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tuner.host.processes import alive, birth


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so named that no other is taken for it.

    Attributes:
        boot: Which boot of which kernel it runs on.
        namespace: Its process namespace: two WSL distributions share a kernel and not their process ids.
        pid: Its process id.
        born: When it was created, seconds since the epoch.
    """

    boot: str
    namespace: str
    pid: int
    born: float

    @classmethod
    def me(cls) -> "Owner":
        """This process."""
        return cls(*_here(), os.getpid(), birth(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """The owner that a label names; ``None`` if it names none."""
        try:
            boot, namespace, pid, born = text.split("/")
            return cls(boot, namespace, int(pid), float(born))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.boot}/{self.namespace}/{self.pid}/{self.born:.2f}"

    @property
    def lives(self) -> bool:
        """Whether it may still be at work: yes, if it runs where its process id means nothing to us."""
        boot, namespace = _here()
        if self.boot != boot:
            return False  # the engine is this machine's own, so that another boot is an earlier one
        return self.namespace != namespace or alive(self.pid, self.born)

    @property
    def spoken(self) -> str:
        """For a person."""
        return f"process {self.pid}" + ("" if self.lives else ", which is gone")


@cache
def _here() -> tuple[str, str]:
    """The boot and the process namespace that this process runs in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:  # no such files but on Linux
        return platform.node(), ""
