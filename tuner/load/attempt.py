"""One request under way: raw bytes and time stamps now, the record made of them afterwards."""

import time
from array import array
from dataclasses import dataclass, field

from tuner.load import sse
from tuner.load.records import Failure, FailureKind, RequestRecord
from tuner.load.stage import Stage
from tuner.secrets import redact

_TEXT_LIMIT = 500
_ENGINE_GAVE_UP = ("abort", "error")


@dataclass(slots=True)
class Attempt:
    """What is noted while a request runs; nothing is decoded.

    Attributes:
        index: Of the request in its stage.
        stream: Who sends it.
        sent_ns: On the clock of ``perf_counter_ns``.
        ended_ns: The same, when it was over for good or ill.
        status: HTTP status of the response, once there is one.
        failure: What the client itself saw go wrong.
        data: The body so far.
        ends: How long the body was after each read.
        times_ns: When each read returned.
    """

    index: int
    stream: int
    sent_ns: int = 0
    ended_ns: int = 0
    status: int | None = None
    failure: Failure | None = None
    data: bytearray = field(default_factory=bytearray)
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    times_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def take(self, data: bytes) -> None:
        """Note what a read returned; called as soon as it did."""
        self.times_ns.append(time.perf_counter_ns())
        self.data += data
        self.ends.append(len(self.data))

    def looks_failed(self) -> bool:
        """Whether it failed, as far as can be told without decoding: enough to stop sending to a dead server."""
        return self.failure is not None or self.status != 200 or b'data: {"error"' in self.data[-4096:]

    def record(self, stage: Stage, start_ns: int, secrets: tuple[str, ...]) -> RequestRecord:
        """The record of it, with the secrets cut out of all texts."""
        reply = sse.read(bytes(self.data), self.ends, [_ms(at - self.sent_ns) for at in self.times_ns])
        failure = self._failure(reply)
        return RequestRecord(
            stage=stage.name,
            index=self.index,
            stream=self.stream,
            request=stage.request(self.index),
            started_ms=_ms(self.sent_ns - start_ns),
            duration_ms=_ms(self.ended_ns - self.sent_ns),
            chunk_ms=tuple(reply.chunk_ms),
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            output_tokens=reply.output_tokens,
            finish_reason=reply.finish_reason,
            tool_called=reply.tool_called,
            status=self.status,
            failure=failure and Failure(failure.kind, redact(failure.text, secrets)[:_TEXT_LIMIT]),
        )

    def _failure(self, reply: sse.Reply) -> Failure | None:
        """The root cause first: a dying engine sends an error chunk and then drops the connection."""
        if self.status not in (None, 200):
            return Failure(FailureKind.HTTP, f"{self.status} {self.data.decode('utf-8', 'replace')}")
        if reply.error is not None:
            return Failure(FailureKind.SSE_ERROR, reply.error)
        return self.failure or _incomplete(reply)


def _incomplete(reply: sse.Reply) -> Failure | None:
    if reply.malformed is not None:
        return Failure(FailureKind.MALFORMED, reply.malformed)
    if reply.finish_reason is None:
        return Failure(FailureKind.TRUNCATED, f"no finish_reason after {len(reply.chunk_ms)} chunks")
    if reply.finish_reason in _ENGINE_GAVE_UP:
        return Failure(FailureKind.ENGINE_ABORT, f"finish_reason {reply.finish_reason}")
    if reply.prompt_tokens is None or reply.output_tokens is None:
        return Failure(FailureKind.NO_USAGE, f"no usage after {len(reply.chunk_ms)} chunks")
    return None


def _ms(duration_ns: float) -> float:
    return round(duration_ns / 1e6, 3)
