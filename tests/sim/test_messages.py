"""Anthropic's messages API of the simulated engine, event by event."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sim.conftest import Launch, SimServer, launcher
from tests.sim.test_server import QUICK, SERVICE

TOOL = {
    "name": "get_weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def question(text: str = "What is the weather?", **more: Any) -> dict[str, Any]:
    return {"model": "glm-4.7-flash", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with launcher(tmp_path_factory.mktemp("messages")) as launch:
        yield launch(SERVICE, sim=f"{QUICK} --sim-version 0.26").wait_ready()


def told(server: SimServer, **more: Any) -> list[dict[str, Any]]:
    return server.stream(question(**more), "/v1/messages").chunks


def test_a_stream_opens_thinks_signs_answers_and_ends(server: SimServer) -> None:
    events = told(server)
    kinds = [event["type"] for event in events if event["type"] != "content_block_delta"]
    assert kinds == [
        "message_start",
        *("content_block_start", "content_block_stop") * 2,
        "message_delta",
        "message_stop",
    ]
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta"] * 8 + ["signature_delta"] + ["text_delta"] * 12
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1]
    start, end = events[0]["message"], events[-2]
    assert (start["role"], start["type"], start["content"], start["usage"]["output_tokens"]) == (
        *("assistant", "message", []),
        0,
    )
    assert (end["delta"], end["usage"]["output_tokens"]) == ({"stop_reason": "max_tokens"}, 20)


def test_the_same_question_has_the_same_prompt_and_answer_as_through_chat(server: SimServer) -> None:
    message = server.request("/v1/messages", question()).body
    chat = server.request("/v1/chat/completions", question(ignore_eos=True)).body
    thinking, text = message["content"]
    assert thinking["thinking"] == chat["choices"][0]["message"]["reasoning"]
    assert text["text"] == chat["choices"][0]["message"]["content"]
    usage = message["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == chat["usage"]["prompt_tokens"]


def test_ignore_eos_is_not_known_and_dropped(server: SimServer) -> None:
    end = told(server, max_tokens=5000, ignore_eos=True)[-2]
    assert end["delta"] == {"stop_reason": "end_turn"}
    assert end["usage"]["output_tokens"] < 400


def test_a_tool_call_is_a_block_whose_input_comes_in_pieces(server: SimServer) -> None:
    events = told(server, tools=[TOOL], max_tokens=200)
    block = next(event for event in events if event.get("content_block", {}).get("type") == "tool_use")
    assert (block["content_block"]["name"], block["content_block"]["input"]) == ("get_weather", {})
    pieces = [event["delta"]["partial_json"] for event in events if "partial_json" in event.get("delta", {})]
    assert "".join(pieces) == '{"city": "Paris"}'
    assert events[-2]["delta"] == {"stop_reason": "tool_use"}
    whole = server.request("/v1/messages", question(tools=[TOOL], max_tokens=200)).body
    assert (whole["stop_reason"], whole["content"][-1]["input"]) == ("tool_use", {"city": "Paris"})


def test_calls_and_results_are_the_same_prompt_as_through_chat(server: SimServer) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    call = {"type": "tool_use", "id": "c1", "name": "ls", "input": {"path": "/"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "bin etc"}]}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "list"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, call]},
        {"role": "user", "content": [result]},
    ]
    asked = {"model": "glm-4.7-flash", "system": system, "messages": turns}
    called = [{"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "/"}'}}]
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "list"},
        {"role": "assistant", "content": "", "tool_calls": called},
        {"role": "tool", "tool_call_id": "c1", "content": "bin etc"},
    ]
    counted = server.request("/v1/messages/count_tokens", asked).body
    assert counted["input_tokens"] == server.request("/tokenize", {"messages": chat}).body["count"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        (question() | {"model": "nope"}, 404, "NotFoundError", "The model `nope` does not exist."),
        (question(max_tokens=200_000), 400, "BadRequestError", "maximum context"),
    ],
)
def test_refusals_have_anthropics_form(
    server: SimServer, body: dict[str, Any], status: int, kind: str, message: str
) -> None:
    reply = server.request("/v1/messages", body)
    assert (reply.status, reply.body["type"], reply.body["error"]["type"]) == (status, "error", kind)
    assert message in reply.body["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [{"model": "glm-4.7-flash"}, question() | {"messages": [{"content": "who?"}]}, question() | {"messages": [7]}],
)
def test_a_body_that_is_no_message_is_refused_before_the_endpoint_in_openais_form(
    server: SimServer, body: dict[str, Any]
) -> None:
    reply = server.request("/v1/messages", body)
    assert (reply.status, reply.body["error"]["type"]) == (400, "Bad Request")


def test_the_routes_are_printed_and_an_old_version_has_none(server: SimServer, launch: Launch) -> None:
    assert any("Route: /v1/messages/count_tokens, Methods: POST" in line for line in server.log())
    old = launch(SERVICE.replace("--enable-prompt-tokens-details", ""), sim=f"{QUICK} --sim-version 0.10").wait_ready()
    assert not any("/v1/messages" in line for line in old.log())
    assert old.request("/v1/messages", question()).status == 404


def test_an_error_in_mid_stream_is_an_event_and_the_stream_has_no_end(launch: Launch) -> None:
    broken = launch(SERVICE, sim=f"{QUICK} --sim-fault sse-error=1").wait_ready()
    events = told(broken)
    assert events[-1]["type"] == "error"
    assert "validation errors for ChatCompletionStreamResponse" in events[-1]["error"]["message"]
