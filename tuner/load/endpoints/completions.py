"""The form of ``/v1/completions``: one text, whoever said its parts."""

import json
from collections.abc import Sequence
from typing import Any

from tuner.load.endpoints.chat import STREAMED
from tuner.load.endpoints.form import EndpointForm, Message, spoken


def _said(messages: Sequence[Message]) -> dict[str, Any]:
    return {"prompt": "\n\n".join(map(_text, messages))}


def _text(message: Message) -> str:
    """Calls that a recorded conversation holds are part of the text."""
    calls = message.get("tool_calls")
    return spoken(message) + (json.dumps(calls) if calls else "")


FORM = EndpointForm(_said, STREAMED, exact={"ignore_eos": True})
