"""The load worker as a real process against a real HTTP server that speaks vLLM's streams."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import MeasurementError
from tuner.load.client import LoadClient
from tuner.load.metrics import measure
from tuner.load.progress import Progress
from tuner.load.prompts import text
from tuner.load.records import FailureKind, StageResult
from tuner.load.stage import Request, Stage, StopRule
from tuner.load.target import Target
from tuner.load.timing import tpot_ms
from tuner.load.workload import Workload

WORKLOAD = Workload(name="w", concurrency=1, requests=1, max_failed_share=0.9)


def stage(
    requests: int = 1,
    streams: int = 1,
    tokens: int = 5,
    timeout_s: float = 10.0,
    max_failures: float = 99,
    **lasting: Any,
) -> Stage:
    made = tuple(Request(f"7/{index}", 20, 30, tokens) for index in range(requests))
    return Stage("concurrent", streams, made, 0.7, timeout_s, max_failures, **lasting)


def failure_of(result: StageResult) -> tuple[FailureKind, str]:
    (record,) = result.records
    assert record.failure is not None
    return record.failure.kind, record.failure.text


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.perf_counter() + within_s
    while not condition() and time.perf_counter() < deadline:
        time.sleep(0.01)
    return condition()


# --- what is measured ---


def test_ttft_and_tpot_are_the_servers_own(client, server):
    server.ttft_s, server.itl_s = 0.08, 0.02
    result = client.run(stage(requests=6, streams=2, tokens=10), server.target)
    assert [record.failure for record in result.records] == [None] * 6
    measurement = measure([result], WORKLOAD)
    assert measurement.ttft_p50_ms == pytest.approx(80, abs=10)
    assert measurement.concurrent_tpot_p50_ms == pytest.approx(20, rel=0.1)
    assert measurement.itl_p50_ms == pytest.approx(20, rel=0.1)
    assert measurement.e2e_p50_ms == pytest.approx(80 + 9 * 20, rel=0.1)
    assert measurement.output_tokens_per_s == pytest.approx(60 / (3 * 0.26), rel=0.1)


def test_token_counts_are_the_servers(client, server):
    (record,) = client.run(stage(tokens=4), server.target).records
    assert record.prompt_tokens == server.prompt_tokens(server.bodies[0])
    assert (record.output_tokens, len(record.chunk_ms), record.finish_reason) == (4, 4, "length")


def test_several_tokens_in_a_chunk_change_itl_but_not_tpot(client, server, answer):
    def bundled(body):
        chunks = [(0.04, server.delta("length" if i == 4 else None, content="a b c d")) for i in range(5)]
        return answer([*chunks, (0, server.usage(body, 20))])

    server.answer = bundled
    (record,) = client.run(stage(tokens=20), server.target).records
    assert len(record.chunk_ms) == 5
    assert tpot_ms(record) == pytest.approx(4 * 40 / 19, rel=0.15)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_ttft_is_the_first_reasoning_delta_not_the_role_nor_the_content(client, server, answer, key):
    def thinking(body):
        pieces = [(0, server.opening()), (0.1, server.delta(**{key: "hm"})), (0.2, server.delta("stop", content="42"))]
        return answer([*pieces, (0, server.usage(body, 2))])

    server.answer = thinking
    (record,) = client.run(stage(), server.target).records
    # a busy machine makes them later, never earlier
    assert 95 <= record.ttft_ms < 250
    assert 295 <= record.e2e_ms < 500


def test_a_tool_call_is_asked_for_and_recognised(client, server, answer):
    def calling(body):
        assert body["tools"][0]["function"]["name"] == "get_weather"
        call = {"index": 0, "function": {"name": "get_weather", "arguments": "{}"}}
        return answer([(0.05, server.delta("tool_calls", tool_calls=[call])), (0, server.usage(body, 9))])

    server.answer = calling
    request = Request("7/tool", 2, None, 64, tool_call=True)
    (record,) = client.run(Stage("tool_call", 1, (request,), 0.7, 10.0, 0), server.target).records
    assert (record.failure, record.tool_called, record.finish_reason) == (None, True, "tool_calls")
    assert 45 <= record.ttft_ms < 250
    assert "ignore_eos" not in server.bodies[0]


def test_bytes_split_in_mid_character_and_mid_event_are_put_together(client, server, answer):
    def shredded(body):
        data = server.delta(content="日本") + server.delta("length", content="語") + server.usage(body, 2)
        return answer([(0.0005, data[i : i + 5]) for i in range(0, len(data), 5)])

    server.answer = shredded
    (record,) = client.run(stage(), server.target).records
    assert (record.failure, record.output_tokens, len(record.chunk_ms)) == (None, 2, 2)


# --- what is sent ---


def test_a_closed_loop_keeps_exactly_n_requests_in_flight(client, server):
    result = client.run(stage(requests=24, streams=4, tokens=3), server.target)
    assert max(server.in_flight_at_arrival) == 4
    for stream in range(4):
        mine = [record for record in result.records if record.stream == stream]
        idle_ms = [b.started_ms - a.started_ms - a.duration_ms for a, b in pairwise(mine)]
        assert len(mine) == 6
        assert 0 <= min(idle_ms) <= max(idle_ms) < 10


def test_every_request_is_sent_once_with_its_own_prompt(client, server):
    client.run(stage(requests=5, streams=2, tokens=2), server.target)
    sent = sorted(body["messages"][0]["content"] for body in server.bodies)
    assert sent == sorted(text(f"7/{index}", 20) for index in range(5))


def test_lengths_are_fixed_and_usage_is_asked_for(client, server):
    client.run(stage(tokens=3), server.target)
    (body,) = server.bodies
    assert body["max_tokens"] == 3
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["temperature"]) == ("glm", 0.7)


def test_the_bearer_token_is_sent_and_appears_in_no_process_list(client, server):
    client.run(stage(), server.target)
    assert server.headers[0]["Authorization"] == "Bearer sesame-4711"
    command_line = Path(f"/proc/{client.pid}/cmdline").read_bytes()
    assert b"sesame" not in command_line + Path(f"/proc/{client.pid}/environ").read_bytes()
    assert "sesame" not in repr(server.target)


def test_more_streams_than_the_usual_connection_limit_run_at_once(client, server):
    server.ttft_s = 0.5
    client.run(stage(requests=150, streams=150, tokens=1), server.target)
    assert max(server.in_flight_at_arrival) == 150


def test_a_listener_hears_how_many_requests_have_been_answered(client, server):
    heard: list[Progress] = []
    client.on_progress = heard.append
    server.ttft_s = 0.4
    asked = stage(requests=4, streams=1)
    assert len(client.run(asked, server.target).records) == 4
    counts = [progress.answered for progress in heard]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert 1 <= counts[-1] <= 4
    assert {progress.stage for progress in heard} == {asked}


# --- what fails ---


def test_an_error_chunk_inside_http_200_fails_the_request(client, server, answer):
    error = server.event(error={"message": "EngineCore encountered an issue.", "code": 500})
    for tail in (b"data: [DONE]\n\n", b""):
        server.answer = lambda body, tail=tail: answer([(0, server.delta(content="x")), (0, error + tail)])
        kind, said = failure_of(client.run(stage(), server.target))
        assert (kind, said) == (FailureKind.SSE_ERROR, "EngineCore encountered an issue.")


def test_a_refusal_inside_http_200_is_a_refusal(client, server, answer):
    error = b'error: {"code":400,"message":"the request exceeds the available context size."}\n\ndata: [DONE]\n\n'
    server.answer = lambda body: answer([(0, error)])
    kind, said = failure_of(client.run(stage(), server.target))
    assert (kind, said) == (FailureKind.HTTP, "400 the request exceeds the available context size.")


def test_an_error_chunk_is_the_cause_of_a_reset_that_follows_it(client, server, answer):
    error = server.event(error={"message": "engine died", "code": 500})
    server.answer = lambda body: answer([(0, server.delta(content="x")), (0, error), (0.05, b"")], end="reset")
    assert failure_of(client.run(stage(), server.target)) == (FailureKind.SSE_ERROR, "engine died")


@pytest.mark.parametrize("pieces", [1, 0])
def test_an_answer_that_breaks_http_fails_at_once_and_is_not_waited_for(client, server, answer, pieces):
    server.answer = lambda body: answer([(0, server.delta(content="x"))][:pieces], end="garble")
    begun_s = time.monotonic()
    kind, _ = failure_of(client.run(stage(), server.target))
    assert kind is FailureKind.CONNECTION
    assert time.monotonic() - begun_s < 5


def test_a_503_fails_with_its_body(client, server, answer):
    server.answer = lambda body: answer([(0, b"engine is dead")], status=503)
    assert failure_of(client.run(stage(), server.target)) == (FailureKind.HTTP, "503 engine is dead")


def test_a_token_that_the_server_quotes_is_cut_out(client, server, answer):
    server.answer = lambda body: answer([(0, b"Bearer sesame-4711: sesame-4711 is not a key")], status=401)
    kind, said = failure_of(client.run(stage(), server.target))
    assert (kind, said) == (FailureKind.HTTP, "401 ***: *** is not a key")


def test_a_hang_fails_after_the_timeout(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta(content="x"))], end="hang")
    result = client.run(stage(timeout_s=0.3), server.target)
    assert failure_of(result) == (FailureKind.TIMEOUT, "after 0.3 s")
    assert result.records[0].duration_ms == pytest.approx(300, abs=100)


def test_a_server_that_says_nothing_any_more_fails_long_before_the_timeout(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta(content="x"))], end="hang")
    result = client.run(stage(timeout_s=30.0, silence_timeout_s=0.3), server.target)
    assert failure_of(result) == (FailureKind.TIMEOUT, "nothing came for 0.3 s")


def test_a_flood_is_not_read_to_its_end(client, server, answer):
    flood = server.delta(content="x" * 10_000) * 100
    server.answer = lambda body: answer([(0, flood)] * 500)  # half a gigabyte
    kind, said = failure_of(client.run(stage(), server.target))
    assert kind is FailureKind.FLOODED
    assert "bytes came for 5 tokens" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB


def test_a_connection_that_the_server_closes_against_its_word_is_no_failed_request(client, server):
    server.closes_kept_connections = True
    result = client.run(stage(requests=6, streams=2), server.target)
    assert [record.failure for record in result.records] == [None] * 6
    assert any(record.resent for record in result.records)
    assert len(server.bodies) == 6
    assert "a second time" in measure([result], WORKLOAD).warnings[-1]


def test_a_server_that_drops_even_fresh_connections_fails_after_one_more_try(client, server, answer):
    server.answer = lambda body: answer([], end="drop") if len(server.bodies) > 1 else server.stream(body)
    result = client.run(stage(requests=2), server.target)
    assert [record.failed for record in result.records] == [False, True]
    assert len(server.bodies) == 3


def test_a_reset_connection_fails(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta(content="x")), (0.05, b"")], end="reset")
    kind, _ = failure_of(client.run(stage(), server.target))
    assert kind is FailureKind.CONNECTION


def test_nobody_listening_fails(client):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target(f"http://127.0.0.1:{unused.getsockname()[1]}", {}, "glm")
        assert failure_of(client.run(stage(), target))[0] is FailureKind.CONNECTION


def test_a_stream_without_finish_reason_fails(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta(content="x")), (0, server.usage(body, 1))])
    assert failure_of(client.run(stage(), server.target))[0] is FailureKind.TRUNCATED


def test_a_stream_without_usage_fails(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta("length", content="x") + b"data: [DONE]\n\n")])
    assert failure_of(client.run(stage(), server.target))[0] is FailureKind.NO_USAGE


def test_a_request_that_the_engine_aborted_fails(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta("abort", content="x")), (0, server.usage(body, 1))])
    assert failure_of(client.run(stage(), server.target))[0] is FailureKind.ENGINE_ABORT


def test_a_page_of_html_fails(client, server, answer):
    server.answer = lambda body: answer([(0, b"<html>a proxy's welcome</html>")])
    assert failure_of(client.run(stage(), server.target))[0] is FailureKind.TRUNCATED


def test_too_many_failures_end_the_stage_at_once(client, server, answer):
    dead = answer([(0, server.event(error={"message": "engine died", "code": 500}))])
    stuck = answer([], end="hang")
    server.answer = lambda body: dead if len(server.bodies) >= 3 else stuck
    start = time.perf_counter()
    result = client.run(stage(requests=50, streams=3, max_failures=1), server.target)
    assert time.perf_counter() - start < 2
    kinds = [record.failure.kind for record in result.records if record.failure]
    assert result.aborted
    assert sorted(kinds) == ["abandoned", "abandoned", "sse_error", "sse_error"]


def test_stages_after_an_aborted_one_are_not_run(client, server, answer):
    server.answer = lambda body: answer(status=503)
    results = client.run_all([stage(requests=9, max_failures=0), stage()], server.target)
    assert [(result.aborted, len(result.records)) for result in results] == [(True, 1)]


# --- what was disturbed ---


def disturbing(*turns):
    """Says after each of a stage's turns what disturbed it; before them, what an earlier one left."""
    said = iter([word for turn in turns for word in ("of an earlier stage", turn)])
    return lambda: next(said)


