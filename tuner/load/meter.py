"""Whether the load client itself keeps up: its CPU share and how late its event loop runs."""

import asyncio
import time
from collections.abc import Iterable
from itertools import accumulate
from types import TracebackType
from typing import Self

_TICK_S = 0.01


class Meter:
    """Watches the running event loop for as long as its block is open.

    Every 10 ms it asks to be woken, and notes how much later it was: what arrived meanwhile was stamped too late.

    Attributes:
        wall_ms: How long the block was open.
        cpu_share: This process's CPU time over that; 1 is one core.
        lags_ms: How late each tick came.
    """

    def __init__(self) -> None:
        self.wall_ms = 0.0
        self.cpu_share = 0.0
        self.lags_ms: list[float] = []
        self._due_ns = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        self._cpu_ns, self._start_ns = time.process_time_ns(), time.perf_counter_ns()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall_ns = time.perf_counter_ns() - self._start_ns
        self._task.cancel()
        self._note()  # the last tick, if it is overdue
        self.wall_ms = wall_ns / 1e6
        self.cpu_share = (time.process_time_ns() - self._cpu_ns) / wall_ns

    async def _tick(self) -> None:
        while True:
            self._due_ns = time.perf_counter_ns() + round(_TICK_S * 1e9)
            await asyncio.sleep(_TICK_S)
            self._note()

    def _note(self) -> None:
        if self._due_ns:
            self.lags_ms.append(max(0.0, (time.perf_counter_ns() - self._due_ns) / 1e6))


def lateness_ms(lags_ms: Iterable[float], wall_ms: float, percent: float) -> float:
    """How late something that arrives at a random moment is seen; a percentile.

    A percentile over ticks would not do: a second without a wake-up is one tick late among hundreds in time. What
    arrives during a lag of S is seen when it ends, so it is more than L late for max(0, S - L) of the time; the
    result is the L for which those times sum up to the rest of 100 percent of ``wall_ms``.

    Args:
        lags_ms: How late the event loop ran, each time.
        wall_ms: The whole time.
        percent: Of the arrivals.
    """
    allowed_ms = wall_ms * (1 - percent / 100)
    totals = accumulate(sorted(lags_ms, reverse=True))
    return max([0.0, *((total - allowed_ms) / count for count, total in enumerate(totals, 1))])
