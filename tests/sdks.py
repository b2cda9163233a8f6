"""OpenAI's and Anthropic's own clients, and what they find at any server: the simulated engine, or vLLM."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai

from tuner.load.client import LoadClient
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.records import StageResult
from tuner.load.stage import Request, Stage
from tuner.load.target import Target

TOKENS = 12
QUESTION: list[Any] = [{"role": "user", "content": "Tell me a story."}]
EXACTLY = {"ignore_eos": True}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}
FUNCTION: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
THINKING = {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}}


@dataclass(frozen=True, slots=True)
class Clients:
    """Both, of one server."""

    openai: openai.OpenAI
    anthropic: anthropic.Anthropic
    url: str
    model: str


@contextmanager
def clients(url: str, model: str, key: str = "none") -> Iterator[Clients]:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120) as one,
        anthropic.Anthropic(base_url=url, auth_token=key, max_retries=0, timeout=120) as other,
    ):
        yield Clients(one, other, url, model)


def chat_is_understood(own: Clients) -> None:
    """OpenAI's client reads a chat completion, streamed and whole."""
    asked: Any = {"model": own.model, "messages": QUESTION, "max_tokens": TOKENS, "extra_body": EXACTLY}
    counted: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = own.openai.chat.completions.create(**asked, **counted)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    whole = own.openai.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == whole.usage.completion_tokens == TOKENS
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def completions_are_understood(own: Clients) -> None:
    """OpenAI's client reads a plain completion, streamed and whole."""
    asked: Any = {"model": own.model, "prompt": "Once upon a time", "max_tokens": TOKENS, "extra_body": EXACTLY}
    counted: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = own.openai.completions.create(**asked, **counted)
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    whole = own.openai.completions.create(**asked)
    assert last.usage.completion_tokens == whole.usage.completion_tokens == TOKENS


def messages_are_understood(own: Clients) -> None:
    """Anthropic's client reads a message, streamed and whole, and puts the deltas together to blocks."""
    asked: Any = {"model": own.model, "messages": QUESTION, "max_tokens": TOKENS}
    with own.anthropic.messages.stream(**asked) as stream:
        events: list[Any] = list(stream)
        message: Any = stream.get_final_message()
    assert events[0].type == "message_start"
    assert events[-1].type == "message_stop"
    assert message.role == "assistant"
    assert message.stop_reason in ("max_tokens", "end_turn")
    assert 0 < message.usage.output_tokens <= TOKENS
    whole: Any = own.anthropic.messages.create(**asked)
    assert whole.usage.input_tokens == message.usage.input_tokens
    assert {block.type for block in (*message.content, *whole.content)} <= {"text", "thinking"}
    counted = own.anthropic.messages.count_tokens(model=own.model, messages=QUESTION)
    assert counted.input_tokens == whole.usage.input_tokens


def turns_of_an_agent_are_understood(own: Clients) -> None:
    """What ``tuner.load`` sends of a conversation is what Anthropic's client would send: the same prompt."""
    call: Any = {"type": "tool_use", "id": "call1", "name": "read_file", "input": {"path": "a"}}
    result: Any = {"type": "tool_result", "tool_use_id": "call1", "content": "b"}
    kept: Any = {"cache_control": {"type": "ephemeral"}}
    turns: Any = [
        *QUESTION,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
        {"role": "user", "content": [{**result, **kept}]},
    ]
    system: Any = [{"type": "text", "text": "Be brief.", **kept}]
    message: Any = own.anthropic.messages.create(model=own.model, system=system, messages=turns, max_tokens=TOKENS)
    alone = own.anthropic.messages.count_tokens(model=own.model, messages=QUESTION)
    assert message.usage.input_tokens > alone.input_tokens


