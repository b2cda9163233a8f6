"""Goodput by hand: which requests keep all that was promised, and how many of them there are."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.load.test_metrics import failed, record, stage
from tuner.load.metrics import measure
from tuner.load.records import StageResult, Window
from tuner.load.workload import Workload

BASE = {"name": "w", "concurrency": 2, "requests": 2, "max_failed_share": 0.5}


def promising(**more: Any) -> Workload:
    return Workload.model_validate(BASE | more)


def answers(count: int, ttft_ms: Any, **more: Any) -> list[Any]:
    """Requests of three tokens, 10 ms apart, of two users."""
    return [record(n, tuple(ttft_ms(n) + at for at in (0, 10, 20)), at=n // 2 * 100.0, **more) for n in range(count)]


def numbers(stages: list[StageResult], workload: Workload, scale: float = 1.0) -> dict[str, float]:
    return measure(stages, workload, scale).numbers


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ({"ttft_ms": 150}, 5),
        ({"tpot_ms": 9.9}, 0),
        ({"tpot_ms": 10}, 10),
        ({"e2e_ms": 165}, 4),
        ({"ttft_ms": 150, "tpot_ms": 9.9}, 0),
        ({"ttft_ms": 130, "e2e_ms": 165}, 3),
    ],
)
def test_a_request_is_good_if_it_keeps_all_of_its_limits(slo, kept):
    busy = stage("concurrent", *answers(10, lambda n: 110.0 + 10 * n), wall_ms=1000.0)
    found = numbers([busy], promising(slo=slo))
    assert found["goodput_share"] == kept / 10
    assert found["goodput_requests_per_s"] == pytest.approx(kept / 1.0)


def test_it_is_what_vllms_benchmark_calls_goodput():
    """``calculate_metrics`` of vllm/benchmarks/serve.py: all three within their limits, over the time."""
    busy = stage("concurrent", *answers(20, lambda n: 100.0 + 7 * n), wall_ms=1000.0)
    ends = [(each.ttft_ms, each.e2e_ms) for each in busy.records]
    rows = [(ttft, (e2e - ttft) / 2, e2e) for ttft, e2e in ends]
    limits = (180.0, 12.0, 190.0)
    theirs = sum(all(value <= limit for value, limit in zip(row, limits, strict=True)) for row in rows) / 1.0
    slo = dict(zip(("ttft_ms", "tpot_ms", "e2e_ms"), limits, strict=True))
    assert numbers([busy], promising(slo=slo))["goodput_requests_per_s"] == pytest.approx(theirs)


def test_a_request_that_failed_keeps_nothing_and_counts():
    busy = stage("concurrent", *answers(3, lambda n: 100.0), failed(3))
    assert numbers([busy], promising(slo={"ttft_ms": 500}))["goodput_share"] == 0.75


def test_limits_are_in_the_engines_own_time():
    busy = stage("concurrent", *answers(10, lambda n: 100.0))
    assert numbers([busy], promising(slo={"ttft_ms": 399}), scale=4.0)["goodput_share"] == 0
    assert numbers([busy], promising(slo={"ttft_ms": 401}), scale=4.0)["goodput_share"] == 1


def test_a_goodput_of_nothing_is_measured_and_zero():
    busy = stage("concurrent", *answers(10, lambda n: 100.0))
    found = numbers([busy], promising(slo={"ttft_ms": 1}))
    assert (found["goodput_share"], found["goodput_requests_per_s"]) == (0, 0)


def test_each_class_has_its_own_promise_or_the_workloads():
    kinds: list[dict[str, Any]] = [
        {"name": name, "prompt_tokens": 50, "output_tokens": 3} for name in ("chat", "code", "free")
    ]
    kinds[1]["slo"] = {"ttft_ms": 50}
    mixed = [
        replace(each, request=replace(each.request, traffic=("chat", "code", "free")[each.index % 3]))
        for each in answers(12, lambda n: 100.0)
    ]
    found = numbers([stage("concurrent", *mixed)], promising(classes=kinds, slo={"ttft_ms": 200}))
    shares = {name: found[f"goodput_share.class_{name}"] for name in ("chat", "code", "free")}
    assert shares == {"chat": 1, "code": 0, "free": 1}
    assert found["goodput_share"] == pytest.approx(8 / 12)


def test_only_what_arrives_in_the_window_counts_for_the_rate():
    early, inside = record(0, (10.0, 20.0, 30.0)), record(1, (10.0, 20.0, 30.0), at=100.0)
    across = record(2, (50.0, 60.0, 370.0), at=150.0)
    busy = replace(stage("concurrent", early, inside, across), window=Window(90.0, 490.0))
    found = numbers([busy], promising(slo={"ttft_ms": 500}))
    assert found["goodput_requests_per_s"] == pytest.approx((1 + 2 / 3) / 0.4)


def test_what_a_buffered_stream_hides_is_no_goodput():
    lumps = [replace(each, chunk_ms=(100.0,) * 20, output_tokens=20) for each in answers(10, lambda n: 100.0, asked=20)]
    found = numbers([stage("concurrent", *lumps)], promising(slo={"ttft_ms": 500}))
    assert "goodput_share" not in found
    assert numbers([stage("concurrent", *lumps)], promising(slo={"e2e_ms": 500}))["goodput_share"] == 1


@pytest.mark.parametrize(("limit", "share"), [(99.0, 0), (150.0, 0.5), (500.0, 1)])
def test_a_share_has_an_interval_also_at_its_ends(limit, share):
    busy = stage("concurrent", *answers(100, lambda n: 100.0 + n % 2 * 100))
    measurement = measure([busy], promising(slo={"ttft_ms": limit}))
    interval = measurement.intervals["goodput_share"]
    assert measurement.numbers["goodput_share"] == share
    assert interval.n == 100
    assert max(0, share - 0.11) <= interval.low <= share <= interval.high <= min(1, share + 0.11)
    assert interval.high - interval.low > 0.03


def test_a_promise_promises_something():
    with pytest.raises(ValidationError, match="promise something"):
        promising(slo={})
