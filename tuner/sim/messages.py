"""Anthropic's messages API as vLLM has it: a chat request in another form, and its answer in other events."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuner.sim.replies import BadRequest, Kind, Reply
from tuner.sim.versions import Version

PATH = "/v1/messages"
COUNT_PATH = f"{PATH}/count_tokens"
UNREADABLE = "Bad Request"
"""The type of the error by which FastAPI refuses a body before the endpoint has seen it, in OpenAI's form."""
BROKEN = (
    "2 validation errors for ChatCompletionStreamResponse\nmodel\n  Field required [type=missing, "
    "input_value={'error': {'message': 'En...am': None, 'code': 500}}, input_type=dict]"
)
"""vLLM takes the error of the chat stream that it translates for a chunk, and says that it is none."""
_STOPS: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
_DELTAS: Mapping[Kind, tuple[str, str]] = {
    "content": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "tool": ("input_json_delta", "partial_json"),
}
_MARK = "\0"


def has_messages(version: Version) -> bool:
    """Whether this version serves the API."""
    return version.at_least(0, 11, 1)


def counts_tokens(version: Version) -> bool:
    """Whether it counts tokens without generating any."""
    return version.at_least(0, 20)


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that vLLM makes of a request; what the API does not know, ``ignore_eos``, is dropped.

    Raises:
        BadRequest: A field is missing, or none of the API's.
    """
    for name in ("model", "messages", "max_tokens"):
        if name not in body:
            raise _unreadable("missing", name, "Field required")
    try:
        return _chat_body(body)
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable("value_error", "messages", f"Value error, {error}") from None


def _unreadable(kind: str, name: str, said: str) -> BadRequest:
    found = {"type": kind, "loc": ("body", name), "msg": said}
    return BadRequest(f"1 validation error:\n  {found}", kind=UNREADABLE, parameter=name)


def _chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_function(tool) for tool in body.get("tools") or ()]
    asked = {name: body[name] for name in ("model", "max_tokens", "chat_template_kwargs") if name in body}
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if body.get("stream") else {}
    offered = {"tools": tools, "tool_choice": _choice(body.get("tool_choice"))} if tools else {}
    return {**asked, "messages": list(_spoken(body)), **streamed, **offered}


def _spoken(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The messages in the form of chat completions."""
    if system := _joined(body.get("system") or ""):
        yield {"role": "system", "content": system}
    for message in body["messages"]:
        yield from _converted(message)


