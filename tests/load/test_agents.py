"""Agents: conversations that grow by their answers and tool results, with pauses, behind one system prompt."""

from itertools import groupby, pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from tests.load.test_arrivals import CALIBRATION, planned
from tests.present import present
from tuner import composing
from tuner.load.stage import Stage
from tuner.load.workload import Workload

AGENTS = {"system_tokens": 400, "turns": 4, "result_tokens": 50, "think_ms": 60, "context_tokens": 100_000}


def agents(more: dict[str, object] | None = None, **given) -> Stage:
    asked = {"concurrency": 2, "requests": 8, "min_duration_s": 0, "prompt_tokens": 30, "output_tokens": 5}
    return planned(agents=AGENTS | (more or {}), **{**asked, **given})[0]


def test_conversations_are_planned_whole_with_contexts_that_grow():
    requests = agents().requests
    assert [request.follows for request in requests] == [False, True, True, True] * 2
    assert [request.prompt_tokens for request in requests[:4]] == [430, 525, 620, 715]
    assert len({request.seed for request in requests}) == 8
    assert len({request.system for request in requests}) == 1


def test_a_conversation_ends_before_its_context_is_full():
    assert [request.follows for request in agents({"context_tokens": 650}).requests] == [False, True, True] * 2


def test_a_scale_makes_lengths_and_pauses_smaller():
    first, second = agents({"scale": 0.1}).requests[:2]
    assert (first.prompt_tokens, second.think_ms) == (43, 6.0)


def test_measurements_share_no_text_and_laps_share_the_system_prompt_alone():
    one, other = agents(), agents(seed=2)
    assert one.requests[0].system != other.requests[0].system
    assert {request.seed for request in one.requests}.isdisjoint(request.seed for request in other.requests)
    assert one.request(8).system == one.request(0).system
    assert one.request(8).seed != one.request(0).seed


def test_agents_are_no_open_loop():
    with pytest.raises(ValidationError, match="name no other shape"):
        Workload.model_validate({"name": "w", "agents": AGENTS, "arrivals": {"kind": "poisson", "rate": 1}})


def test_the_server_receives_conversations_into_which_its_answers_went(client, server):
    stage = agents()
    result = client.run(stage, server.target)
    assert [record.failure for record in result.records] == [None] * 8
    talks: dict[str, list[list[dict[str, Any]]]] = {}
    for body in server.bodies:
        talks.setdefault(body["messages"][1]["content"], []).append(body["messages"])
    assert [len(turns) for turns in talks.values()] == [4, 4]
    assert len({body["messages"][0]["content"] for body in server.bodies}) == 1
    for turns in talks.values():
        for earlier, later in pairwise(turns):
            answer, result_message = later[len(earlier) :]
            assert later[: len(earlier)] == earlier
            assert (answer["role"], answer["content"]) == ("assistant", "tok" * 5)
            assert answer["tool_calls"][0]["id"] == result_message["tool_call_id"]
            assert len(result_message["content"].split()) == round(50 / CALIBRATION.tokens_per_word)


def test_an_agent_pauses_between_an_answer_and_its_next_request(client, server):
    result = client.run(agents({"think_ms": 120}), server.target)
    for _, mine in groupby(sorted(result.records, key=lambda record: record.stream), lambda record: record.stream):
        turns = sorted(mine, key=lambda record: record.started_ms)
        pauses = [b.started_ms - a.started_ms - a.duration_ms for a, b in pairwise(turns) if b.request.follows]
        assert len(pauses) == 3
        assert min(pauses) >= 115  # timers of the event loop count whole milliseconds


def test_a_stage_of_agents_that_lasts_goes_on_with_new_conversations(client, server):
    server.ttft_s, server.itl_s = 0.002, 0.0005
    lasting = agents({"think_ms": 1}, min_duration_s=1.0, max_duration_s=1.0)
    result = client.run(lasting, server.target)
    assert result.window
    openings = {body["messages"][1]["content"] for body in server.bodies}
    assert len(openings) > 2
    assert len({body["messages"][0]["content"] for body in server.bodies}) == 1


def test_an_answer_of_reasoning_alone_goes_back_as_well(client, server, answer):
    pieces = [(0, server.delta(reasoning="hm")), (0, server.delta("length", reasoning="m"))]
    server.answer = lambda body: answer([*pieces, (0, server.usage(body, 2))])
    client.run(agents({"turns": 2, "think_ms": 1}, concurrency=1, requests=2), server.target)
    assert server.bodies[1]["messages"][2]["content"] == "hmm"


def test_a_conversation_ends_with_its_first_failure(client, server, answer):
    server.answer = lambda body: answer(status=500)
    result = client.run(agents(max_failed_share=0.9), server.target)
    assert [record.request.follows for record in result.records] == [False, False]


def test_the_preset_is_an_hour_at_four_intensities():
    workload = composing.load(["experiment=demo", "workload=agents"]).workload
    assert len(workload.rungs) * workload.min_duration_s == len(workload.rungs) * workload.longest_s == 3600
    assert present(workload.agents).system_tokens > 10_000
