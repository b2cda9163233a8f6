"""What is asked, and what a right answer is: ``conf/quality/*.yaml``, and users' own."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveInt, model_validator

from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.prompts import text
from tuner.schema import Schema

_ALTERNATIVES = 2
"""Tokens in a place whose log probabilities are told: where two servers part, the other's token is one of them."""


class Tool(Schema):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, JsonValue]
    """JSON Schema of an object: ``properties`` with ``type`` and ``enum``, and ``required``."""


class Call(Schema):
    """The call that is right."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Those that must have these values; texts are compared without regard to case."""


class Case(Schema):
    """A question, once for each combination of its values."""

    prompt: str
    """``{name}`` stands for a value of ``each``."""
    each: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    fact: str | None = None
    """A sentence that is hidden in the middle of the filler."""
    filler_words: Annotated[int, Field(ge=0)] = 0
    """So many random words around the fact, in front of the question."""
    tools: tuple[Tool, ...] = ()
    call: Call | None = None
    answer: str | None = None
    """Regular expression that the answer has to hold; ``{name}`` as in ``prompt``. Without ``call`` and ``answer`` any
    text is right that is one, and two servers are compared word for word."""
    max_tokens: PositiveInt = 64
    ends: bool = True
    """Whether a right answer ends by itself within ``max_tokens``."""

    @model_validator(mode="after")
    def _can_be_right(self) -> "Case":
        if self.call and self.call.name not in {tool.name for tool in self.tools}:
            raise ValueError(f"call.name {self.call.name!r} is none of its tools")
        if self.fact and not self.filler_words:
            raise ValueError("a fact is hidden among filler_words: say how many")
        if self.answer is not None:
            try:
                re.compile(_filled(self.answer, {name: re.escape(values[0]) for name, values in self.each.items()}))
            except re.error as error:
                raise ValueError(f"answer is no regular expression: {error}") from error
        return self

    @property
    def family(self) -> str:
        """Which cases are judged together."""
        if self.call:
            return "tool calls"
        return ("long context" if self.filler_words else "answers") if self.answer else "texts"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        name: The case, and the values of this one.
        case: The case.
        values: What stands for each placeholder.
        seed: Makes its filler and its first words.
        endpoint: Where it goes.
    """

    name: str
    case: Case
    values: Mapping[str, str]
    seed: str
    endpoint: Endpoint = Endpoint.CHAT

    @property
    def scored(self) -> bool:
        """Whether log probabilities are asked for: with tools some servers refuse them, and a call is judged anyway."""
        return not self.case.tools

    @property
    def answer(self) -> re.Pattern[str] | None:
        """What a right answer holds."""
        if self.case.answer is None:
            return None
        values = {name: re.escape(value) for name, value in self.values.items()}
        return re.compile(_filled(self.case.answer, values), re.IGNORECASE)

    @property
    def arguments(self) -> Mapping[str, JsonValue]:
        """What the call must be given."""
        asked = self.case.call.arguments if self.case.call else {}
        return {name: _filled(v, self.values) if isinstance(v, str) else v for name, v in asked.items()}

    def body(self, model: str, *, scored: bool = False) -> dict[str, Any]:
        """The request, streamed as clients have it; at temperature 0, so that its answer is the same each time.

        Args:
            model: The name that clients ask for.
            scored: Whether to ask for log probabilities.
        """
        fields: dict[str, Any] = {
            "model": model,
            **self._said(scored=scored),
            "max_tokens": self.case.max_tokens,
            "temperature": 0,
            "stream": True,
        }
        tools = [{"type": "function", "function": tool.model_dump()} for tool in self.case.tools]
        return fields | ({"tools": tools, "tool_choice": "auto"} if tools else {})

    def _said(self, *, scored: bool) -> dict[str, Any]:
        """What is asked, and for the log probabilities, in the endpoint's own form."""
        if self.endpoint is Endpoint.COMPLETIONS:
            return {"prompt": self._content} | ({"logprobs": _ALTERNATIVES} if scored else {})
        asked = {"logprobs": True, "top_logprobs": _ALTERNATIVES} if scored else {}
        return {"messages": [{"role": "user", "content": self._content}], **asked}

    @property
    def _content(self) -> str:
        question = _filled(self.case.prompt, self.values)
        if not self.case.filler_words:
            return question
        half = max(1, self.case.filler_words // 2)
        parts = (text(f"{self.seed}/1", half), _filled(self.case.fact or "", self.values), text(f"{self.seed}/2", half))
        return "\n".join((*filter(None, parts), question))


class Quality(Schema):
    """All that is asked of a server."""

    name: str = "none"
    cases: dict[str, Case] = Field(default_factory=dict)
    concurrency: PositiveInt = 16
    """Requests at a time."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """How often equal servers may be called different, over all families together."""
    endpoint: Literal["chat", "completions"] = "chat"
    """Where questions go: completions for a model without a chat template, which calls no tools."""
    drift_nats: Annotated[float, Field(ge=0)] = 0.05
    """By so much more than in its own repeat the first server's log probabilities may be off in an answer of the second
    one's, in the mean over its tokens: less is rounding."""
    drift_refuses: bool = False
    """Whether more of it makes the second server worse; else it is only told."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> "Quality":
        calling = next((name for name, case in self.cases.items() if case.tools), None)
        if calling and self.endpoint == "completions":
            raise ValueError(f"cases.{calling} offers tools, for which completions have no form: say endpoint chat")
        return self

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the questions: equal for equal ones, however they are judged."""
        elsewhere = {"endpoint"} if self.endpoint != "chat" else set[str]()
        said = self.model_dump(mode="json", include={"name", "cases", *elsewhere})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    def asks(self) -> tuple[Ask, ...]:
        """Every request, in the order of the file."""
        return tuple(self._asks())

    def _asks(self) -> Iterator[Ask]:
        for name, case in self.cases.items():
            for values in product(*case.each.values()):
                full = f"{name} ({', '.join(values)})" if values else name
                filled = dict(zip(case.each, values, strict=True))
                yield Ask(full, case, filled, f"{self.name}/{full}", Endpoint(self.endpoint))


def _filled(template: str, values: Mapping[str, str]) -> str:
    """``str.format`` would trip over the braces of JSON and of regular expressions."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template
