"""OpenAI's and Anthropic's own clients talk to the simulated engine as they do to vLLM."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests import sdks
from tests.sdks import Clients
from tests.sim.conftest import Launch, launcher
from tests.sim.test_server import QUICK, SERVICE
from tuner.load.client import LoadClient
from tuner.load.endpoints.endpoint import Endpoint

MODEL = "glm-4.7-flash"
SIM = f"{QUICK} --sim-version 0.26"
PLAIN = SERVICE.replace("--enable-prompt-tokens-details", "")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with launcher(tmp_path_factory.mktemp("sdks")) as launch:
        server = launch(PLAIN, sim=SIM).wait_ready()
        with sdks.clients(server.url, MODEL) as own:
            yield own


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launcher(tmp_path) as start:
        yield start


@pytest.mark.parametrize("holds", sdks.EVERYWHERE)
def test_both_clients_understand_it(own: Clients, holds: Any) -> None:
    holds(own)


def test_tuners_own_client_reads_all_three(own: Clients) -> None:
    with LoadClient() as client:
        results = sdks.loads_agree(own, client)
    exact = [results[each] for each in (Endpoint.CHAT, Endpoint.COMPLETIONS)]
    assert {record.output_tokens for result in exact for record in result.records} == {sdks.TOKENS}


def test_openais_client_reads_reasoning_and_tool_calls_as_deltas(own: Clients) -> None:
    asked: Any = {"model": MODEL, "messages": sdks.QUESTION, "max_tokens": 200, "tools": [sdks.FUNCTION]}
    chunks: Any = list(own.openai.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    thought = "".join(delta.model_extra.get("reasoning") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert thought
    assert "".join(call.function.arguments or "" for call in calls) == '{"city": "Oslo"}'
    message: Any = own.openai.chat.completions.create(**asked).choices[0].message
    assert message.model_extra["reasoning"] == thought
    assert message.tool_calls[0].function.arguments == '{"city": "Oslo"}'


def test_anthropics_client_reads_thinking_with_its_signature_and_a_call_as_blocks(own: Clients) -> None:
    asked: Any = {"model": MODEL, "messages": sdks.QUESTION, "max_tokens": 200, "tools": [sdks.TOOL]}
    with own.anthropic.messages.stream(**asked) as stream:
        order = [kind for kind, _ in groupby(event.type for event in stream)]
        message: Any = stream.get_final_message()
    assert order.index("thinking") < order.index("signature") < order.index("input_json")
    thinking, call = message.content
    assert (thinking.type, call.type, message.stop_reason) == ("thinking", "tool_use", "tool_use")
    assert call.input == {"city": "Oslo"}
    assert thinking.signature
    whole: Any = own.anthropic.messages.create(**asked)
    assert whole.content[0].thinking == thinking.thinking
    assert whole.content[1].input == call.input


def test_anthropics_client_continues_with_the_result_of_a_call(own: Clients) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 400, "tools": [sdks.TOOL]}
    called: Any = own.anthropic.messages.create(messages=sdks.QUESTION, **asked)
    call = called.content[-1]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "7 degrees"}
    turns: Any = [
        *sdks.QUESTION,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    answer = own.anthropic.messages.create(messages=turns, **{**asked, "tool_choice": {"type": "none"}})
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > called.usage.input_tokens


def test_both_clients_raise_on_an_error_in_mid_stream(launch: Launch) -> None:
    server = launch(PLAIN, sim=f"{SIM} --sim-fault sse-error=2").wait_ready()
    with sdks.clients(server.url, MODEL) as own:
        list(own.openai.chat.completions.create(model=MODEL, messages=sdks.QUESTION, stream=True))
        with pytest.raises(openai.APIError, match="EngineCore"):
            list(own.openai.chat.completions.create(model=MODEL, messages=sdks.QUESTION, stream=True))
    server = launch(PLAIN, sim=f"{SIM} --sim-fault sse-error=1").wait_ready()
    with (
        sdks.clients(server.url, MODEL) as own,
        pytest.raises(anthropic.APIStatusError, match="internal_error"),
        own.anthropic.messages.stream(model=MODEL, messages=sdks.QUESTION, max_tokens=20) as stream,
    ):
        list(stream)


def test_a_wrong_key_is_refused_and_the_right_one_works_as_bearer_token(launch: Launch) -> None:
    server = launch(f"{PLAIN} --api-key hush", sim=SIM).wait_ready()
    with sdks.clients(server.url, MODEL) as own:
        with pytest.raises(openai.AuthenticationError):
            sdks.chat_is_understood(own)
        with pytest.raises(anthropic.AuthenticationError):
            sdks.messages_are_understood(own)
    with sdks.clients(server.url, MODEL, "hush") as own:
        sdks.chat_is_understood(own)
        sdks.messages_are_understood(own)
