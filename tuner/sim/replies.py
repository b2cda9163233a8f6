"""What a request asks for, and what it is answered: prompts from messages, lengths, reasoning, tool calls."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.sim import tokens
from tuner.sim.settings import Settings

Kind = Literal["reasoning", "content", "tool"]

TOOL_CALL_TOKENS = 44
"""Reasoning and call together (1.0 s at 55 tokens/s at the first user's site, the way to the server included)."""
REASONING_SHARE = 0.4
_PLACE = re.compile(r"\bin ([A-Z]\w+)")
NATURAL_TOKENS = range(48, 304)
"""Lengths of answers that end by themselves."""


class BadRequest(Exception):
    """The request is refused.

    Attributes:
        status: HTTP status.
        kind: vLLM's name for the error.
        parameter: Which part of the request is at fault, or ``None``.
    """

    def __init__(
        self, message: str, status: int = 400, kind: str = "BadRequestError", parameter: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Parsers:
    """What the command line says about understanding the model's output.

    Attributes:
        reasoning: Whether a reasoning parser is set.
        tools: Whether the model may call tools by itself.
    """

    reasoning: bool
    tools: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What will be generated.

    Attributes:
        prompt: The rendered prompt, or its token numbers.
        prompt_tokens: Its length.
        reasoning: Tokens of reasoning.
        content: Tokens of the answer.
        tool: Name and argument pieces of a tool call; each is one token.
        finish_reason: ``length``, ``stop`` or ``tool_calls``.
        garbled: Whether the answer is nonsense.
    """

    prompt: str | Sequence[int]
    prompt_tokens: int
    reasoning: int
    content: int
    tool: tuple[str, ...]
    finish_reason: str
    garbled: bool = False

    @property
    def total(self) -> int:
        """All generated tokens."""
        return self.reasoning + self.content + len(self.tool)

    def pieces(self) -> Iterator[tuple[Kind, str]]:
        """The generated tokens in order."""
        words = tokens.generated(tokens.seed_of(self.prompt))
        for index in range(self.reasoning + self.content):
            word = "!!!!" if self.garbled else next(words).decode()
            yield ("reasoning" if index < self.reasoning else "content"), word
        for piece in self.tool:
            yield "tool", piece


def chat(body: Mapping[str, Any], settings: Settings, parsers: Parsers) -> Reply:
    """What a chat request will be answered.

    Raises:
        BadRequest: It is malformed, too long, or asks for tools that are not enabled.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
    prompt = render(messages, body.get("tools"))
    limit = _limit(body, tokens.count(prompt), settings, "messages")
    tool = _tool_call(body, parsers)
    thinking = parsers.reasoning and (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
    if tool:
        return _tool_reply(prompt, tool, limit, bool(thinking))
    total, reason = _length(body, limit, tokens.seed_of(prompt))
    reasoning = max(1, int(total * REASONING_SHARE)) if thinking else 0
    return Reply(prompt, tokens.count(prompt), reasoning, total - reasoning, (), reason)


def completion(body: Mapping[str, Any], settings: Settings) -> Reply:
    """What a completion request will be answered.

    Raises:
        BadRequest: It is malformed or too long.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    is_text = isinstance(prompt, str)
    if not is_text and not (isinstance(prompt, list) and all(isinstance(item, int) for item in prompt)):
        raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.")
    assert isinstance(prompt, str | list)
    length = tokens.count(prompt) if isinstance(prompt, str) else len(prompt)
    if not length:
        raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.")
    limit = _limit({"max_tokens": 16, **body}, length, settings, "prompt")
    total, reason = _length(body, limit, tokens.seed_of(prompt))
    return Reply(prompt, length, 0, total, (), reason)


def render(messages: Sequence[Mapping[str, Any]], tools: object = None) -> str:
    """The chat template: every message begins on a token boundary, so that equal beginnings share their tokens."""
    parts = [_padded(f"<|tools|>{json.dumps(tools)}")] if tools else []
    for message in messages:
        if not isinstance(message, dict):
            raise BadRequest("each message must be an object")
        parts.append(_padded(f"<|{message.get('role', 'user')}|>"))
        parts.append(_padded(_content(message)))
    return "".join([*parts, _padded("<|assistant|>")])


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    text = str(content or "")
    calls = message.get("tool_calls")
    return text + json.dumps(calls) if calls else text


def _padded(text: str) -> str:
    return text + "\n" * (-len(text) % tokens.CHARACTERS)


def _limit(body: Mapping[str, Any], prompt_tokens: int, settings: Settings, what: str) -> int:
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    longest = settings.max_model_len
    if prompt_tokens >= longest or (asked is not None and prompt_tokens + int(asked) > longest):
        completion_tokens = int(asked or 1)
        raise BadRequest(
            f"This model's maximum context length is {longest} tokens. However, you requested "
            f"{prompt_tokens + completion_tokens} tokens ({prompt_tokens} in the {what}, {completion_tokens} in the "
            f"completion). Please reduce the length of the {what} or completion."
        )
    if asked is not None and int(asked) < 1:
        raise BadRequest(f"max_tokens must be at least 1, got {asked}.", parameter="max_tokens")
    return int(asked) if asked is not None else longest - prompt_tokens


def _length(body: Mapping[str, Any], limit: int, seed: int) -> tuple[int, str]:
    natural = max(NATURAL_TOKENS[seed % len(NATURAL_TOKENS)], int(body.get("min_tokens") or 0))
    if body.get("ignore_eos") or natural >= limit:
        return limit, "length"
    return natural, "stop"


def _tool_call(body: Mapping[str, Any], parsers: Parsers) -> tuple[str, ...]:
    """Name and arguments of the call that the request provokes, in pieces; empty for none."""
    tools, choice = body.get("tools"), body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return ()
    if choice == "auto" and not parsers.tools:
        raise BadRequest('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    functions = [tool.get("function", {}) for tool in tools]
    wanted = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    function = next((item for item in functions if item.get("name") == wanted), functions[0])
    arguments = json.dumps(_arguments(function.get("parameters") or {}, _content(body["messages"][-1])))
    return (str(function.get("name", "")), *tokens.split(arguments))


def _arguments(schema: Mapping[str, Any], question: str) -> dict[str, object]:
    properties = schema.get("properties") or {}
    names = schema.get("required") or list(properties)
    return {name: _example(properties.get(name) or {}, question) for name in names}


def _example(schema: Mapping[str, Any], question: str) -> object:
    """What the question is about, as far as it can be told without understanding it."""
    if choices := schema.get("enum"):
        return next((choice for choice in choices if str(choice) in question), choices[0])
    examples = {"integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}}
    place = _PLACE.search(question)
    return examples.get(str(schema.get("type")), place.group(1) if place else "Paris")


def _tool_reply(prompt: str, tool: tuple[str, ...], limit: int, thinking: bool) -> Reply:
    reasoning = max(4, TOOL_CALL_TOKENS - len(tool)) if thinking else 0
    reasoning = min(reasoning, limit)
    called = tool[: limit - reasoning]
    reason = "tool_calls" if len(called) == len(tool) else "length"
    return Reply(prompt, tokens.count(prompt), reasoning, 0, called, reason)
