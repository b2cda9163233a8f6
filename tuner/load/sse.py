r"""A streamed answer, read after it has ended: which chunk came when, and what the last ones say.

The streams of all endpoints are read as one: a completion's text is a chat completion's content, and the events of
Anthropic's messages are those chunks that would say the same.

The worker only stamps and keeps raw bytes while it measures. Events are cut out of the bytes before they are decoded,
so neither a multi-byte character nor an event that is split over two reads matters. Lines end at ``\n`` alone:
U+2028 and its kind are legal inside a JSON string, and vLLM sends them unescaped.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

_REASONING_KEYS = ("reasoning", "reasoning_content")
_NO_COUNT = 1 << 63
"""No server counts so far."""
_TEXT_KEYS = ("content", *_REASONING_KEYS)
_STOPS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}
"""Why an answer ended, in the words of chat completions."""


@dataclass(slots=True)
class Reply:
    """What a stream said.

    Attributes:
        chunk_ms: Arrival of each chunk that carries tokens; the first of them carries text or a tool call.
        opened_ms: Arrival of a chunk ahead of them that carries no text, only the role; ``None`` if there was none.
        prompt_tokens: From the last ``usage``; likewise the next two. ``None`` if there was none.
        cached_tokens: Part of the prompt found in the prefix cache.
        output_tokens: Generated tokens.
        reasoning_tokens: How many of them are reasoning, if the server says so.
        finish_reason: Of the only choice.
        tool_called: Whether a tool call delta came.
        reasoned: Whether any reasoning was streamed.
        characters: Length of all text that was streamed, tool calls not included.
        error: The message of an error chunk.
        error_code: The HTTP status that it names, had it not come too late to be one.
        malformed: The beginning of the first event that is no chunk.
    """

    chunk_ms: list[float] = field(default_factory=list)
    opened_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    tool_called: bool = False
    reasoned: bool = False
    characters: int = 0
    error: str | None = None
    error_code: int | None = None
    malformed: str | None = None

    @property
    def hidden_tokens(self) -> int:
        """Reasoning tokens that were counted, but never streamed."""
        return 0 if self.reasoned else self.reasoning_tokens or 0


def read(data: bytes, ends: Sequence[int], times_ms: Sequence[float]) -> Reply:
    """Read a whole stream.

    Args:
        data: All its bytes.
        ends: How many bytes there were after each read.
        times_ms: When each read returned.

    Returns:
        The reply; an event has the time of the read that completed its data line.
    """
    reply = Reply()
    for end, event in _events(data):
        if event == b"[DONE]":
            continue
        try:
            _take(reply, _chunk(event), times_ms[bisect_left(ends, end)])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            reply.malformed = reply.malformed or event[:200].decode("utf-8", "replace")
    return reply


@dataclass(frozen=True, slots=True)
class ChunkText:
    """What one chunk says.

    Attributes:
        content: Of the answer.
        reasoning: Of what goes before it.
        signature: Of that, where the endpoint wants it back.
    """

    content: str
    reasoning: str
    signature: str


def texts(data: bytes) -> Iterator[ChunkText]:
    """What each chunk of a whole stream says; what is no chunk says nothing."""
    for _, event in _events(data):
        try:
            delta = _chunk(event)["choices"][0]["delta"]
            thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
            yield ChunkText(delta.get("content") or "", thought, delta.get("signature") or "")
        except (ValueError, LookupError, TypeError, AttributeError):
            continue


class TokenScore(NamedTuple):
    """A generated token, and how likely its server held it.

    Attributes:
        token: Its text.
        logprob: The natural logarithm of its probability.
        others: The likeliest others, with theirs.
    """

    token: str
    logprob: float
    others: tuple[tuple[str, float], ...] = ()

    def of(self, token: str) -> float | None:
        """The log probability of a token in this place; ``None`` if it was not told."""
        return self.logprob if token == self.token else dict(self.others).get(token)


@dataclass(slots=True)
class Said:
    """What a whole stream said, put together.

    Attributes:
        content: The answer.
        reasoning: What went before it.
        calls: Name and arguments of each call of a tool, as text.
        finish_reason: Of the only choice.
        error: The message of an error chunk.
        tokens: What was generated, where the server tells its log probabilities.
    """

    content: str = ""
    reasoning: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    finish_reason: str | None = None
    error: str | None = None
    tokens: list[TokenScore] = field(default_factory=list)


def said(data: bytes) -> Said:
    """Put a whole stream together; what is no chunk is passed over."""
    whole = Said()
    for _, event in _events(data):
        try:
            chunk = _chunk(event)
            if "error" in chunk:
                whole.error = whole.error or _message(chunk)
            for choice in (chunk.get("choices") or [])[:1]:
                whole.finish_reason = _text(choice.get("finish_reason")) or whole.finish_reason
                _say(whole, choice.get("delta") or {})
                whole.tokens += _scores(choice.get("logprobs") or {})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return whole


def _say(whole: Said, delta: dict[str, Any]) -> None:
    whole.content += delta.get("content") or ""
    whole.reasoning += delta.get("reasoning") or delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or []:
        name, arguments = whole.calls.get(call.get("index", 0), ("", ""))
        function = call.get("function") or {}
        whole.calls[call.get("index", 0)] = (
            name + (function.get("name") or ""),
            arguments + (function.get("arguments") or ""),
        )


def _scores(logprobs: Mapping[str, Any]) -> list[TokenScore]:
    """Of a chunk: chat completions list objects, completions have lists of tokens and of numbers side by side."""
    if (listed := logprobs.get("content")) is not None:
        return [_score(each["token"], each["logprob"], _pairs(each.get("top_logprobs") or ())) for each in listed]
    tokens, numbers = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
    known = zip(tokens, numbers, tops, strict=True)
    return [_score(token, number, (top or {}).items()) for token, number, top in known if number is not None]


def _pairs(listed: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((each["token"], each["logprob"]) for each in listed)


def _score(token: str, logprob: float, tops: Iterable[tuple[str, float]]) -> TokenScore:
    """Rounded to what is looked for; a probability of nothing has no logarithm, and is left out."""
    others = tuple((str(other), round(float(value), 4)) for other, value in tops if other != token and isfinite(value))
    return TokenScore(str(token), round(float(logprob), 4), others)


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each event's data and the position of its end. What a blank line does not close is an event as well."""
    position, end, lines = 0, 0, list[bytes]()
    for line in data.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[5:].strip())
            end = position + len(line)
        elif line.startswith(b"error: {"):  # llama.cpp of 2025, in a stream of status 200
            lines.append(b'{"error":' + line[7:].strip() + b"}")
            end = position + len(line)
        elif not line.strip() and lines:
            yield end, b"\n".join(lines)
            lines = []
        position += len(line) + 1
    if lines:
        yield end, b"\n".join(lines)