def _converted(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The results of tools are messages of their own; a user who says nothing else says nothing."""
    role, content = message["role"], message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        if block["type"] == "tool_result":
            result = _joined(block.get("content") or "")
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result}
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    said = _joined(block for block in blocks if block["type"] == "text")
    if said or role != "user":
        yield {"role": role, "content": said, **({"tool_calls": calls} if calls else {})}


def _joined(content: str | Iterable[Mapping[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(str(block.get("text") or "") for block in content)


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": json.dumps(block.get("input") or {})}
    return {"id": block["id"], "type": "function", "function": function}


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    return {"type": "function", "function": named}


def _choice(choice: Mapping[str, Any] | None) -> str | dict[str, Any]:
    if choice and choice["type"] == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return _CHOICES[choice["type"]] if choice else "auto"


def in_this_form(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of chat completions as this endpoint words it."""
    said = error["error"]
    return {"type": "error", "error": {"type": said["type"], "message": said["message"]}}


def counted(counts: Mapping[str, Any]) -> dict[str, int]:
    """The usage: what came out of the cache is not part of the input."""
    cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens")
    told = {"input_tokens": counts["prompt_tokens"] - (cached or 0), "output_tokens": counts["completion_tokens"]}
    return told if cached is None else {**told, "cache_read_input_tokens": cached}


class MessageEnvelope:
    """What surrounds the tokens of one message.

    Args:
        model: The name that the client asked for.
        done: What ends a stream behind its last event.
    """

    def __init__(self, model: str, done: bytes) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex[:16]}"
        self.model = model
        self.tool_id = f"chatcmpl-tool-{uuid.uuid4().hex[:16]}"
        self._done = done
        self._open: Kind | None = None
        self._index = 0
        self._parts: list[bytes] = []
        self._reason = "stop"

    def head(self, counts: Mapping[str, Any]) -> bytes:
        """The event that opens the message."""
        message = {**self._message([], None), "usage": counted(counts)}
        return _event("message_start", message=message)

    def token(self, kind: Kind, text: str) -> bytes:
        """More text, in a block of its kind."""
        data = b"" if kind == self._open else self._begin(kind, self._block(kind))
        return data + json.dumps(text)[1:-1].encode().join(self._parts)

    def last(self, kind: Kind, text: str, reason: str) -> bytes:
        """The last text; why it is the last is said in the end."""
        self._reason = reason
        return self.token(kind, text)

    def tool_head(self, name: str, reason: str | None) -> bytes:
        """The block of a tool's call begins."""
        self._reason = reason or self._reason
        return self._begin("tool", {"type": "tool_use", "id": self.tool_id, "name": name, "input": {}})

    def tail(self, counts: Mapping[str, Any] | None) -> bytes:
        """The reason and the usage, and the end."""
        usage = {"usage": counted(counts)} if counts else {}
        delta = {"stop_reason": _STOPS[self._reason]}
        return self._end() + _event("message_delta", delta=delta, **usage) + _event("message_stop") + self._done

    def broken(self) -> bytes:
        """The engine is dead: an error, and no end."""
        return _event("error", error={"type": "internal_error", "message": BROKEN})

    def whole(self, reply: Reply, counts: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        texts = {"reasoning": "", "content": ""}
        for kind, text in reply.pieces():
            if kind != "tool":
                texts[kind] += text
        blocks: list[dict[str, Any]] = []
        if thinking := texts["reasoning"]:
            blocks.append({"type": "thinking", "thinking": thinking, "signature": uuid.uuid4().hex})
        if texts["content"]:
            blocks.append({"type": "text", "text": texts["content"]})
        if reply.tool:
            given = _input("".join(reply.tool[1:]))
            blocks.append({"type": "tool_use", "id": self.tool_id, "name": reply.tool[0], "input": given})
        message = self._message(blocks or [{"type": "text", "text": ""}], _STOPS[reply.finish_reason])
        return {**message, "usage": counted(counts)}

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        head = {"id": self.id, "type": "message", "role": "assistant", "content": content, "model": self.model}
        return {**head, "stop_reason": reason, "stop_sequence": None}

    def _block(self, kind: Kind) -> dict[str, Any]:
        name = "thinking" if kind == "reasoning" else "text"
        return {"type": name, name: ""}

    def _begin(self, kind: Kind, block: Mapping[str, Any]) -> bytes:
        data = self._end()
        self._open = kind
        name, field = _DELTAS[kind]
        whole = _event("content_block_delta", delta={"type": name, field: _MARK}, index=self._index)
        self._parts = whole.split(b"\\u0000")
        return data + _event("content_block_start", content_block=block, index=self._index)

    def _end(self) -> bytes:
        """The open block ends, a signature below what it thought."""
        if self._open is None:
            return b""
        data = b""
        if self._open == "reasoning":
            signature = {"type": "signature_delta", "signature": uuid.uuid4().hex}
            data = _event("content_block_delta", delta=signature, index=self._index)
        data += _event("content_block_stop", index=self._index)
        self._open = None
        self._index += 1
        return data


def _input(arguments: str) -> Any:
    """Arguments that were cut off are an error of the server, whose stream hands them on as they are."""
    try:
        return json.loads(arguments)
    except ValueError as error:
        raise BadRequest(str(error), 500, "internal_error") from None


def _event(name: str, **fields: Any) -> bytes:
    data = json.dumps({"type": name, **fields}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()
