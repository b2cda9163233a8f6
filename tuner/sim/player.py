"""Plays a start: writes its lines at the right times, and lets faults strike."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuner.sim import failure, log
from tuner.sim.events import Bar, Compiled, Event, Exit, Log, Pause, Phase, Raw, Who
from tuner.sim.faults import Faults
from tuner.sim.log import Process
from tuner.sim.settings import Settings
from tuner.sim.startup import MAX_BAR_STEPS
from tuner.sim.wording import BROADCAST

NOBODY = Process("", 0)


@dataclass(frozen=True, slots=True)
class Cast:
    """Which processes write.

    Attributes:
        api: The API server.
        engine: The engine's core.
        workers: One for each GPU; the engine itself where there is only one.
    """

    api: Process
    engine: Process
    workers: tuple[Process, ...]

    def of(self, who: Who, rank: int) -> Process:
        """The process that an event names."""
        if who == "worker":
            return self.workers[rank]
        return {"api": self.api, "engine": self.engine, "nobody": NOBODY}[who]


def cast(settings: Settings, engine_pid: int) -> Cast:
    """The processes of these settings, named as that version names them."""
    core = "EngineCore" if settings.site.version.at_least(0, 20) else "EngineCore_DP0"
    engine = NOBODY if settings.v0 else Process(core, engine_pid)
    workers = tuple(_worker(settings, rank, engine_pid) for rank in range(settings.world_size))
    return Cast(Process("APIServer", os.getpid()), engine, workers if settings.world_size > 1 else (engine,))


def _worker(settings: Settings, rank: int, engine_pid: int) -> Process:
    if settings.v0:
        return Process("VllmWorkerProcess", engine_pid + 1 + rank) if rank else NOBODY
    name = "Worker"
    if settings.pipeline_parallel_size > 1:
        name += f"_PP{rank // settings.tensor_parallel_size}"
    if settings.tensor_parallel_size > 1:
        name += f"_TP{rank % settings.tensor_parallel_size}"
    if settings.enable_expert_parallel:
        name += f"_EP{rank % settings.tensor_parallel_size}"
    return Process(name, engine_pid + 1 + rank)


class Player:
    """Plays events against a clock that runs ``speed`` times as fast as the real machine's.

    Deadlines are absolute: what the simulator itself takes goes off the pauses.

    Args:
        cast: Who writes.
        faults: What goes wrong.
        speed: How many times faster than the real machine.
        compiled: Called when the compile cache is written.
    """

    def __init__(self, cast: Cast, faults: Faults, speed: float, compiled: Callable[[], None]) -> None:
        self.cast = cast
        self.faults = faults
        self.speed = speed
        self.compiled = compiled
        self._deadline = time.perf_counter()

    def play(self, events: Iterable[Event]) -> int | None:
        """Play to the end.

        Returns:
            The exit status with which the start ended, or ``None`` if it went through.
        """
        for event in events:
            code = self._one(event)
            if code is not None:
                return code
        return None

    def _one(self, event: Event) -> int | None:
        match event:
            case Phase(name):
                return self._strike(name)
            case Log(who, source, text, level, rank):
                log.line(self.cast.of(who, rank), level, source, text)
            case Raw(who, text, rank):
                log.raw(self.cast.of(who, rank), text)
            case Pause(seconds):
                self._wait(seconds)
            case Bar():
                self._bar(event)
            case Compiled():
                self.compiled()
            case Exit(code):
                return code
        return None

    def _wait(self, seconds: float) -> None:
        self._deadline += seconds / self.speed
        left = self._deadline - time.perf_counter()
        if left > 0:
            time.sleep(left)

    def _bar(self, event: Bar) -> None:
        process = self.cast.of(event.who, 0)
        log.bar(process, event.label, 0, event.total, 0.0)
        steps = min(event.total, MAX_BAR_STEPS)
        for step in range(1, steps + 1):
            self._wait(event.seconds / steps)
            log.bar(process, event.label, event.total * step // steps, event.total, event.seconds * step / steps)

    def _strike(self, phase: str) -> int | None:
        slow = self.faults.get("slow-start")
        if slow is not None and phase == "weights":
            self._wait(float(slow.argument or 60) * self.speed)
        match self.faults.at(phase):
            case "hang":
                self._hang()
            case "crash-at":
                return 1
            case "segfault":
                return self.play(failure.segfault())
            case "exit-zero":
                self.play(failure.died_starting())
                return 0
        return None

    def _hang(self) -> None:
        """Nothing happens any more, but vLLM's reminder every minute."""
        while True:
            time.sleep(max(60 / self.speed, 0.5))
            log.line(self.cast.engine, "INFO", "shm_broadcast.py:542", BROADCAST)
