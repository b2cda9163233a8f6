"""Where a request's tokens go: server-sent events written straight to the connection, or one answer at the end.

Streams are the hot path: what surrounds a token is encoded once, and all tokens of a step go out without a task switch.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from tuner.sim.replies import Kind, Reply
from tuner.sim.scheduler import Request

DONE = b"data: [DONE]\n\n"
_MARK = "\0"


def usage(reply: Reply, generated: int, cached: int | None) -> dict[str, Any]:
    """The ``usage`` object; ``cached`` is shown under ``--enable-prompt-tokens-details`` only."""
    counts: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "total_tokens": reply.prompt_tokens + generated,
        "completion_tokens": generated,
    }
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    return counts


def error_object(message: str, kind: str, code: int, parameter: str | None = None) -> dict[str, Any]:
    """An error as vLLM words it."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


DEAD = error_object(
    "EngineCore encountered an issue. See stack trace (above) for the root cause.", "InternalServerError", 500
)


class Wrapping(Protocol):
    """What surrounds the tokens of one response, in an endpoint's own form."""

    def head(self, counts: Mapping[str, Any]) -> bytes:
        """What opens a stream, with the first token; ``counts`` is the usage so far."""

    def token(self, kind: Kind, text: str) -> bytes:
        """More text."""

    def last(self, kind: Kind, text: str, reason: str) -> bytes:
        """The last text, and why it is the last."""

    def tool_head(self, name: str, reason: str | None) -> bytes:
        """The call of a tool begins."""

    def tail(self, counts: Mapping[str, Any] | None) -> bytes:
        """The end of a stream, with its usage if that is wanted."""

    def broken(self) -> bytes:
        """The engine is dead."""

    def whole(self, reply: Reply, counts: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a response that is not streamed."""


class Envelope:
    """What surrounds the tokens of one response of OpenAI's endpoints.

    Args:
        model: The name that the client asked for.
        is_chat: Chat completion or text completion.
        reasoning_fields: What the version calls reasoning in its deltas.
    """

    def __init__(self, model: str, is_chat: bool, reasoning_fields: tuple[str, ...]) -> None:
        self.id = f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex[:16]}"
        self.created = int(time.time())
        self.model = model
        self.is_chat = is_chat
        self.reasoning_fields = reasoning_fields
        self.tool_id = f"chatcmpl-tool-{uuid.uuid4().hex[:16]}"
        self._parts: dict[tuple[Kind, bool], tuple[bytes, ...]] = {}

    def head(self, counts: Mapping[str, Any]) -> bytes:
        """The first chunk, which only says who speaks; nothing for text completions."""
        if not self.is_chat:
            return b""
        return event(self._chunk([self._choice({"role": "assistant", "content": ""}, None)]))

    def token(self, kind: Kind, text: str) -> bytes:
        """A chunk with more text."""
        parts = self._parts.get((kind, False)) or self._prepare(kind, None)
        return json.dumps(text)[1:-1].encode().join(parts)

    def last(self, kind: Kind, text: str, reason: str) -> bytes:
        """The chunk with the last text and the reason why it is the last."""
        return json.dumps(text)[1:-1].encode().join(self._prepare(kind, reason))

    def tool_head(self, name: str, reason: str | None) -> bytes:
        """The chunk that begins a tool call."""
        call = {"id": self.tool_id, "type": "function", "index": 0, "function": {"name": name, "arguments": ""}}
        return event(self._chunk([self._choice({"tool_calls": [call]}, reason)]))

    def tail(self, counts: Mapping[str, Any] | None) -> bytes:
        """The chunk that holds nothing but the usage, and the end."""
        return (event({**self._chunk([]), "usage": counts}) if counts else b"") + DONE

    def broken(self) -> bytes:
        """An error inside the stream, which then ends as if nothing were wrong."""
        return event(DEAD) + DONE

    def whole(self, reply: Reply, counts: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        texts: dict[str, str] = {"reasoning": "", "content": ""}
        for kind, text in reply.pieces():
            if kind != "tool":
                texts[kind] += text
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reply.finish_reason}
        choice["stop_reason"] = None
        if self.is_chat:
            choice["message"] = self._message(reply, texts)
        else:
            choice["text"] = texts["content"]
        what = "chat.completion" if self.is_chat else "text_completion"
        head = {"id": self.id, "object": what, "created": self.created, "model": self.model}
        return {**head, "choices": [choice], "usage": dict(counts)}

    def _message(self, reply: Reply, texts: Mapping[str, str]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": texts["content"] or None, "tool_calls": []}
        for field in self.reasoning_fields:
            message[field] = texts["reasoning"] or None
        if reply.tool:
            function = {"name": reply.tool[0], "arguments": "".join(reply.tool[1:])}
            message["tool_calls"] = [{"id": self.tool_id, "type": "function", "function": function}]
        return message

    def _prepare(self, kind: Kind, reason: str | None) -> tuple[bytes, ...]:
        choice = self._choice(self._delta(kind, _MARK), reason)
        parts = tuple(part.encode() for part in json.dumps(self._chunk([choice]), separators=_TIGHT).split("\\u0000"))
        whole = (b"data: " + parts[0], *parts[1:-1], parts[-1] + b"\n\n")
        if reason is None:
            self._parts[kind, False] = whole
        return whole

    def _delta(self, kind: Kind, text: str) -> dict[str, Any]:
        if kind == "reasoning":
            return dict.fromkeys(self.reasoning_fields, text)
        if kind == "tool":
            return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        return {"content": text}

    def _choice(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        if self.is_chat:
            return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "token_ids": None}
        text = delta.get("content", "")
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


_TIGHT = (",", ":")


def event(body: Mapping[str, Any]) -> bytes:
    """One chunk of a stream."""
    return b"data: " + json.dumps(body, separators=_TIGHT).encode() + b"\n\n"


class _Sink:
    """What both kinds of answer share."""

    def __init__(self, reply: Reply, job: Request, transport: asyncio.Transport, sent_s: float) -> None:
        self.reply = reply
        self.job = job
        self.transport = transport
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.sent_s = sent_s
        self.first_s: float | None = None
        self.last_s = 0.0
        self.generated = 0

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        if not self.transport.is_closing():
            return self.done.done()
        self._end(False)
        return True

    @property
    def finish_reason(self) -> str:
        """Why generation ends."""
        return self.reply.finish_reason

    def _end(self, complete: bool) -> None:
        if not self.done.done():
            self.done.set_result(complete)


class Answer(_Sink):
    """Counts tokens; the answer is written when all are there."""

    def emit(self, finished: bool) -> None:
        """One more token."""
        self.generated += 1
        if finished:
            self._end(True)

    def fail(self) -> None:
        """The engine is dead."""
        self._end(False)


class Stream(_Sink):
    """Writes every token as it comes.

    Args:
        reply: What is generated.
        job: The request that generates it.
        transport: The connection, its response's head already written, in chunked encoding.
        sent_s: Loop time at which the client's request arrived.
        envelope: What surrounds the tokens.
        include_usage: Whether the stream ends with the usage.
        token_details: Whether the usage tells cached tokens.
        interval: How many tokens go into one event (``--stream-interval``); the first goes alone.
        error_after: Break off with an error after so many tokens; ``None`` never.
    """

    def __init__(
        self,
        reply: Reply,
        job: Request,
        transport: asyncio.Transport,
        sent_s: float,
        envelope: Wrapping,
        *,
        include_usage: bool,
        token_details: bool = False,
        interval: int = 1,
        error_after: int | None = None,
    ) -> None:
        super().__init__(reply, job, transport, sent_s)
        self.envelope = envelope
        self.include_usage = include_usage
        self.token_details = token_details
        self._pieces = reply.pieces()
        self._interval = interval
        self._error_after = error_after
        self._held: list[str] = []
        self._held_kind: Kind = "content"
        self._tool_begun = False

    def emit(self, finished: bool) -> None:
        """One more token."""
        self.generated += 1
        kind, text = next(self._pieces)
        # what came out of the cache is told in the end alone
        data = self.envelope.head(usage(self.reply, 0, None)) if self.generated == 1 else b""
        if self._interval == 1:
            data += self._one(kind, text, finished)
        else:
            data += self._held_back(kind, text, finished)
        if finished:
            data += self.envelope.tail(self._counts(self.generated) if self.include_usage else None)
        elif self._error_after is not None and self.generated >= self._error_after:
            self.fail()
            return
        if data:
            self._write(data)
        if finished:
            self._end(True)

    def fail(self) -> None:
        """The engine is dead: an error inside the stream."""
        if not self.done.done():
            self._write(self.envelope.broken())
        self._end(False)

    def _one(self, kind: Kind, text: str, finished: bool) -> bytes:
        reason = self.reply.finish_reason if finished else None
        if kind == "tool" and not self._tool_begun:
            self._tool_begun = True
            return self.envelope.tool_head(text, reason)
        return self.envelope.token(kind, text) if reason is None else self.envelope.last(kind, text, reason)

    def _held_back(self, kind: Kind, text: str, finished: bool) -> bytes:
        data = b""
        if self._held and (kind != self._held_kind or kind == "tool"):
            data = self._one(self._held_kind, "".join(self._held), False)
            self._held = []
        self._held_kind = kind
        self._held.append(text)
        if finished or self.generated == 1 or len(self._held) >= self._interval:
            data += self._one(kind, "".join(self._held), finished)
            self._held = []
        return data

    def _counts(self, generated: int) -> dict[str, Any]:
        return usage(self.reply, generated, self.job.cached if self.token_details else None)

    def _write(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