def _chunk(event: bytes) -> dict[str, Any]:
    """An event of any endpoint's stream, as a chunk of a chat completion."""
    chunk: dict[str, Any] = json.loads(event)
    if isinstance(chunk.get("type"), str) and "choices" not in chunk:
        return _of_message(chunk)
    for choice in chunk.get("choices") or ():
        if "text" in choice:
            choice["delta"] = {"content": choice["text"]}
    return chunk


def _of_message(event: dict[str, Any]) -> dict[str, Any]:
    """An event of Anthropic's messages; a ping, the end of a block and the like say nothing."""
    match event["type"]:
        case "error":
            return {"error": event.get("error") or "an error without words"}
        case "message_start":
            usage = event["message"].get("usage") or {}
            return {"choices": [{"delta": {"role": "assistant"}}], "usage": _prompt(usage)}
        case "content_block_start":
            return _opened(event.get("index", 0), event["content_block"])
        case "content_block_delta":
            return _said_more(event.get("index", 0), event["delta"])
        case "message_delta":
            return _ended(event.get("delta") or {}, event.get("usage") or {})
        case _:
            return {}


def _opened(index: int, block: dict[str, Any]) -> dict[str, Any]:
    """The name of a tool is generated; a block of text or thinking opens without any."""
    if block["type"] != "tool_use":
        return {}
    return _delta(tool_calls=[{"index": index, "function": {"name": block["name"]}}])


