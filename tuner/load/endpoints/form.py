"""What an endpoint's requests are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One message as chat completions have it, which is the form that conversations are kept in: ``role``, ``content``,
``tool_calls``, ``tool_call_id``; and ``thinking`` with its ``signature``, which only the messages API takes back."""


@dataclass(frozen=True, slots=True)
class EndpointForm:
    """The form of one endpoint's requests.

    Attributes:
        said: The fields that hold messages.
        streamed: Those with which an answer is streamed, and ends with its token counts.
        exact: Those with which exactly ``max_tokens`` are generated; empty where there are none.
        offer: Those that offer a tool, of its name, description and JSON schema; ``None`` where there are no tools.
    """

    said: Callable[[Sequence[Message]], dict[str, Any]]
    streamed: Mapping[str, Any]
    exact: Mapping[str, Any] = field(default_factory=dict)
    offer: Callable[[str, str, Mapping[str, Any]], dict[str, Any]] | None = None


def spoken(message: Message) -> str:
    """The text of a message's content."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")