def test_a_disturbed_stage_is_sent_again_with_fresh_prompts_and_does_not_count(client, server):
    first, second = client.run_all([stage(requests=3)], server.target, disturbed=disturbing("a kernel", None))
    assert (first.stage, first.disturbed, first.superseded) == ("concurrent, disturbed 1", "a kernel", True)
    assert {record.stage for record in first.records} == {first.stage}
    assert (second.stage, second.disturbed, second.superseded) == ("concurrent", None, False)
    seeds = [record.request.seed for record in (*first.records, *second.records)]
    assert len(set(seeds)) == 6
    assert measure([first, second], WORKLOAD) == measure([second], WORKLOAD)


def test_after_three_turns_what_is_disturbed_counts_all_the_same_and_says_so(client, server):
    results = client.run_all([stage()], server.target, disturbed=disturbing("one", "two", "three"))
    assert [(result.stage, result.disturbed, result.superseded) for result in results] == [
        ("concurrent, disturbed 1", "one", True),
        ("concurrent, disturbed 2", "two", True),
        ("concurrent", "three", False),
    ]


def test_a_stage_that_was_given_up_is_not_sent_again(client, server, answer):
    server.answer = lambda body: answer(status=503)
    (result,) = client.run_all([stage(requests=9, max_failures=0)], server.target, disturbed=disturbing("a kernel"))
    assert result.aborted


