"""The load generator, alone in its process so that nothing but the load delays its time stamps.

``python -m tuner.load.worker`` reads one ``WorkerCommand`` a line from standard input and writes one ``StageResult`` a
line to standard output, and before it, if asked to, how far it has come (``tuner.load.progress``). It ends with its
standard input: whatever kills tuner, the streams close with it.

Measurements chose the parts (``tests/bench/client.py`` makes them): aiohttp on uvloop, an unlimited connector (the
default of 100 connections queues streams), reads of whatever arrived (``iter_any``), no answer parsed before the stage
is over.
"""

import asyncio
import gc
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace

import aiohttp
import uvloop

from tuner.load.attempt import Attempt, Flooded
from tuner.load.conversation import Conversation
from tuner.load.endpoints.form import Message
from tuner.load.meter import Meter, lateness_ms
from tuner.load.payload import body
from tuner.load.percentile import percentile
from tuner.load.priority import realtime
from tuner.load.progress import EVERY_S, tick
from tuner.load.prompts import text
from tuner.load.prose import Prose
from tuner.load.records import FailureKind, RequestFailure, StageResult, Window, encode
from tuner.load.stage import WorkerCommand, command
from tuner.load.steady import Steady
from tuner.secrets import of_headers

# identity: a compressed stream would arrive in other pieces than the engine sent it
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
_GAP_S = 0.01
_RAMP_S = 0.1
"""Users come one after the other, so many seconds apart and all within the ramp. Were they to come at once, chance
would decide how many of them the first step takes, and the first wave's TTFT would be either of two numbers."""
_BROKEN_EVERY_S = 0.5
"""So often it is looked whether an answer still has a connection."""
_STAGE_BYTES = 1 << 30
"""All answers of a stage are kept until it is over; ten minutes of 10,000 chunks a second are a little more."""


