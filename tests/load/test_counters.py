"""The server's own counters, read while a stage runs."""

import time

import pytest

from tests.present import present
from tuner.load.client import LoadClient
from tuner.load.counters import Page, parse, summary
from tuner.load.metrics import measure
from tuner.load.stage import Request, Stage, StopRule
from tuner.load.workload import Workload

WORKLOAD = Workload(name="w", concurrency=2, requests=2)
VLLM = """
# HELP vllm:generation_tokens_total Number of generation tokens processed.
vllm:generation_tokens_total{engine="0",model_name="a b"} 100.0
vllm:generation_tokens_total{engine="1",model_name="a b"} 20.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.1
vllm:num_requests_waiting NaN
vllm:num_requests_running{engine="0"} 3 1700000000
vllm:time_to_first_token_seconds_sum{engine="0"} 7.0
"""


def stage(seconds=0.8):
    made = tuple(Request(f"7/{index}", 20, 30, 20) for index in range(2))
    return Stage("concurrent", 2, made, 0.7, 10.0, 0, rule=StopRule(seconds, 9.0))


def page(server, factor=1):
    """What a server counts that has answered so many requests of twenty tokens."""
    done = len(server.bodies) - server.in_flight
    return f"vllm:generation_tokens_total {done * 20 * factor}\nvllm:num_requests_running {server.in_flight}\n"


def test_counts_of_several_engines_are_added_and_shares_averaged():
    assert parse(VLLM, 7) == Page(7, generation_tokens=120.0, kv_usage=0.3, running=3.0)


@pytest.mark.parametrize("garbage", ["", "<html>", "vllm:prompt_tokens_total", "vllm:prompt_tokens_total{} x"])
def test_what_is_no_page_says_nothing(garbage):
    assert parse(garbage, 7) == Page(7)


def test_counts_at_the_windows_ends_lie_between_the_readings():
    pages = [Page(second * 10**9, generation_tokens=100.0 * second, waiting=float(second)) for second in range(5)]
    found = present(summary(pages, 500_000_000, 3_500_000_000))
    assert (found.generation_tokens, found.stage_generation_tokens) == (300.0, 400.0)
    assert (found.readings, found.waiting_mean) == (3, 2.0)


def test_a_counter_that_falls_was_started_anew_and_says_nothing():
    pages = [Page(n * 10**9, generation_tokens=tokens) for n, tokens in enumerate((50.0, 90.0, 10.0))]
    assert present(summary(pages, 0, 2 * 10**9)).generation_tokens is None


def test_the_servers_counters_are_read_while_a_stage_lasts(client, server):
    server.metrics = lambda: page(server)
    (result,) = client.run_all([stage(seconds=3.0)], server.target)
    assert result.engine.readings >= 1
    assert result.engine.stage_generation_tokens == pytest.approx(20 * len(result.records), abs=60)
    assert measure([result], WORKLOAD).engine == result.engine


def test_a_server_that_counts_otherwise_than_the_client_is_a_warning(client, server):
    server.metrics = lambda: page(server, factor=2)
    (result,) = client.run_all([stage()], server.target)
    assert "there is other traffic on the server" in measure([result], WORKLOAD).warnings[-1]


def test_a_server_without_metrics_is_measured_all_the_same(client, server):
    (result,) = client.run_all([stage()], server.target)
    assert result.engine is None
    assert result.sample


def test_a_flood_instead_of_metrics_neither_fills_memory_nor_holds_up_the_stage(server):
    server.metrics = lambda: "x" * (64 << 20)
    begun = time.perf_counter()
    with LoadClient() as client:
        (result,) = client.run_all([stage()], server.target)
    assert result.engine is None
    assert time.perf_counter() - begun < 20
