"""What the cores did, and for whom: read from ``/proc``, whose fields are those of proc(5).

What others used is what all processes used without ours. So nobody is missed who came and went between two readings,
and in a container, where the processes of others are out of sight, their work is seen all the same.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_SHORTEST_S = 0.5
"""The kernel counts in ticks of 10 ms, so that a shorter time says nothing of who used the cores."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Time of all cores together since the machine was booted, in seconds.

    Attributes:
        cores: Logical cores.
        processes_s: At work for a process, in its own code or in the kernel's.
        interrupts_s: Serving interrupts; nobody's in particular, the network's traffic among it.
        idle_s: Idle, or waiting for a disk.
        steal_s: Taken by the hypervisor for other guests.
    """

    cores: int
    processes_s: float
    interrupts_s: float
    idle_s: float
    steal_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.processes_s + self.interrupts_s + self.idle_s + self.steal_s


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs.

    Attributes:
        pid: Its id.
        parent: Its parent's id.
        cpu_s: CPU time that it and its children that have ended used, in seconds.
    """

    pid: int
    parent: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class CpuReading:
    """The cores at one moment.

    Attributes:
        times: Of all cores.
        ours_s: CPU time of our processes; ``None`` if they are not known.
    """

    times: CpuTimes
    ours_s: float | None


@dataclass(frozen=True, slots=True)
class CpuUse:
    """What the cores did between two readings; the fields are those of ``HostState``."""

    cores: int
    cpu_busy_share: float
    cpu_steal_share: float
    other_cpu_cores: float | None


def read(roots: Iterable[int] | None) -> CpuReading | None:
    """The cores now; ``None`` on a system without ``/proc/stat``.

    Args:
        roots: Processes that are ours with all of their descendants; ``None`` if some of ours are not known.
    """
    found = times()
    if found is None:
        return None
    if roots is None:
        return CpuReading(found, None)
    running = {process.pid: process for process in processes()}
    return CpuReading(found, sum(running[pid].cpu_s for pid in family(running.values(), roots)))


def between(first: CpuReading, last: CpuReading) -> CpuUse | None:
    """What the cores did from one reading to the next; ``None`` if no tick has passed between them.

    A process hands its CPU time to its parent when it ends, so that the sum over ours only grows.
    """
    total_s = last.times.total_s - first.times.total_s
    if total_s <= 0:
        return None
    cores = last.times.cores
    steal_s = last.times.steal_s - first.times.steal_s
    idle_s = last.times.idle_s - first.times.idle_s
    return CpuUse(
        cores=cores,
        cpu_busy_share=min(1.0, max(0.0, 1 - (idle_s + steal_s) / total_s)),
        cpu_steal_share=max(0.0, steal_s / total_s),
        other_cpu_cores=_others(first, last, total_s / cores),
    )


def _others(first: CpuReading, last: CpuReading, seconds: float) -> float | None:
    if first.ours_s is None or last.ours_s is None or seconds < _SHORTEST_S:
        return None
    all_s = last.times.processes_s - first.times.processes_s
    return max(0.0, all_s - (last.ours_s - first.ours_s)) / seconds


def family(running: Iterable[Process], roots: Iterable[int]) -> frozenset[int]:
    """The processes of these roots that run: themselves and all of their descendants."""
    children: dict[int, list[int]] = {}
    for process in running:
        children.setdefault(process.parent, []).append(process.pid)
    there = {pid for pids in children.values() for pid in pids}
    found: set[int] = set()
    waiting = [root for root in roots if root in there]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return frozenset(found)


def times() -> CpuTimes | None:
    """All cores' times; ``None`` on a system that does not count them."""
    try:
        lines = [line for line in (_PROC / "stat").read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return None
    user, nice, system, idle, waiting, irq, soft_irq, steal = (_seconds(word) for word in lines[0].split()[1:9])
    return CpuTimes(len(lines) - 1, user + nice + system, irq + soft_irq, idle + waiting, steal)


def processes() -> Iterator[Process]:
    """All processes that can be seen from here."""
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (found := _process(int(entry.name))):
            yield found


def _process(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:  # it has ended
        return None
    fields = stat.rpartition(")")[2].split()  # its name, before, may hold anything
    return Process(pid, int(fields[1]), sum(_seconds(word) for word in fields[11:15]))


def _seconds(ticks: str) -> float:
    return int(ticks) / os.sysconf("SC_CLK_TCK")
