"""The load generator, alone in its process so that nothing but the load delays its time stamps.

``python -m tuner.load.worker`` reads one ``Command`` a line from standard input and writes one ``StageResult`` a line
to standard output. It ends with its standard input: whatever kills tuner, the streams close with it.

ECOSYSTEM's measurement chose the parts: aiohttp on uvloop, an unlimited connector (the default of 100 connections
queues streams), reads of whatever arrived (``iter_any``), no answer parsed before the stage is over.
"""

import asyncio
import gc
import json
import os
import queue
import threading
import time
from itertools import count

import aiohttp
import uvloop

from tuner.load.attempt import Attempt
from tuner.load.meter import Meter, lateness_ms
from tuner.load.payload import PATH, body
from tuner.load.priority import realtime
from tuner.load.records import Failure, FailureKind, StageResult, encode
from tuner.load.stage import Command, command
from tuner.secrets import of_headers

# identity: a compressed stream would arrive in other pieces than the engine sent it
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
_GAP_S = 0.01
_RAMP_S = 0.1
"""Users come one after the other, so many seconds apart and all within the ramp. Were they to come at once, chance
would decide how many of them the first step takes, and the first wave's TTFT would be either of two numbers."""


class Load:
    """One stage under way."""

    def __init__(self, job: Command) -> None:
        self.job = job
        self.attempts: list[Attempt] = []
        self.aborted = False
        self._url = job.url + PATH
        self._made = list(map(self._body, range(len(job.stage.requests))))  # before the clock starts
        self._indices = count()
        self._until_ns = 0
        self._over = False
        self._failures = 0
        self._users: list[asyncio.Task[None]] = []

    async def run(self) -> StageResult:
        """Send everything, then read what came."""
        with realtime():
            async with self._session() as session, Meter() as meter:
                start_ns = time.perf_counter_ns()
                self._until_ns = start_ns + int(self.job.stage.least_s * 1e9)
                await self._send_all(session)
        return self._result(start_ns, meter)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        self._users = [asyncio.create_task(self._user(session, n)) for n in range(self.job.stage.streams)]
        await asyncio.wait(self._users)
        for user in self._users:
            if not user.cancelled():
                user.result()

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self.job.stage.request_timeout_s)
        # a session for each stage: a server closes connections that idle between stages, just as they are used again
        connector = aiohttp.TCPConnector(limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=_HEADERS | self.job.headers)

    async def _user(self, session: aiohttp.ClientSession, stream: int) -> None:
        await asyncio.sleep(stream * min(_GAP_S, _RAMP_S / self.job.stage.streams))
        while (data := self._next_body(index := next(self._indices))) is not None:
            attempt = Attempt(index, stream)
            self.attempts.append(attempt)
            await self._send(session, data, attempt)
            self._count(attempt)
            if self.aborted:
                return

    def _next_body(self, index: int) -> bytes | None:
        """The next request's body; ``None`` when the stage has had all that it needs, and its time.

        A fresh one is made while the others wait, which takes far less time than the server needs to read it.
        """
        fresh = index - len(self._made)
        if fresh < 0:
            return self._made[index]
        if fresh % self.job.stage.streams == 0:  # only whole rounds: a straggler alone would count as slow
            self._over = self._over or time.perf_counter_ns() >= self._until_ns
        return None if self._over else self._body(index)

    def _body(self, index: int) -> bytes:
        stage = self.job.stage
        return body(stage.request(index), model=self.job.model, temperature=stage.temperature)

    async def _send(self, session: aiohttp.ClientSession, data: bytes, attempt: Attempt) -> None:
        attempt.sent_ns = time.perf_counter_ns()
        try:
            async with session.post(self._url, data=data) as response:
                attempt.status = response.status
                async for read in response.content.iter_any():
                    attempt.take(read)
        except TimeoutError:
            attempt.failure = Failure(FailureKind.TIMEOUT, f"after {self.job.stage.request_timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            attempt.failure = Failure(FailureKind.CONNECTION, f"{type(error).__name__}: {error}")
        except asyncio.CancelledError:
            attempt.failure = Failure(FailureKind.ABANDONED, "too many other requests failed")
            raise
        finally:
            attempt.ended_ns = time.perf_counter_ns()

    def _count(self, attempt: Attempt) -> None:
        self._failures += attempt.looks_failed()
        stage, fresh = self.job.stage, max(0, len(self.attempts) - len(self._made))
        if self._failures > stage.max_failures + stage.max_failed_share * fresh and not self.aborted:
            self.aborted = True
            for user in self._users:
                user.cancel()

    def _result(self, start_ns: int, meter: Meter) -> StageResult:
        stage, hidden = self.job.stage, of_headers(self.job.headers)
        ordered = sorted(self.attempts, key=lambda attempt: attempt.index)
        return StageResult(
            stage=stage.name,
            streams=stage.streams,
            records=tuple(attempt.record(stage, start_ns, hidden) for attempt in ordered),
            wall_ms=round(meter.wall_ms, 3),
            client_cpu_share=round(meter.cpu_share, 4),
            loop_lag_p99_ms=round(lateness_ms(meter.lags_ms, meter.wall_ms, 99), 3),
            loop_lag_max_ms=round(max(meter.lags_ms, default=0.0), 3),
            aborted=self.aborted,
        )


def run(job: Command) -> StageResult:
    """Run one stage on an event loop of its own, without the garbage collector's pauses."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Load(job).run())
    finally:
        gc.enable()


def _commands() -> "queue.SimpleQueue[bytes]":
    """Standard input's lines as they come. Its end is the process's end, also in mid-stage."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        # not sys.stdin: Python locks that one as it ends, and this thread holds the lock
        with open(0, "rb", closefd=False) as stdin:
            for line in stdin:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    """Serve commands until standard input ends."""
    lines = _commands()
    # not sys.stdout: under PYTHONUNBUFFERED it takes a write that fell short for a whole one
    with open(1, "wb", closefd=False) as stdout:
        while True:
            result = run(command(json.loads(lines.get())))
            stdout.write(encode(result).encode() + b"\n")
            stdout.flush()


if __name__ == "__main__":
    main()