# --- how long ---


def test_a_fast_server_gets_fresh_requests_until_the_stage_has_had_its_time(client, server):
    server.ttft_s, server.itl_s = 0.01, 0.001
    result = client.run(stage(requests=4, streams=2, rule=StopRule(0.6, 60.0)), server.target)
    assert [record.index for record in result.records] == list(range(len(result.records)))
    assert len(result.sample) > 12
    assert len({record.request.seed for record in result.records}) == len(result.records)
    assert {(record.request.words, record.request.output_tokens) for record in result.records} == {(20, 5)}
    assert result.window.end_ms - result.window.start_ms >= 600


def test_the_window_begins_when_every_user_has_finished_its_first_request(client, server):
    server.ttft_s = 0.1
    result = client.run(stage(requests=3, streams=3, rule=StopRule(0.2, 60.0)), server.target)
    firsts = [record for record in result.records if record.index < 3]
    assert result.window.start_ms == pytest.approx(max(r.started_ms + r.duration_ms for r in firsts), abs=1)
    assert not set(firsts) & set(result.sample)


def test_the_load_is_kept_up_until_all_that_counts_is_answered_and_the_rest_is_cut(client, server, answer):
    def slow_third_user(body):
        server.ttft_s = 0.2 if len(server.bodies) % 3 == 0 else 0.05
        return server.stream(body)

    server.answer = slow_third_user
    result = client.run(stage(requests=3, streams=3, rule=StopRule(0.5, 60.0)), server.target)
    counting = [r for r in result.records if result.window.holds(r.started_ms)]
    late = [r for r in result.records if r.started_ms > result.window.end_ms]
    assert all(record.completed for record in counting)
    assert late
    assert [record for record in late if record.cut]
    assert not [record for record in result.records if record.failed]
    last = max(record.started_ms + record.duration_ms for record in counting)
    assert {r.stream for r in result.records if r.started_ms <= last <= r.started_ms + r.duration_ms + 5} == {0, 1, 2}