def reasoning_is_streamed(own: Clients) -> None:
    """What the model thinks is a delta of its own kind, and for Anthropic's client a block with a signature."""
    asked: Any = {"model": own.model, "messages": QUESTION, "max_tokens": TOKENS}
    chunks: Any = own.openai.chat.completions.create(**asked, stream=True, extra_body={**EXACTLY, **THINKING})
    thought = [one.delta.model_extra.get("reasoning") for chunk in chunks for one in chunk.choices]
    assert "".join(text or "" for text in thought)
    with own.anthropic.messages.stream(**asked, extra_body=THINKING) as stream:
        kinds = [event.type for event in stream]
        block: Any = stream.get_final_message().content[0]
    assert kinds.index("thinking") < kinds.index("signature")
    assert block.type == "thinking"
    assert block.thinking
    assert block.signature


def a_forced_call_is_streamed(own: Clients) -> None:
    """A tool that must be called is, in deltas that both clients read."""
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    # of random weights, what is drawn may begin in a way that no client puts together
    asked: Any = {"model": own.model, "messages": QUESTION, "max_tokens": 64, "extra_body": {"temperature": 0}}
    chunks: Any = own.openai.chat.completions.create(**asked, tools=[FUNCTION], tool_choice=choice, stream=True)
    calls = [call for chunk in chunks for one in chunk.choices for call in one.delta.tool_calls or ()]
    assert calls[0].function.name == "get_weather"
    assert "".join(call.function.arguments or "" for call in calls)
    forced: Any = {"type": "tool", "name": "get_weather"}
    with own.anthropic.messages.stream(**asked, tools=[TOOL], tool_choice=forced) as stream:
        events: list[Any] = list(stream)
    started = [event.content_block for event in events if event.type == "content_block_start"]
    assert [block.name for block in started if block.type == "tool_use"] == ["get_weather"]
    assert "".join(event.partial_json for event in events if event.type == "input_json")


def refusals_are_understood(own: Clients) -> None:
    """Both clients raise what the status says, with the server's words."""
    many = 1_000_000
    for refused, status in (({"model": "nobody"}, 404), ({"max_tokens": many}, 400)):
        asked: Any = {"model": own.model, "messages": QUESTION, "max_tokens": TOKENS, **refused}
        errors: list[openai.APIStatusError | anthropic.APIStatusError] = []
        for create in (own.openai.chat.completions.create, own.anthropic.messages.create):
            try:
                create(**asked)
            except (openai.APIStatusError, anthropic.APIStatusError) as error:
                errors.append(error)
        assert [error.status_code for error in errors] == [status, status]
        assert all(str(many) in str(error) or "nobody" in str(error) for error in errors), errors


def loads_agree(own: Clients, client: LoadClient) -> dict[Endpoint, StageResult]:
    """tuner's own client reads all three endpoints of the same server: nothing fails, and prompts count the same."""
    results = {}
    for endpoint in Endpoint:
        sent = tuple(Request(f"sdk/{n}", 20, None, TOKENS, endpoint=endpoint) for n in range(4))
        stage = Stage(f"load_{endpoint}", 2, sent, 0.7, 120.0, 0)
        results[endpoint] = client.run(stage, Target(own.url, {}, own.model))
    for endpoint, result in results.items():
        assert [record.failure for record in result.records] == [None] * 4, endpoint
        for record in result.records:
            assert 0 < (record.output_tokens or 0) <= TOKENS
            assert len(record.chunk_ms) <= (record.output_tokens or 0) + 1
            assert record.ttft_ms is not None
    chat, message = (
        [record.prompt_tokens for record in results[each].records] for each in (Endpoint.CHAT, Endpoint.MESSAGES)
    )
    assert chat == message
    return results


EVERYWHERE: tuple[Callable[[Clients], None], ...] = (
    chat_is_understood,
    completions_are_understood,
    messages_are_understood,
    turns_of_an_agent_are_understood,
    reasoning_is_streamed,
    a_forced_call_is_streamed,
    refusals_are_understood,
)
"""What holds at every server, simulated or not."""
