"""The body of a chat completion request, as vLLM and its likes take it."""

import json
from functools import lru_cache
from typing import Any

from tuner.load.prompts import Writer, text
from tuner.load.stage import Request

PATH = "/v1/chat/completions"

_NEWS_WORDS = 6
"""So many words make a beginning that no other measurement has (see ``tuner.load.prompts``)."""
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The current weather at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def body(
    request: Request,
    *,
    model: str,
    temperature: float,
    messages: list[dict[str, Any]] | None = None,
    write: Writer = text,
) -> bytes:
    """The JSON to post to ``PATH``; ``messages`` are those of a conversation that the request continues."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": messages or messages_of(request, write),
        "max_tokens": request.output_tokens,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(fields | (_tool_use(request) if request.tool_call else {"ignore_eos": True})).encode()


def messages_of(request: Request, write: Writer) -> list[dict[str, Any]]:
    """The messages of a request that begins a conversation."""
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


def _tool_use(request: Request) -> dict[str, Any]:
    # "auto" as coding agents send it: "required" would measure guided decoding instead
    place = text(request.seed, request.words).title()
    question = f"Use the tool to tell the current weather at {place}. Do nothing else."
    return {
        "messages": [{"role": "user", "content": question}],
        "tools": [_TOOL],
        "tool_choice": "auto",
    }
