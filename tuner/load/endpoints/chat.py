"""The form of ``/v1/chat/completions``."""

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.load.endpoints.form import EndpointForm, Message

STREAMED: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def _said(messages: Sequence[Message]) -> dict[str, Any]:
    return {"messages": [_own(message) for message in messages]}


def _own(message: Message) -> Message:
    """Clients send no reasoning back."""
    return {key: value for key, value in message.items() if key not in ("thinking", "signature")}


def _offer(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    # "auto" as coding agents send it: "required" would measure guided decoding instead
    function = {"name": name, "description": description, "parameters": schema}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "auto"}


FORM = EndpointForm(_said, STREAMED, exact={"ignore_eos": True}, offer=_offer)
