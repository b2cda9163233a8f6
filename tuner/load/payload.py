"""The body of a chat completion request, as vLLM and its likes take it."""

import json
from functools import lru_cache
from typing import Any

from tuner.load.prompts import text
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


def body(request: Request, *, model: str, temperature: float, messages: list[dict[str, Any]] | None = None) -> bytes:
    """The JSON to post to ``PATH``; ``messages`` are those of a conversation that the request continues."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": messages or messages_of(request),
        "max_tokens": request.output_tokens,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(fields | (_tool_use(request) if request.tool_call else {"ignore_eos": True})).encode()


def messages_of(request: Request) -> list[dict[str, Any]]:
    """The messages of a request that begins a conversation."""
    if system := request.system:
        return [
            {"role": "system", "content": _shared(system.seed, system.words)},
            {"role": "user", "content": _prompt(request)},
        ]
    if not request.said:
        return [{"role": "user", "content": _prompt(request)}]
    first, *rest = json.loads(request.said)
    news = f"{text(request.seed, _NEWS_WORDS)}\n"
    content = first.get("content") or ""
    changed = news + content if isinstance(content, str) else [{"type": "text", "text": news}, *content]
    return [{**first, "content": changed}, *rest]


def _prompt(request: Request) -> str:
    return " ".join([*(_shared(each.seed, each.words) for each in request.prefix), text(request.seed, request.words)])


@lru_cache(maxsize=1024)
def _shared(seed: str, words: int) -> str:
    return text(seed, words)


def _tool_use(request: Request) -> dict[str, Any]:
    # "auto" as coding agents send it: "required" would measure guided decoding instead
    place = text(request.seed, request.words).title()
    question = f"Use the tool to tell the current weather at {place}. Do nothing else."
    return {
        "messages": [{"role": "user", "content": question}],
        "tools": [_TOOL],
        "tool_choice": "auto",
    }