def _said_more(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    match delta["type"]:
        case "text_delta":
            return _delta(content=delta["text"])
        case "thinking_delta":
            return _delta(reasoning=delta["thinking"])
        case "input_json_delta":
            said = delta["partial_json"]
            return _delta(tool_calls=[{"index": index, "function": {"arguments": said}}]) if said else {}
        case "signature_delta":  # not generated: the server makes it
            return {"choices": [{"delta": {"role": "assistant", "signature": delta["signature"]}}]}
        case _:
            return {}


def _ended(delta: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    """A turn that the model ended has one more token, which has no text; one that was cut has not."""
    stopped = delta.get("stop_reason")
    reason = _STOPS.get(stopped, stopped) if isinstance(stopped, str) else stopped
    counts = {**_prompt(usage), "completion_tokens": usage.get("output_tokens")}
    end = {"finish_reason": reason} if reason == "length" else {"finish_reason": reason, "delta": {}}
    return {"choices": [end], "usage": counts}


def _prompt(usage: dict[str, Any]) -> dict[str, Any]:
    """Anthropic counts what came out of the cache, and what went into it, apart from the rest of the prompt."""
    if usage.get("input_tokens") is None:
        return {}
    cached, made = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    return {
        "prompt_tokens": usage["input_tokens"] + (cached or 0) + (made or 0),
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta}]}


def _take(reply: Reply, chunk: dict[str, Any], at_ms: float) -> None:
    if "error" in chunk or chunk.get("object") == "error":
        reply.error, reply.error_code = reply.error or _message(chunk), reply.error_code or _code(chunk)
        return
    if usage := chunk.get("usage"):
        _take_usage(reply, usage)
    for choice in (chunk.get("choices") or [])[:1]:
        reply.finish_reason = _text(choice.get("finish_reason")) or reply.finish_reason
        if "delta" in choice:
            _take_delta(reply, choice["delta"] or {}, at_ms, last=choice.get("finish_reason") is not None)


def _take_delta(reply: Reply, delta: dict[str, Any], at_ms: float, *, last: bool) -> None:
    """An empty delta may be half a character or a token without text: never the first token, but a later one."""
    text = [delta[key] for key in _TEXT_KEYS if isinstance(delta.get(key), str)]
    reply.characters += len(max(text, key=len, default=""))  # both names of reasoning may carry the same text
    reply.reasoned = reply.reasoned or any(delta.get(key) for key in _REASONING_KEYS)
    reply.tool_called = reply.tool_called or bool(delta.get("tool_calls"))
    speaks = any(text) or bool(delta.get("tool_calls"))
    if speaks or (reply.chunk_ms and ("role" not in delta or last)):
        reply.chunk_ms.append(at_ms)
    elif reply.opened_ms is None and not reply.chunk_ms:
        reply.opened_ms = at_ms


def _take_usage(reply: Reply, usage: dict[str, Any]) -> None:
    """The last word counts; the messages API has one of the prompt at the beginning, and may have no other."""
    if "prompt_tokens" in usage:
        reply.prompt_tokens = _count(usage["prompt_tokens"])
        reply.cached_tokens = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    if "completion_tokens" in usage:
        reply.output_tokens = _count(usage["completion_tokens"])
        reply.reasoning_tokens = _count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))


def _count(value: object) -> int | None:
    """A whole number; whether it can be true is for ``tuner.load.doubts`` to say."""
    if value is None:
        return None
    if isinstance(value, int | float) and abs(value) < _NO_COUNT and value == int(value):
        return int(value)
    raise ValueError(value)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(value)


def _message(chunk: dict[str, Any]) -> str:
    error = chunk.get("error") or chunk
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)


def _code(chunk: dict[str, Any]) -> int | None:
    error = chunk.get("error") or chunk
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else None
