"""One request under way: raw bytes and time stamps now, the record made of them afterwards."""

import time
from array import array
from dataclasses import dataclass, field, replace

from tuner.load import sse
from tuner.load.records import FailureKind, RequestFailure, RequestRecord
from tuner.load.stage import Stage
from tuner.secrets import redact

_TEXT_LIMIT = 500
_ANSWER_BYTES = 1 << 20
_TOKEN_BYTES = 4096
"""A chunk of one token takes 150 to 500 bytes; nothing that is asked for comes near these limits."""
_ENGINE_GAVE_UP = ("abort", "error")
_ERRORS = (b"error: {", b"event: error")
"""How a line begins by which llama.cpp of 2025, and the messages API, say that something went wrong in mid-stream."""


class Flooded(Exception):
    """A server sends far more than was asked for."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the stamps of an answer say without decoding it.

    Attributes:
        first_ns: When the first read came that holds more than the role.
        last_ns: When the last one came.
    """

    first_ns: int
    last_ns: int


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
        reused: Whether it was sent on a connection that had carried another request.
        resent: Whether that connection was dead, so that it had to be sent again.
        due_ns: When it was to be sent; ``None`` in a closed loop.
        late_ns: How much later it was sent, the first time.
        data: The body so far.
        ends: How long the body was after each read.
        times_ns: When each read returned.
    """

    index: int
    stream: int
    sent_ns: int = 0
    ended_ns: int = 0
    status: int | None = None
    failure: RequestFailure | None = None
    reused: bool = False
    resent: bool = False
    due_ns: int | None = None
    late_ns: int = 0
    data: bytearray = field(default_factory=bytearray)
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    times_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def take(self, data: bytes) -> None:
        """Note what a read returned; called as soon as it did."""
        self.times_ns.append(time.perf_counter_ns())
        self.data += data
        self.ends.append(len(self.data))

    def check_size(self, output_tokens: int) -> None:
        """Stop reading what cannot be the answer to a request for so many tokens.

        Raises:
            Flooded: It is longer than any such answer.
        """
        if len(self.data) > _ANSWER_BYTES + _TOKEN_BYTES * output_tokens:
            raise Flooded(f"{len(self.data):,} bytes came for {output_tokens} tokens; the rest was not read")

    def lost_before_an_answer(self) -> bool:
        """Whether it died on a connection that was kept from an earlier request, before a byte was answered.

        A server may close a connection that idles, or that it had announced to keep (llama.cpp does after each
        stream): such a request never reached it.
        """
        lost = self.failure is not None and self.failure.kind is FailureKind.CONNECTION
        return lost and self.reused and not self.resent and self.status is None

    def look(self) -> Look | None:
        """The stamps of an answer that has ended; ``None`` if it failed."""
        if not self.times_ns or self.looks_failed():
            return None
        opening = self.data[: self.ends[0]]
        says_role = b'"role"' in opening or b"message_start" in opening
        only_role = opening.count(b"data:") == 1 and says_role and len(self.times_ns) > 1
        return Look(self.times_ns[only_role], self.times_ns[-1])

    def looks_failed(self) -> bool:
        """Whether it failed, as far as can be told without decoding: enough to stop sending to a dead server."""
        tail = self.data[-4096:]
        told = b'data: {"error"' in tail or tail.startswith(_ERRORS) or any(b"\n" + each in tail for each in _ERRORS)
        return self.failure is not None or self.status != 200 or told

    def record(self, stage: Stage, start_ns: int, secrets: tuple[str, ...]) -> RequestRecord:
        """The record of it, with the secrets cut out of all texts."""
        reply = sse.read(bytes(self.data), self.ends, [_ms(at - self.sent_ns) for at in self.times_ns])
        failure = self._failure(reply)
        return RequestRecord(
            stage=stage.name,
            index=self.index,
            stream=self.stream,
            request=replace(stage.request(self.index), said=""),
            started_ms=_ms(self.sent_ns - start_ns),
            duration_ms=_ms(self.ended_ns - self.sent_ns),
            chunk_ms=tuple(reply.chunk_ms),
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            output_tokens=reply.output_tokens,
            finish_reason=reply.finish_reason,
            tool_called=reply.tool_called,
            characters=reply.characters,
            hidden_tokens=reply.hidden_tokens,
            resent=self.resent,
            opened_ms=reply.opened_ms,
            scheduled_ms=None if self.due_ns is None else _ms(self.due_ns - start_ns),
            status=self.status,
            failure=failure and RequestFailure(failure.kind, redact(failure.text, secrets)[:_TEXT_LIMIT]),
        )

    def _failure(self, reply: sse.Reply) -> RequestFailure | None:
        """The root cause first: a dying engine sends an error chunk and then drops the connection."""
        if self.status not in (None, 200):
            return RequestFailure(FailureKind.HTTP, f"{self.status} {self.data.decode('utf-8', 'replace')}")
        if reply.error is not None:
            if 400 <= (reply.error_code or 0) < 500:  # refused, and said so when the stream had begun
                return RequestFailure(FailureKind.HTTP, f"{reply.error_code} {reply.error}")
            return RequestFailure(FailureKind.SSE_ERROR, reply.error)
        return self.failure or _incomplete(reply)


def _incomplete(reply: sse.Reply) -> RequestFailure | None:
    if reply.malformed is not None:
        return RequestFailure(FailureKind.MALFORMED, reply.malformed)
    if reply.finish_reason is None:
        return RequestFailure(FailureKind.TRUNCATED, f"no finish_reason after {len(reply.chunk_ms)} chunks")
    if reply.finish_reason in _ENGINE_GAVE_UP:
        return RequestFailure(FailureKind.ENGINE_ABORT, f"finish_reason {reply.finish_reason}")
    if reply.prompt_tokens is None or reply.output_tokens is None:
        return RequestFailure(FailureKind.NO_USAGE, f"no usage after {len(reply.chunk_ms)} chunks")
    return None


def _ms(duration_ns: float) -> float:
    return round(duration_ns / 1e6, 3)
