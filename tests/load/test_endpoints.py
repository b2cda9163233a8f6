"""The same load through chat completions, completions and Anthropic's messages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.load.test_agents import agents
from tests.load.test_arrivals import planned
from tests.load.test_client import failure_of, stage
from tuner import composing
from tuner.engines.vllm.requests import refused_requests
from tuner.errors import ConfigError
from tuner.export.origin import digest_of
from tuner.load import sse
from tuner.load.endpoints import messages
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.metrics import measure
from tuner.load.plan import tool_call
from tuner.load.records import FailureKind, decode_result, encode, load_records
from tuner.load.stage import Stage, command
from tuner.load.wording import sending
from tuner.load.workload import Workload
from tuner.space import Settings

ALL = list(Endpoint)


def to(endpoint: Endpoint, sent: Stage) -> Stage:
    return replace(sent, requests=tuple(replace(each, endpoint=endpoint) for each in sent.requests))


def read(*events: bytes) -> sse.Reply:
    """As if each event came a millisecond after the last."""
    data = b"".join(events)
    ends = [len(b"".join(events[: number + 1])) for number in range(len(events))]
    return sse.read(data, ends, [float(number) for number in range(len(events))])


def real(name: str) -> bytes:
    """A stream of vLLM 0.32.0 on a CPU."""
    return (Path(__file__).parent / f"vllm-0.32.0-cpu-messages-{name}.sse").read_bytes()


# --- what is sent ---


@pytest.mark.parametrize("endpoint", ALL)
def test_the_load_goes_where_the_workload_says(client, server, endpoint):
    sent = planned(endpoint=endpoint, concurrency=1, requests=2, output_tokens=5, min_duration_s=0)[0]
    result = client.run(sent, server.target)
    assert [record.failure for record in result.records] == [None, None]
    assert server.paths == [endpoint.path] * 2
    assert {record.request.endpoint for record in result.records} == {endpoint}


def test_a_completion_is_the_text_alone(client, server):
    client.run(to(Endpoint.COMPLETIONS, stage(tokens=3)), server.target)
    client.run(stage(tokens=3), server.target)
    plain, chat = server.bodies
    assert plain["prompt"] == chat["messages"][0]["content"]
    assert (plain["max_tokens"], plain["ignore_eos"], plain["stream_options"]) == (3, True, {"include_usage": True})


def test_a_message_is_blocks_with_no_field_that_anthropic_does_not_know(client, server):
    client.run(to(Endpoint.MESSAGES, stage(tokens=3)), server.target)
    client.run(stage(tokens=3), server.target)
    asked, chat = server.bodies
    assert set(asked) == {"model", "max_tokens", "temperature", "stream", "messages"}
    said = chat["messages"][0]["content"]
    assert asked["messages"] == [{"role": "user", "content": [{"type": "text", "text": said}]}]
    assert server.headers[0]["anthropic-version"] == "2023-06-01"
    assert "anthropic-version" not in server.headers[1]


def test_agents_put_answers_calls_and_results_back_as_claude_code_does(client, server):
    sent = to(Endpoint.MESSAGES, agents({"turns": 3, "think_ms": 1}, concurrency=1, requests=3))
    result = client.run(sent, server.target)
    assert [record.failure for record in result.records] == [None] * 3
    first, _, last = server.bodies
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    said, call = last["messages"][1]["content"]
    assert said == {"type": "text", "text": "tok" * 5}
    assert (call["type"], call["name"], list(call["input"])) == ("tool_use", "read_file", ["path"])
    (returned,) = last["messages"][2]["content"]
    assert (returned["type"], returned["tool_use_id"]) == ("tool_result", call["id"])
    assert last["system"] == first["system"]
    (system,) = last["system"]
    assert system["cache_control"] == {"type": "ephemeral"}
    marked = [message for message in last["messages"] if "cache_control" in json.dumps(message)]
    assert marked == last["messages"][-1:]


def test_thinking_goes_back_signed_in_front_of_the_call(client, server, answer):
    def thinking(body: dict[str, Any]):
        pieces = [
            server.begun(body),
            server.named("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
            server.said(kind="thinking_delta", thinking="h"),
            server.said(kind="thinking_delta", thinking="m"),
            server.said(kind="signature_delta", signature="4711"),
            server.named("content_block_stop", index=0),
            server.ended(2),
        ]
        return answer([(0.005, piece) for piece in pieces])

    server.answer = thinking
    result = client.run(
        to(Endpoint.MESSAGES, agents({"turns": 2, "think_ms": 1}, concurrency=1, requests=2)), server.target
    )
    assert len(result.records[0].chunk_ms) == 2
    thought, call = server.bodies[1]["messages"][1]["content"]
    assert thought == {"type": "thinking", "thinking": "hm", "signature": "4711"}
    assert call["type"] == "tool_use"


def test_recorded_calls_and_results_get_each_endpoints_own_form():
    calls = [
        {"id": f"c{n}", "function": {"name": "ls", "arguments": given}} for n, given in enumerate(('{"a": 1}', "{"))
    ]
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "list"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c0", "content": "x"},
        {"role": "tool", "tool_call_id": "c1", "content": "y"},
    ]
    _, asked, returned = messages.FORM.said(talk)["messages"]
    assert [block["input"] for block in asked["content"]] == [{"a": 1}, {"arguments": "{"}]
    assert [block["tool_use_id"] for block in returned["content"]] == ["c0", "c1"]


def test_a_recorded_system_prompt_alone_is_sent_as_it_is_and_left_to_the_server():
    assert messages.FORM.said([{"role": "system", "content": "Be brief."}]) == {"system": "Be brief.", "messages": []}


def test_a_tool_is_offered_in_the_messages_form_and_its_call_recognised(client, server, answer):
    def calling(body: dict[str, Any]):
        (tool,) = body["tools"]
        assert (tool["name"], tool["input_schema"]["required"]) == ("get_weather", ["place"])
        assert body["tool_choice"] == {"type": "auto"}
        block = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}
        pieces = [
            server.named("content_block_start", index=0, content_block=block),
            server.said(kind="input_json_delta", partial_json=""),
            server.said(kind="input_json_delta", partial_json='{"place": "Oslo"}'),
            server.ended(9, "tool_use"),
        ]
        return answer([(0, server.begun(body)), *((0.05, piece) for piece in pieces)])

    server.answer = calling
    sent = to(Endpoint.MESSAGES, Stage("tool_call", 1, (tool_call("7/tool"),), 0.7, 10.0, 0))
    (record,) = client.run(sent, server.target).records
    assert (record.failure, record.tool_called, record.finish_reason) == (None, True, "tool_calls")
    assert record.ttft_ms == pytest.approx(50, abs=40)  # neither the opening nor the arguments
    assert len(record.chunk_ms) == 3  # the name, the arguments, and the token that ends the turn


# --- what is read ---


@pytest.mark.parametrize("endpoint", ALL)
def test_times_and_counts_are_the_same_through_all(client, server, endpoint):
    server.ttft_s, server.itl_s = 0.08, 0.02
    result = client.run(to(endpoint, stage(requests=6, streams=2, tokens=10)), server.target)
    assert {(each.output_tokens, len(each.chunk_ms), each.finish_reason) for each in result.records} == {
        (10, 10, "length")
    }
    assert {each.prompt_tokens for each in result.records} == set(map(server.prompt_tokens, server.bodies))
    measurement = measure([result], Workload(name="w", concurrency=1, requests=1))
    assert measurement.ttft_p50_ms == pytest.approx(80, abs=20)
    assert measurement.concurrent_tpot_p50_ms == pytest.approx(20, rel=0.2)
    assert measurement.itl_p50_ms == pytest.approx(20, rel=0.2)
    assert measurement.warnings == ()


def test_neither_the_opening_of_a_message_nor_that_of_a_block_nor_a_ping_is_the_first_token(server):
    reply = read(
        server.begun({"prompt": "a"}),
        server.named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        server.named("ping"),
        server.said(text=""),
        server.said(text="so"),
        server.said(text=""),
        server.named("content_block_stop", index=0),
        server.ended(3),
    )
    assert (reply.opened_ms, reply.chunk_ms) == (0.0, [4.0, 5.0])
    assert (reply.finish_reason, reply.output_tokens, reply.malformed) == ("length", 3, None)


def test_the_token_that_ends_a_turn_counts_though_it_has_no_text(server):
    reply = read(server.begun({"prompt": "a"}), server.said(text="so"), server.ended(2, "end_turn"))
    assert (reply.chunk_ms, reply.finish_reason) == ([1.0, 2.0], "stop")


def test_a_signature_is_no_token_and_thinking_is(server):
    reply = read(
        server.said(kind="thinking_delta", thinking="hm"),
        server.said(kind="signature_delta", signature="4711"),
        server.said(text="so"),
        server.ended(2),
    )
    assert (reply.chunk_ms, reply.reasoned, reply.characters) == ([0.0, 2.0], True, 4)


def test_what_came_out_of_the_cache_is_part_of_the_prompt(server):
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 5, "output_tokens": 2}
    last = server.named("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    reply = read(server.begun({"prompt": "a"}), server.said(text="so"), last)
    assert (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens) == (95, 80, 2)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"type": "content_block_delta", "delta": {"type": "text_delta"}}\n\n',
        b'data: {"type": "content_block_delta"}\n\n',
        b'data: {"type": "message_delta", "delta": {"stop_reason": 7}}\n\n',
        b'data: {"type": "message_delta", "delta": {}, "usage": {"output_tokens": "many"}}\n\n',
        b'data: {"type": "message_start", "message": {"usage": {"input_tokens": "many"}}}\n\n',
    ],
)
def test_an_event_that_is_none_is_kept_as_evidence(event):
    assert read(event).malformed == event.decode().strip().removeprefix("data: ")


def test_what_a_message_said_is_put_together(server):
    block = {"type": "tool_use", "id": "t1", "name": "ls", "input": {}}
    data = [
        server.said(kind="thinking_delta", thinking="hm"),
        server.said(1, text="so"),
        server.named("content_block_start", index=2, content_block=block),
        server.said(2, "input_json_delta", partial_json='{"a"'),
        server.said(2, "input_json_delta", partial_json=": 1}"),
        server.ended(7, "tool_use"),
    ]
    said = sse.said(b"".join(data))
    assert (said.reasoning, said.content, said.finish_reason) == ("hm", "so", "tool_calls")
    assert list(said.calls.values()) == [("ls", '{"a": 1}')]


@pytest.mark.parametrize(
    ("stream", "chunks", "output", "reasoned", "called"),
    [("thinking", 12, 12, True, False), ("tool", 32, 64, False, True)],
)
def test_vllms_own_messages_are_read(stream, chunks, output, reasoned, called):
    reply = sse.read(data := real(stream), [len(data)], [1.0])
    assert (len(reply.chunk_ms), reply.output_tokens, reply.finish_reason) == (chunks, output, "length")
    assert (reply.reasoned, reply.tool_called, reply.opened_ms, reply.malformed) == (reasoned, called, 1.0, None)
    assert reply.prompt_tokens is not None


def test_vllms_own_words_when_its_engine_is_killed_are_an_error():
    reply = sse.read(data := real("killed"), [len(data)], [1.0])
    assert "validation errors for ChatCompletionStreamResponse" in (reply.error or "")
    assert reply.finish_reason is None


# --- what goes wrong ---


def test_an_error_in_mid_stream_is_a_failure_in_the_servers_words(client, server, answer):
    error = {"type": "overloaded_error", "message": "no more"}

    def failing(body: dict[str, Any]):
        return answer(
            [(0, server.begun(body)), (0.01, server.said(text="so")), (0, server.named("error", error=error))]
        )

    server.answer = failing
    result = client.run(to(Endpoint.MESSAGES, stage()), server.target)
    assert failure_of(result) == (FailureKind.SSE_ERROR, "no more")


def test_errors_in_mid_stream_end_a_stage_early(client, server, answer):
    error = server.named("error", error={"type": "internal_error", "message": "no more"})
    server.answer = lambda body: answer([(0, server.begun(body) + error)])
    result = client.run(to(Endpoint.MESSAGES, stage(requests=20, max_failures=2)), server.target)
    assert result.aborted
    assert len(result.records) == 3


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        (["begun", "said"], FailureKind.TRUNCATED),
        (["begun", "said", "uncounted"], FailureKind.NO_USAGE),
    ],
)
def test_a_message_without_its_end_or_its_count_is_a_failure(client, server, answer, pieces, kind):
    def cut(body: dict[str, Any]):
        made = {
            "begun": server.begun(body),
            "said": server.said(text="so"),
            "uncounted": server.named("message_delta", delta={"stop_reason": "end_turn"}),
        }
        return answer([(0.005, made[piece]) for piece in pieces])

    server.answer = cut
    assert failure_of(client.run(to(Endpoint.MESSAGES, stage()), server.target))[0] is kind


def test_a_completion_that_ends_in_mid_stream_is_cut_off(client, server, answer):
    piece = server.event(choices=[{"index": 0, "text": "so", "finish_reason": None}])
    server.answer = lambda body: answer([(0.005, piece)])
    assert failure_of(client.run(to(Endpoint.COMPLETIONS, stage()), server.target))[0] is FailureKind.TRUNCATED


def test_answers_that_the_model_ends_are_told_with_the_reason(client, server, answer):
    def ended(body: dict[str, Any]):
        said = [(0.01, server.said(text="some text")) for _ in range(8)]
        return answer([(0, server.begun(body)), *said, (0.01, server.ended(9, "end_turn"))])

    server.answer = ended
    sent = to(Endpoint.MESSAGES, stage(requests=3, tokens=40))
    measurement = measure([client.run(sent, server.target)], Workload(name="w", concurrency=1, requests=1))
    assert measurement.short_outputs == 3
    assert "3 of 3 answers were shorter than asked: /v1/messages has no ignore_eos" in measurement.warnings[0]


# --- what is refused ---


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "tool_call measures the call of a tool, for which /v1/completions has no form: say tool_call false"),
        (
            {
                "tool_call": False,
                "agents": {
                    "system_tokens": 9,
                    "turns": 2,
                    "result_tokens": 9,
                    "think_ms": 1,
                    "context_tokens": 999,
                },
            },
            "agents call tools",
        ),
    ],
)
def test_what_completions_cannot_express_is_refused(more, said):
    with pytest.raises(ValidationError, match=said):
        Workload.model_validate({"name": "w", "endpoint": "completions", **more})


@pytest.mark.parametrize("written", ["mesages", "/v1/messages"])
def test_an_endpoint_that_there_is_not_is_refused_with_the_one_that_was_meant(written):
    with pytest.raises(ConfigError, match=r"workload\.endpoint: .*'completions'.*; did you mean 'messages'\?"):
        composing.load(["experiment=demo", f"workload.endpoint={written}"])


@pytest.mark.parametrize(
    ("version", "refused"), [("0.10.2", 1), ("0.11.0", 1), ("0.11.1", 0), ("0.32.0", 0), (None, 0)]
)
def test_a_vllm_without_messages_is_known_before_its_launch(version, refused):
    workload = Workload(name="w", endpoint=Endpoint.MESSAGES, tool_call=False)
    found = [each.place for each in refused_requests(workload, Settings(), None, version)]
    assert found == ["workload.endpoint"] * refused


def test_a_workload_of_chat_has_the_digest_that_it_had_before_there_were_endpoints():
    assert digest_of(Workload(name="w")) == digest_of(Workload(name="w", endpoint=Endpoint.CHAT))
    assert digest_of(Workload(name="w")) != digest_of(Workload(name="w", endpoint=Endpoint.MESSAGES))


# --- what is kept ---


def test_a_request_and_a_record_of_before_there_were_endpoints_went_to_chat():
    line = {"stage": "s", "index": 0, "stream": 0, "started_ms": 0, "duration_ms": 1}
    old = {**line, "request": {"seed": "a", "words": 1, "prompt_tokens": None, "output_tokens": 2}}
    (record,) = load_records([json.dumps(old)])
    assert record.request.endpoint is Endpoint.CHAT


def test_commands_and_results_keep_the_endpoint(client, server):
    sent = to(Endpoint.MESSAGES, stage())
    result = client.run(sent, server.target)
    assert decode_result(encode(result)).records[0].request.endpoint is Endpoint.MESSAGES
    raw = {"stage": json.loads(encode(sent)), "url": "u", "headers": {}, "model": "m", "ticks": False, "counts": []}
    assert command(raw).stage == sent


def test_where_the_load_goes_is_said_where_it_is_not_chat():
    workload = Workload(name="w", endpoint=Endpoint.MESSAGES)
    assert sending(workload).endswith("1,000 prompt and at most 256 output tokens, through /v1/messages")
    assert sending(Workload(name="w")).endswith("exactly 256 output tokens")


CLAUDE_CODE = {
    "timestamp": 0,
    "path": "/v1/messages?beta=true",
    "body": {
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "list"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "4711"},
                    {"type": "tool_use", "id": "c1", "name": "ls", "input": {"path": "/"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "bin"}]},
        ],
    },
}


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.MESSAGES])
def test_recorded_requests_of_claude_code_are_replayed_through_either(client, server, tmp_path, endpoint):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps({**CLAUDE_CODE, "timestamp": at}) + "\n" for at in (0, 5, 10, 15)))
    sent = planned(endpoint=endpoint, trace={"file": str(path)})[0]
    server.answer = lambda body: server.message(body) if endpoint is Endpoint.MESSAGES else server.stream(body)
    result = client.run(sent, server.target)
    assert [record.failure for record in result.records] == [None, None]
    asked = server.bodies[0]
    if endpoint is Endpoint.CHAT:
        assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "tool"]
        assert asked["messages"][2]["tool_calls"][0]["function"] == {"name": "ls", "arguments": '{"path": "/"}'}
        assert "4711" not in json.dumps(asked)
    else:
        assert asked["system"][0]["text"].endswith("Be brief.")
        assert [block["type"] for block in asked["messages"][1]["content"]] == ["thinking", "tool_use"]
        assert asked["messages"][2]["content"][0]["content"] == "bin"
