"""The search for the highest sustained rate, against a server of a known capacity that is only arithmetic."""

from dataclasses import replace
from typing import Any

import pytest

from tests.load.test_metrics import BUSY, failed, record
from tuner.load.metrics import measure
from tuner.load.naming import SATURATION
from tuner.load.prompts import TokenCalibration
from tuner.load.records import StageResult
from tuner.load.saturation import bracket, next_rate, rate_stage, sustained
from tuner.load.stage import Stage
from tuner.load.workload import Workload

CALIBRATION = TokenCalibration(tokens_per_word=1.0, overhead_tokens=0.0)


def workload(slo: Any = None, **saturation: Any) -> Workload:
    return Workload.model_validate(
        {
            "name": "w",
            "concurrency": 2,
            "requests": 20,
            "prompt_tokens": 50,
            "output_tokens": 3,
            "slo": slo or {"ttft_ms": 400},
            "saturation": {"kind": "constant", "seconds": 60, **saturation},
        }
    )


def staged(asked: Workload, rate: float, scale: float = 1.0) -> Stage:
    return rate_stage(asked, rate, seed="1", calibration=CALIBRATION, clock_scale=scale, held_out=False)


def served(stage: Stage, capacity: float) -> StageResult:
    """One request after the other, each in 1 / capacity seconds of wall time and with its first token half-way."""
    free_ms, took_ms, records = 0.0, 1000 / capacity, []
    for index, due_ms in enumerate(stage.due_ms):
        begun_ms = max(free_ms, due_ms)
        free_ms = begun_ms + took_ms
        chunks = tuple(round(begun_ms - due_ms + took_ms * part, 3) for part in (0.5, 0.75, 1.0))
        records.append(record(index, chunks, at=due_ms))
    return StageResult(stage.name, 1, tuple(records), free_ms, 0.1, 1.0, 1.0, send_lag_p99_ms=1.0)


def search(asked: Workload, capacity: float, begin: float | None, scale: float = 1.0) -> list[StageResult]:
    found: list[StageResult] = []
    while rate := next_rate(found, asked, begin, scale):
        found.append(served(staged(asked, rate, scale), capacity * scale))
    return found


@pytest.mark.parametrize("begin", [0.3, 3.9, 4.2, 30.0])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_it_finds_the_capacity_within_its_tolerance_wherever_it_begins(begin, scale):
    asked = workload(tolerance=0.02)
    known = bracket(search(asked, 4.0, begin, scale), asked, scale)
    assert known.low is not None
    assert known.high is not None
    assert known.low == pytest.approx(4.0, rel=0.03)
    assert known.high / known.low <= 1.02
    assert known.low <= 4.0 * 1.01 < known.high * 1.03


def test_a_lax_promise_does_not_hide_that_the_server_falls_behind():
    asked = workload({"e2e_ms": 1e9}, tolerance=0.02)
    assert bracket(search(asked, 4.0, 4.0), asked, 1.0).low == pytest.approx(4.0, rel=0.02)


def test_a_promise_that_no_request_keeps_is_sustained_at_no_rate():
    asked = workload({"ttft_ms": 1})
    found = search(asked, 4.0, 4.0)
    assert len(found) == 7
    assert measure([BUSY, *found], asked).numbers[SATURATION] == 0


def test_failures_end_what_is_sustained():
    asked = workload()
    stage = served(staged(asked, 2.0), 4.0)
    broken = tuple(failed(each.index) if each.index % 10 == 0 else each for each in stage.records)
    assert sustained(stage, asked, 1.0)
    assert not sustained(replace(stage, records=broken), asked, 1.0)
    assert not sustained(replace(stage, aborted=True), asked, 1.0)


def test_all_rates_send_the_same_lengths_and_gaps_and_texts_of_their_own():
    asked = workload(kind="poisson", seconds=10).model_copy(update={"requests": 40})
    slow, fast = staged(asked, 1.0), staged(asked, 2.0)
    assert fast.due_ms == pytest.approx([due / 2 for due in slow.due_ms], abs=0.01)
    assert {each.seed for each in slow.requests}.isdisjoint({each.seed for each in fast.requests})


def test_a_measurement_has_the_rate_with_its_bracket_and_its_other_numbers_know_nothing_of_it():
    asked = workload(tolerance=0.02)
    alone = measure([BUSY], asked)
    measurement = measure([BUSY, *search(asked, 4.0, 4.5)], asked)
    rate, interval = measurement.numbers[SATURATION], measurement.intervals[SATURATION]
    assert rate == interval.low == pytest.approx(4.0, rel=0.03)
    assert interval.high / rate <= 1.02
    assert interval.n >= 60 * rate - 1
    others = {name: value for name, value in measurement.numbers.items() if name != SATURATION}
    assert (others, measurement.completed) == (alone.numbers, alone.completed)


def test_where_the_client_was_late_there_is_no_rate():
    asked = workload()
    *reliable, last = search(workload({"ttft_ms": 1}), 4.0, 4.0)
    assert (
        SATURATION
        not in measure([BUSY, *reliable, replace(last, send_lag_p99_ms=80.0, send_lag_max_ms=90.0)], asked).numbers
    )
    late = [replace(each, send_lag_p99_ms=80.0, send_lag_max_ms=90.0) for each in search(asked, 4.0, 4.0)]
    measurement = measure([BUSY, *late], asked)
    assert SATURATION not in measurement.numbers
    assert "sent 80 ms later than scheduled" in measurement.warnings[0]
