"""The body of a request to any of the endpoints, as vLLM and its likes take it."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tuner.load.endpoints import chat, completions, messages
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.endpoints.form import EndpointForm, Message
from tuner.load.prompts import Writer, text
from tuner.load.stage import Request

_FORMS: Mapping[Endpoint, EndpointForm] = {
    Endpoint.CHAT: chat.FORM,
    Endpoint.COMPLETIONS: completions.FORM,
    Endpoint.MESSAGES: messages.FORM,
}
_NEWS_WORDS = 6
"""So many words make a beginning that no other measurement has (see ``tuner.load.prompts``)."""
_TOOL = "get_weather"
_DOES = "The current weather at a place."
_TAKES = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


def body(
    request: Request,
    *,
    model: str,
    temperature: float,
    said: Sequence[Message] | None = None,
    write: Writer = text,
) -> bytes:
    """The JSON to post to the request's endpoint; ``said`` are the messages of a conversation that it continues."""
    form = _FORMS[request.endpoint]
    fields: dict[str, Any] = {
        "model": model,
        "max_tokens": request.output_tokens,
        "temperature": temperature,
        **form.said(said or messages_of(request, write)),
        **form.streamed,
    }
    offer = form.offer(_TOOL, _DOES, _TAKES) if request.tool_call and form.offer else {}
    return json.dumps({**fields, **(offer or form.exact)}).encode()


def greeting(endpoint: Endpoint, model: str) -> dict[str, Any]:
    """The shortest request, which is not streamed: whether an endpoint answers."""
    said = _FORMS[endpoint].said([{"role": "user", "content": "Hello"}])
    return {"model": model, "max_tokens": 1, **said}


def messages_of(request: Request, write: Writer) -> list[Message]:
    """The messages of a request that begins a conversation."""
    if request.tool_call:
        return [{"role": "user", "content": _question(request)}]
    if system := request.system:
        return [
            {"role": "system", "content": _shared(write, system.seed, system.words)},
            {"role": "user", "content": _prompt(request, write)},
        ]
    if not request.said:
        return [{"role": "user", "content": _prompt(request, write)}]
    first, *rest = json.loads(request.said)
    news = f"{text(request.seed, _NEWS_WORDS)}\n"
    content = first.get("content") or ""
    changed = news + content if isinstance(content, str) else [{"type": "text", "text": news}, *content]
    return [{**first, "content": changed}, *rest]


def _prompt(request: Request, write: Writer) -> str:
    shared = (_shared(write, each.seed, each.words) for each in request.prefix)
    return " ".join([*shared, write(request.seed, request.words)])


@lru_cache(maxsize=1024)
def _shared(write: Writer, seed: str, words: int) -> str:
    return write(seed, words)


def _question(request: Request) -> str:
    place = text(request.seed, request.words).title()
    return f"Use the tool to tell the current weather at {place}. Do nothing else."
