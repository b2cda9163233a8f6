"""The engine while it serves: steps in real time, on absolute deadlines, so that late wake-ups do not add up."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from tuner.sim.jit import Jit
from tuner.sim.live import scheduler_of
from tuner.sim.memory import MemoryPlan
from tuner.sim.metrics import Metrics
from tuner.sim.noise import StepTimer
from tuner.sim.roofline import frontend_s
from tuner.sim.scheduler import Batch, Request
from tuner.sim.settings import Settings

MAX_LAG_S = 0.5
"""When the process could not run for that long, lost time is given up instead of caught up."""


class Sink(Protocol):
    """Where a request's tokens go."""

    sent_s: float
    """Loop time at which the client's request arrived."""
    first_s: float | None
    """Loop time of the first token."""
    last_s: float
    """Loop time of the latest token."""

    @property
    def finish_reason(self) -> str:
        """Why generation ends."""
        ...

    @property
    def gone(self) -> bool:
        """Whether nobody is listening any more."""
        ...

    def emit(self, finished: bool) -> None:
        """One more token; ``finished`` with the last one."""
        ...

    def fail(self) -> None:
        """The engine is dead."""
        ...


class Engine:
    """Runs batches for as long as there are requests.

    Args:
        settings: The engine's configuration.
        plan: Its memory.
        timer: How long steps take.
        speed: How many times faster than the real machine it serves.
        stepped: Called after every step, with the number of requests that have finished so far.
        scheduler_cls: The scheduler to use instead of its own, as ``--scheduler-cls`` names it.
    """

    def __init__(
        self,
        settings: Settings,
        plan: MemoryPlan,
        timer: StepTimer,
        speed: float,
        stepped: Callable[[int], None] = lambda finished: None,
        scheduler_cls: str | None = None,
    ) -> None:
        self.settings = settings
        self.scheduler = scheduler_of(settings, plan, scheduler_cls)
        self.metrics = Metrics(settings, plan, self.scheduler)
        self.jitted: Callable[[], None] = lambda: None
        self.dead = False
        self.paused = False
        self.slowdown = 1.0
        self._timer = timer
        self._speed = speed
        self._stepped = stepped
        self._jit = Jit(settings)
        self._wake = asyncio.Event()

    async def submit(self, request: Request, sink: Sink) -> None:
        """Queue a request when its way through the front end is over."""
        loop = asyncio.get_running_loop()
        delay_s = frontend_s(self.settings, request.prompt_tokens) / self._speed
        await asyncio.sleep(sink.sent_s + delay_s - loop.time())
        if self.dead:
            sink.fail()
            return
        request.tag = sink
        self.scheduler.add(request)
        self._wake.set()

    def abort(self, request: Request) -> None:
        """Drop a request whose client has gone."""
        self.scheduler.abort(request)
        self.metrics.finished["abort"] += 1

    def kill(self) -> None:
        """Die: every open request fails."""
        self.dead = True
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            sink_of(request).fail()

    async def run(self) -> None:
        """Step until dead."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while not self.dead:
            if not self.scheduler.busy or self.paused:
                self._wake.clear()
                await self._wake.wait()
                now_s = loop.time()
                continue
            self.drop_gone()
            batch = self.scheduler.schedule()
            if batch is None:
                await asyncio.sleep(0.01)
                continue
            now_s += self._duration_s(batch) / self._speed
            await asyncio.sleep(max(0.0, now_s - loop.time()))
            now_s = max(now_s, loop.time() - MAX_LAG_S)
            self._emit(batch, loop.time())

    def _duration_s(self, batch: Batch) -> float:
        stall_s = self._jit.stall_s(batch.shape)
        if stall_s:
            self.jitted()
        return stall_s + self._timer.duration_s(batch.shape) * self.slowdown

    def drop_gone(self) -> None:
        """Abort the requests whose clients have hung up."""
        for request in [request for request in self.scheduler.running if sink_of(request).gone]:
            self.abort(request)
        for request in [request for request in self.scheduler.waiting if sink_of(request).gone]:
            self.abort(request)

    def _emit(self, batch: Batch, now_s: float) -> None:
        if self.dead:
            return
        for request in self.scheduler.commit(batch):
            sink = sink_of(request)
            self._observe(request, sink, now_s)
            sink.emit(request.finished)
        self._stepped(self.scheduler.counters.finished)

    def _observe(self, request: Request, sink: Sink, now_s: float) -> None:
        metrics = self.metrics
        if sink.first_s is None:
            sink.first_s = now_s
            metrics.ttft.observe(now_s - sink.sent_s)
        else:
            metrics.itl.observe(now_s - sink.last_s)
        sink.last_s = now_s
        if not request.finished:
            return
        metrics.e2e.observe(now_s - sink.sent_s)
        metrics.prompt_lengths.observe(request.prompt_tokens)
        metrics.output_lengths.observe(request.generated)
        metrics.finished["length" if sink.finish_reason == "length" else "stop"] += 1
        if request.generated > 1:
            metrics.tpot.observe((now_s - sink.first_s) / (request.generated - 1))


def sink_of(request: Request) -> Sink:
    """Where a served request's tokens go."""
    sink = request.tag
    assert sink is not None
    return sink  # type: ignore[return-value]  # submit puts nothing else there
