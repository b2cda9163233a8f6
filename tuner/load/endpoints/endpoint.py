"""Which of a server's endpoints answers."""

from collections.abc import Mapping
from enum import StrEnum

_ANTHROPIC_VERSION = "2023-06-01"


class Endpoint(StrEnum):
    """One of those that a load may go to."""

    CHAT = "chat"
    """OpenAI's chat completions."""
    COMPLETIONS = "completions"
    """OpenAI's completions: plain text, without roles or tools."""
    MESSAGES = "messages"
    """Anthropic's messages, which Claude Code sends."""

    @property
    def path(self) -> str:
        """Behind the server's base URL."""
        return f"/v1/{'chat/completions' if self is Endpoint.CHAT else self.value}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What clients of it send in addition."""
        return {"anthropic-version": _ANTHROPIC_VERSION} if self is Endpoint.MESSAGES else {}

    @property
    def has_tools(self) -> bool:
        """Whether a request can offer tools."""
        return self is not Endpoint.COMPLETIONS

    @property
    def is_exact(self) -> bool:
        """Whether a request can ask for exactly so many tokens: the messages API has no ``ignore_eos``.

        vLLM reads a request of that API by its own fields and drops all others without a word.
        """
        return self is not Endpoint.MESSAGES
