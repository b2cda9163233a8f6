"""Watching the host while stages are measured: what others do to it is no property of the server."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from tuner.host import cpu
from tuner.host.gpu import Ours, Read, merged, reading
from tuner.host.limits import HostConfig, disturbance
from tuner.host.state import GpuState, HostState


@dataclass
class HostWatch:
    """The host's state over each turn of a stage, in the order in which they ran.

    Attributes:
        roots: Processes that are ours with all of their descendants; ``None`` if some of ours are not known.
        limits: What disturbs a turn.
        states: What was seen, a state for each turn.
    """

    roots: tuple[int, ...] | None
    limits: HostConfig
    _read: Read
    _every_s: float
    states: list[HostState] = field(default_factory=list)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Watch while the block runs; its state is the last of ``states`` once it is left in order."""
        began_ns, first = time.perf_counter_ns(), cpu.read(self.roots)
        with _Sampler(self._sample, self._every_s) as sampler:
            yield
            seconds, last = (time.perf_counter_ns() - began_ns) / 1e9, cpu.read(self.roots)
        self.states.append(_state(seconds, first, last, sampler.samples, sampler.begun_j))

    def disturbed(self) -> str | None:
        """Who used the machine during the last turn more than is allowed, in a sentence; ``None`` if nobody did."""
        return disturbance(self.states[-1], self.limits) if self.states else None

    def _sample(self) -> tuple[GpuState, ...]:
        return self._read(self._ours())

    def _ours(self) -> Ours:
        return None if self.roots is None else cpu.family(cpu.processes(), self.roots)


@contextmanager
def watching(pids: Sequence[int] | None, gpus: Sequence[int], limits: HostConfig) -> Iterator[HostWatch]:
    """Watch the host; on leaving the block, the driver is let go.

    Args:
        pids: The server's processes, whose descendants are its own as well; ``None`` if they are not known.
        gpus: The GPUs that the server may use, in PCI bus order.
        limits: What disturbs a turn.
    """
    roots = None if pids is None else (os.getpid(), *pids)
    with reading(gpus) as (read, every_s):
        yield HostWatch(roots, limits, read, every_s)


class _Sampler(threading.Thread):
    """Takes samples while its block runs, the last one at its end.

    A driver tells what happened since it was last asked, so that the first answer is about the time before the block:
    only what its energy counters read is kept.
    """

    def __init__(self, sample: Callable[[], tuple[GpuState, ...]], every_s: float) -> None:
        super().__init__(name="host", daemon=True)
        self.samples: list[GpuState] = []
        self.begun_j: dict[int, float | None] = {}
        self._sample = sample
        self._every_s = every_s
        self._over = threading.Event()

    def run(self) -> None:
        self.begun_j = {state.index: state.energy_j for state in self._sample()}
        over = False
        while not over:
            over = self._over.wait(self._every_s)
            self.samples += self._sample()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()


def _state(
    seconds: float,
    first: cpu.CpuReading | None,
    last: cpu.CpuReading | None,
    samples: Sequence[GpuState],
    begun_j: Mapping[int, float | None],
) -> HostState:
    use = cpu.between(first, last) if first and last else None
    by_gpu: dict[int, list[GpuState]] = defaultdict(list)
    for one in samples:
        by_gpu[one.index].append(one)
    return HostState(
        seconds=round(seconds, 3),
        cores=use.cores if use else None,
        cpu_busy_share=use.cpu_busy_share if use else None,
        cpu_steal_share=use.cpu_steal_share if use else None,
        other_cpu_cores=use.other_cpu_cores if use else None,
        load_average=_load_average(),
        gpus=tuple(merged(each, begun_j.get(index)) for index, each in by_gpu.items()),
    )


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