class Load:
    """One stage under way.

    Args:
        job: What to send.
        tell: Takes a line for whoever follows it.
    """

    def __init__(self, job: WorkerCommand, tell: Callable[[bytes], None]) -> None:
        self.job = job
        self._tell = tell
        self.attempts: list[Attempt] = []
        self.aborted = False
        self._write = Prose(job.counts).text if job.counts else text
        self._follows = [request.follows for request in job.stage.requests]
        # before the clock starts; what follows an answer has to wait for it
        self._made = [b"" if follows else self._body(index) for index, follows in enumerate(self._follows)]
        self._indices = count()
        self._steady = Steady(job.stage, job.stage.rule) if job.stage.rule else None
        self._failures = 0
        self._answered = 0
        self._bytes = 0
        self._closes = False
        self._users: list[asyncio.Task[None]] = []
        self._reading: set[aiohttp.ClientResponse] = set()

    async def run(self) -> StageResult:
        """Send everything, then read what came."""
        with realtime():
            async with self._session() as kept, self._session(force_close=True) as fresh, Meter() as meter:
                start_ns = time.perf_counter_ns()
                await self._send_all(kept, fresh, start_ns)
        return self._result(start_ns, meter)

    async def _send_all(self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, start_ns: int) -> None:
        if self.job.stage.due_ms:
            self._users = [asyncio.create_task(self._on_schedule(kept, fresh, start_ns))]
        else:
            self._users = [asyncio.create_task(self._user(kept, fresh, n)) for n in range(self.job.stage.streams)]
        beside = [asyncio.create_task(self._fail_the_broken())]
        beside += [asyncio.create_task(self._tick())] if self.job.ticks else []
        await asyncio.wait(self._users)
        if self.job.stage.due_ms:
            await asyncio.wait(self._users)  # those that the schedule has added
        for task in beside:
            task.cancel()
        for user in self._users:
            if not user.cancelled():
                user.result()

    async def _tick(self) -> None:
        while True:
            self._tell(tick(self._answered))
            await asyncio.sleep(EVERY_S)

    async def _fail_the_broken(self) -> None:
        """End the wait for answers whose connections were given up.

        aiohttp closes the connection of an answer that breaks HTTP (a chunk without a length), and tells nobody who
        reads the answer.
        """
        while True:
            await asyncio.sleep(_BROKEN_EVERY_S)
            for response in self._reading:
                connection = response.connection
                if connection and (connection.transport is None or connection.transport.is_closing()):
                    response.content.set_exception(aiohttp.ClientPayloadError("the answer breaks off, or is no HTTP"))

    def _session(self, *, force_close: bool = False) -> aiohttp.ClientSession:
        stage = self.job.stage
        timeout = aiohttp.ClientTimeout(total=stage.request_timeout_s, sock_read=stage.silence_timeout_s)
        # a session for each stage: a server closes connections that idle between stages, just as they are used again
        connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=_HEADERS | self.job.headers, trace_configs=[_reuse_noted()]
        )

    async def _user(self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, stream: int) -> None:
        await asyncio.sleep(stream * min(_GAP_S, _RAMP_S / self.job.stage.streams))
        while (data := self._next_body(index := next(self._indices))) is not None:
            turns = self._further_turns(index)
            await self._ask(kept, fresh, data, attempt := Attempt(index, stream))
            if turns:
                await self._converse(kept, fresh, attempt, turns)
            if self.aborted:
                return

    def _further_turns(self, index: int) -> list[int]:
        """The requests that continue the conversation which this one begins; nobody else will send them."""
        turns: list[int] = []
        while self._follows[(index + len(turns) + 1) % len(self._follows)]:
            turns.append(next(self._indices))
        return turns

    async def _converse(
        self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, last: Attempt, turns: list[int]
    ) -> None:
        """Continue a conversation until it ends, the stage is over, or a request fails."""
        stage = self.job.stage
        talk = Conversation(stage.request(last.index), self._write)
        for index in turns:
            if self.aborted or self._is_over() or last.looks_failed():
                return
            request = stage.request(index)
            await talk.go_on(bytes(last.data), request)
            data = self._body(index, talk.messages)
            thought_ms = (time.perf_counter_ns() - last.ended_ns) / 1e6
            await asyncio.sleep(max(0.0, request.think_ms - thought_ms) / 1000)
            if not self._is_over():
                await self._ask(kept, fresh, data, last := Attempt(index, last.stream))

    async def _on_schedule(self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, start_ns: int) -> None:
        """Send each request when it is due: nothing that the server does delays another one."""
        free: list[int] = []
        streams = count()
        for index, due_ms in enumerate(self.job.stage.due_ms):
            due_ns = start_ns + round(due_ms * 1e6)
            if (wait_ns := due_ns - time.perf_counter_ns()) > 0:
                await asyncio.sleep(wait_ns / 1e9)
            attempt = Attempt(index, heappop(free) if free else next(streams), due_ns=due_ns)
            self._users.append(asyncio.create_task(self._ask(kept, fresh, self._made[index], attempt)))
            self._users[-1].add_done_callback(partial(_freed, free, attempt.stream))

    async def _ask(
        self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, data: bytes, attempt: Attempt
    ) -> None:
        """Send one request and read its answer to the end."""
        self.attempts.append(attempt)
        self._begin(attempt)
        await self._send(fresh if self._closes else kept, data, attempt)
        if attempt.lost_before_an_answer():
            self._closes = attempt.resent = True  # once it has done so, it will do so again
            attempt.failure = None
            await self._send(fresh, data, attempt)
        self._end(attempt)

    def _next_body(self, index: int) -> bytes | None:
        """The next request's body; ``None`` when the stage has had all that it needs.

        A fresh one is made while the others wait, which takes far less time than the server needs to read it.
        """
        if index < len(self._made):
            return None if self._is_over() else self._made[index]
        return None if self._steady is None or self._is_over() else self._body(index)

    def _is_over(self) -> bool:
        return self._steady is not None and self._steady.over

    def _body(self, index: int, said: Sequence[Message] | None = None) -> bytes:
        stage, model = self.job.stage, self.job.model
        return body(stage.request(index), model=model, temperature=stage.temperature, said=said, write=self._write)

    async def _send(self, session: aiohttp.ClientSession, data: bytes, attempt: Attempt) -> None:
        endpoint = self.job.stage.request(attempt.index).endpoint
        attempt.sent_ns = time.perf_counter_ns()
        attempt.late_ns = attempt.late_ns or attempt.sent_ns - (attempt.due_ns or attempt.sent_ns)
        try:
            async with session.post(
                f"{self.job.url}{endpoint.path}", data=data, headers=endpoint.headers, trace_request_ctx=attempt
            ) as response:
                attempt.status = response.status
                await self._read(response, attempt)
        except TimeoutError as error:
            attempt.failure = RequestFailure(FailureKind.TIMEOUT, self._too_late(error))
        except (aiohttp.ClientError, OSError) as error:
            attempt.failure = RequestFailure(FailureKind.CONNECTION, f"{type(error).__name__}: {error}")
        except Flooded as error:
            attempt.failure = RequestFailure(FailureKind.FLOODED, str(error))
        except asyncio.CancelledError:
            attempt.failure = self._why_cancelled()
            raise
        finally:
            attempt.ended_ns = time.perf_counter_ns()

    async def _read(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        tokens = self.job.stage.request(attempt.index).output_tokens
        self._reading.add(response)
        try:
            async for read in response.content.iter_any():
                attempt.take(read)
                attempt.check_size(tokens)
                self._bytes += len(read)
                if self._bytes > _STAGE_BYTES:
                    raise Flooded(f"more than {_STAGE_BYTES:,} bytes came in one stage")
        finally:
            self._reading.discard(response)

    def _too_late(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"nothing came for {self.job.stage.silence_timeout_s:g} s"
        return f"after {self.job.stage.request_timeout_s:g} s"

    def _why_cancelled(self) -> RequestFailure:
        if self.aborted:
            return RequestFailure(FailureKind.ABANDONED, "too many other requests failed")
        return RequestFailure(FailureKind.CUT, "the stage had measured enough")

    def _begin(self, attempt: Attempt) -> None:
        if self._steady:
            self._steady.sent(attempt)

    def _end(self, attempt: Attempt) -> None:
        """Draw the consequences of a request that is over: too many failures, or enough measured."""
        if self._steady:
            self._steady.done(attempt, attempt.ended_ns)
        self._answered += 1
        self._failures += attempt.looks_failed()
        stage, fresh = self.job.stage, max(0, len(self.attempts) - len(self._made))
        too_many = self._failures > stage.max_failures + stage.max_failed_share * fresh
        if not self.aborted and (too_many or self._is_over()):
            self.aborted = too_many
            for user in self._users:
                if user is not asyncio.current_task():
                    user.cancel()

    def _result(self, start_ns: int, meter: Meter) -> StageResult:
        stage, hidden = self.job.stage, of_headers(self.job.headers)
        ordered = sorted(self.attempts, key=lambda attempt: attempt.index)
        late_ms = [attempt.late_ns / 1e6 for attempt in ordered if attempt.due_ns is not None]
        return StageResult(
            stage=stage.name,
            streams=self._streams(meter.wall_ms),
            records=tuple(attempt.record(stage, start_ns, hidden) for attempt in ordered),
            wall_ms=round(meter.wall_ms, 3),
            client_cpu_share=round(meter.cpu_share, 4),
            loop_lag_p99_ms=round(lateness_ms(meter.lags_ms, meter.wall_ms, 99), 3),
            loop_lag_max_ms=round(max(meter.lags_ms, default=0.0), 3),
            aborted=self.aborted,
            window=self._window(start_ns),
            started_ns=start_ns,
            send_lag_p99_ms=_rounded(percentile(late_ms, 99)),
            send_lag_max_ms=_rounded(max(late_ms, default=None)),
        )

    def _streams(self, wall_ms: float) -> int:
        """The users; of an open loop, the requests that were in flight on average."""
        if not self.job.stage.due_ms:
            return self.job.stage.streams
        return max(1, round(sum(each.ended_ns - each.sent_ns for each in self.attempts) / 1e6 / wall_ms))

    def _window(self, start_ns: int) -> Window | None:
        """The steady part; ``None`` also for a stage that was given up before its window had ended."""
        if self.job.stage.due_ms:
            return None if self.aborted else self._open_window(start_ns)
        steady = self._steady
        if steady is None or steady.start_ns is None or steady.end_ns is None:
            return None
        return Window(round((steady.start_ns - start_ns) / 1e6, 3), round((steady.end_ns - start_ns) / 1e6, 3))

    def _open_window(self, start_ns: int) -> Window | None:
        """From the first answer, when the server is no longer empty, until the last sending, when it begins to be."""
        filled_ns = min((each.ended_ns for each in self.attempts if not each.looks_failed()), default=start_ns)
        last_ns = max(each.sent_ns for each in self.attempts)
        ends = (round((moment_ns - start_ns) / 1e6, 3) for moment_ns in (filled_ns, last_ns))
        return Window(*ends) if start_ns < filled_ns < last_ns else None


def _freed(free: list[int], stream: int, _: asyncio.Task[None]) -> None:
    heappush(free, stream)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _reuse_noted() -> aiohttp.TraceConfig:
    """Has each attempt know whether its connection was used before: only then may it be sent again."""
    trace = aiohttp.TraceConfig()

    async def reused(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.reused = True

    trace.on_connection_reuseconn.append(reused)
    return trace


def _unheard(line: bytes) -> None:
    """Nobody follows it."""


def run(job: WorkerCommand, tell: Callable[[bytes], None] = _unheard) -> StageResult:
    """Run one stage on an event loop of its own, without the garbage collector's pauses."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Load(job, tell).run())
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

        def tell(line: bytes) -> None:
            stdout.write(line)
            stdout.flush()

        while True:
            result = run(command(json.loads(lines.get())), tell)
            tell(encode(result).encode() + b"\n")


if __name__ == "__main__":
    main()
