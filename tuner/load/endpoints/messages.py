"""The form of Anthropic's ``/v1/messages``, as Claude Code fills it.

The system prompt is a field of its own. What is said is blocks: a call is a ``tool_use`` of the assistant, its result
a ``tool_result`` of the user, and the thinking in front of a call goes back with its signature. ``cache_control`` marks
the end of the system prompt and of the conversation so far, up to which Anthropic's own servers keep a prompt; vLLM
caches without it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tuner.load.endpoints.form import EndpointForm, Message, spoken

_CACHED = {"cache_control": {"type": "ephemeral"}}
_SYSTEM = ("system", "developer")
_USERS = ("user", "tool")
_OWN = ("tool_use", "tool_result", "thinking", "redacted_thinking", "image")
"""Types of blocks that chat completions have not."""


def heard(system: Any, turns: Iterable[Mapping[str, Any]]) -> list[Message]:
    """What was recorded in this form, in that of chat completions; what is in that form already stays as it is."""
    front = [{"role": "system", "content": text}] if (text := spoken({"content": system})) else []
    return [*front, *(message for turn in turns for message in _heard(turn))]


def _heard(turn: Mapping[str, Any]) -> Iterator[Message]:
    """The results of tools are messages of their own."""
    content = turn.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if not any(block.get("type") in _OWN for block in blocks):
        yield dict(turn)
        return
    for block in blocks:
        if block.get("type") == "tool_result":
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": spoken(block)}
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    parts = [_chat_part(block) for block in blocks if block.get("type") in ("text", "image")]
    thought = next((block for block in blocks if block.get("type") == "thinking"), {})
    if parts or calls or thought:
        kept = {key: thought[key] for key in ("thinking", "signature") if thought.get(key)}
        yield {"role": turn.get("role"), "content": parts or None, **({"tool_calls": calls} if calls else {}), **kept}


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _chat_part(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text", "text": block.get("text") or ""}
    source = block.get("source") or {}
    url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _said(messages: Sequence[Message]) -> dict[str, Any]:
    system = "\n\n".join(spoken(message) for message in messages if message["role"] in _SYSTEM)
    turns = list(_turns(message for message in messages if message["role"] not in _SYSTEM))
    if not system:
        return {"messages": turns}
    if not turns:  # a recorded request of nothing else: the server says what it wants
        return {"system": system, "messages": []}
    *earlier, last = turns[-1]["content"]
    marked = {**turns[-1], "content": [*earlier, {**last, **_CACHED}]}
    return {"system": [{"type": "text", "text": system, **_CACHED}], "messages": [*turns[:-1], marked]}


def _turns(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """Roles alternate, so that the results of several calls are one message of the user."""
    for is_user, together in groupby(messages, lambda message: message["role"] in _USERS):
        blocks = [block for message in together for block in _blocks(message)]
        yield {"role": "user" if is_user else "assistant", "content": blocks or [_text("")]}


def _blocks(message: Message) -> Iterator[dict[str, Any]]:
    if message["role"] == "tool":
        yield {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": spoken(message)}
        return
    if thinking := message.get("thinking"):
        yield {"type": "thinking", "thinking": thinking, "signature": message.get("signature") or ""}
    content = message.get("content")
    if isinstance(content, list):
        yield from map(_part, content)
    elif content:
        yield _text(str(content))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """Of a recorded message: pictures are another type here, all else is the same or is refused by the server."""
    if part.get("type") != "image_url":
        return part
    return {"type": "image", "source": {"type": "url", "url": part["image_url"]["url"]}}


def _input(arguments: str) -> Mapping[str, Any]:
    """A recorded call may be broken; here it has to be an object."""
    try:
        found = json.loads(arguments)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}


def _offer(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    tool = {"name": name, "description": description, "input_schema": schema}
    return {"tools": [tool], "tool_choice": {"type": "auto"}}


FORM = EndpointForm(_said, {"stream": True}, offer=_offer)