def test_what_was_cut_is_neither_failed_nor_completed(client, server):
    server.ttft_s = 0.05
    result = client.run(stage(requests=3, streams=3, rule=StopRule(0.3, 60.0)), server.target)
    cut = [record for record in result.records if record.cut]
    measured = measure([result], WORKLOAD.model_copy(update={"max_failed_share": 0.0}))
    assert cut
    assert (measured.failed, measured.completed) == (0, len(result.records) - len(cut))


def test_a_steady_server_is_measured_for_less_time_than_an_erratic_one(client, server):
    rule = StopRule(0.2, 3.0, ttft=0.2)
    server.ttft_s, server.itl_s = 0.1, 0.0
    steady = client.run(stage(streams=1, tokens=2, rule=rule), server.target)

    def erratic(body):
        server.ttft_s = (0.02, 0.2)[len(server.bodies) // 3 % 2]
        return server.stream(body)

    server.answer = erratic
    erring = client.run(stage(streams=1, tokens=2, rule=rule), server.target)
    assert steady.window.end_ms - steady.window.start_ms < 2000
    assert erring.window.end_ms - erring.window.start_ms >= 3000


def test_a_sample_that_a_percentile_needs_may_take_longer_than_the_ceiling(client, server):
    server.ttft_s, server.itl_s = 0.02, 0.0
    result = client.run(stage(streams=1, tokens=2, rule=StopRule(0.1, 0.2, least_requests=30)), server.target)
    assert len(result.sample) >= 30


def test_a_stage_that_goes_on_may_lose_more_requests_in_proportion(client, server, answer):
    server.ttft_s, server.itl_s = 0.01, 0.001
    server.answer = lambda body: answer(status=503) if len(server.bodies) % 10 == 0 else server.stream(body)
    result = client.run(
        stage(requests=10, max_failures=1.5, max_failed_share=0.1, rule=StopRule(0.6, 60.0)), server.target
    )
    assert not result.aborted
    assert sum(record.failure is not None for record in result.records) > 1


def test_a_server_that_dies_while_a_stage_goes_on_ends_it(client, server, answer):
    server.ttft_s, server.itl_s = 0.01, 0.001
    server.answer = lambda body: answer(status=503) if len(server.bodies) > 20 else server.stream(body)
    result = client.run(
        stage(requests=10, max_failures=2.5, max_failed_share=0.25, rule=StopRule(10.0, 60.0)), server.target
    )
    assert result.aborted
    assert len(result.records) < 40


def test_a_long_result_arrives_whole_however_slowly_it_is_read(server, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as images and CI have it: Python's own stdout then loses short writes
    server.ttft_s, server.itl_s = 0.001, 0.0
    with LoadClient() as client:
        result = client.run(stage(requests=900, streams=9), server.target, watch=lambda: time.sleep(0.05))
    assert len(result.records) == 900


# --- who watches, and what is left behind ---


class ServerDied(Exception):
    pass


def test_watch_is_called_at_least_every_50_ms(client, server):
    server.ttft_s, calls = 0.6, []
    client.run(stage(tokens=1), server.target, watch=lambda: calls.append(time.perf_counter()))
    gaps = [later - earlier for earlier, later in pairwise(calls)]
    assert len(calls) >= 10
    assert sorted(gaps)[len(gaps) // 2] <= 0.05


def test_what_watch_raises_closes_all_streams_within_a_second(client, server, answer):
    server.answer = lambda body: answer([(0, server.delta(content="x"))], end="hang")

    def watch() -> None:
        if server.in_flight == 3:
            raise ServerDied

    with pytest.raises(ServerDied):
        client.run(stage(requests=3, streams=3), server.target, watch=watch)
    raised = time.perf_counter()
    assert eventually(lambda: len(server.disconnected_at) == 3)
    assert max(server.disconnected_at) - raised < 1
    assert client.pid is None


def test_after_a_kill_the_next_stage_has_a_new_worker(client, server):
    client.kill()
    assert client.run(stage(), server.target).records[0].failure is None


def test_a_worker_that_dies_in_mid_stage_is_a_measurement_error(server, answer):
    server.answer = lambda body: answer([], end="hang")
    with LoadClient() as client:
        killed: list[int] = []

        def watch() -> None:
            if server.in_flight and not killed and client.pid:
                killed.append(client.pid)
                os.kill(client.pid, signal.SIGKILL)

        with pytest.raises(MeasurementError, match="load worker died with exit code -9"):
            client.run(stage(), server.target, watch=watch)


def test_a_worker_that_cannot_go_on_says_why(client, server):
    with pytest.raises(MeasurementError, match=r"(?s)exit code 1: .*ValueError"):
        client.run(Stage("x", 0, (), 0.7, 10.0, 0), server.target)


def test_the_worker_imports_nothing_heavy():
    code = "import tuner.load.worker, sys; print([m for m in ('pydantic', 'numpy', 'httpx') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_leaving_the_block_leaves_no_process():
    with LoadClient() as client:
        pid = client.pid
        assert pid is not None
        assert is_alive(pid)
    assert not is_alive(pid)


def test_ctrl_c_in_mid_stage_leaves_no_process(server, answer):
    server.answer = lambda body: answer([], end="hang")

    def interrupted() -> None:
        if server.in_flight:
            raise KeyboardInterrupt

    with LoadClient() as client:
        pid = client.pid
        with pytest.raises(KeyboardInterrupt):
            client.run(stage(), server.target, watch=interrupted)
        assert pid is not None
        assert not is_alive(pid)


OWNER = """
import sys
from tuner.load.client import LoadClient
from tuner.load.stage import Request, Stage
from tuner.load.target import Target
with LoadClient() as client:
    print(client.pid, flush=True)
    stage = Stage("x", 1, (Request("1", 5, None, 5),), 0.7, 60.0, 0)
    client.run(stage, Target(sys.argv[1], {}, "glm"))
"""


def test_a_worker_whose_owner_is_killed_ends_with_its_streams(server, answer):
    server.answer = lambda body: answer([], end="hang")
    with subprocess.Popen([sys.executable, "-c", OWNER, server.target.url], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert eventually(lambda: server.in_flight == 1)
        owner.kill()
    assert eventually(lambda: not is_alive(pid) and server.in_flight == 0)


def test_the_client_reports_its_own_cpu_share_and_lag(client, server):
    server.ttft_s = 0.3
    result = client.run(stage(tokens=1), server.target)
    assert 0 < result.client_cpu_share < 0.5
    assert 0 <= result.loop_lag_p99_ms <= result.loop_lag_max_ms


def test_a_worker_that_was_stopped_for_half_a_second_knows_that_its_stamps_are_late(client, server):
    server.ttft_s, stopped = 0.8, list[float]()

    def watch() -> None:
        if server.in_flight and not stopped:
            stopped.append(time.perf_counter())
            os.kill(client.pid, signal.SIGSTOP)
        elif stopped and time.perf_counter() > stopped[0] + 0.5:
            os.kill(client.pid, signal.SIGCONT)

    result = client.run(stage(tokens=1), server.target, watch=watch)
    assert 450 < result.loop_lag_p99_ms <= result.loop_lag_max_ms < 700
