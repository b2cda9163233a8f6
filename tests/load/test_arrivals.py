"""Schedules of open loops: their rate, their shape, and that they are kept on the wire."""

from itertools import pairwise
from statistics import mean, stdev

import pytest

from tuner.load.arrivals import schedule
from tuner.load.metrics import measure
from tuner.load.plan import plan
from tuner.load.prompts import TokenCalibration
from tuner.load.shapes import Arrivals
from tuner.load.stage import Stage
from tuner.load.workload import Workload

CALIBRATION = TokenCalibration(tokens_per_word=1.25, overhead_tokens=10)


def gaps(arrivals: Arrivals, rate: float, requests: int = 5000, seed: str = "7") -> list[float]:
    return [later - earlier for earlier, later in pairwise(schedule(arrivals, rate, requests, seed))]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("kind", ["constant", "poisson", "gamma"])
def test_5000_requests_have_their_rate_within_2_percent(kind, seed):
    assert 1 / mean(gaps(Arrivals(kind=kind, rate=8), 8, seed=seed)) == pytest.approx(8, rel=0.02)


def test_constant_arrivals_are_evenly_spaced():
    assert gaps(Arrivals(kind="constant", rate=4), 4, 100) == pytest.approx([0.25] * 99)


@pytest.mark.parametrize(("kind", "variation"), [("poisson", 1.0), ("gamma", 2.0)])
def test_the_spread_of_the_gaps_is_that_of_their_distribution(kind, variation):
    found = gaps(Arrivals(kind=kind, rate=8, burstiness=0.25), 8, 20_000)
    assert stdev(found) / mean(found) == pytest.approx(variation, rel=0.05)


def test_counts_of_poisson_arrivals_are_poisson():
    """Their variance over their mean, in windows of a second, is 1."""
    moments = schedule(Arrivals(kind="poisson", rate=10), 10, 20_000, "7")
    counts = [0] * 2000
    for moment in moments:
        counts[int(moment)] += 1
    assert stdev(counts) ** 2 / mean(counts) == pytest.approx(1, abs=0.15)


def test_a_ramp_grows_evenly_from_its_rate_to_its_last():
    moments = schedule(Arrivals(kind="poisson", rate=2, until_rate=10), 2, 6000, "7")
    half_s = 1000 / 2
    assert moments[-1] == pytest.approx(1000, rel=0.01)
    assert sum(moment < half_s for moment in moments) / half_s == pytest.approx(4, rel=0.06)
    assert sum(moment >= half_s for moment in moments) / half_s == pytest.approx(8, rel=0.06)


def test_the_same_seed_makes_the_same_schedule_and_another_one_another():
    made = [schedule(Arrivals(kind="gamma", rate=2), 2, 50, seed) for seed in ("1", "1", "2")]
    assert made[0] == made[1] != made[2]


def planned(held_out: bool = False, seed: int = 1, clock_scale: float = 1.0, **given) -> tuple[Stage, ...]:
    workload = Workload.model_validate({"name": "open", "ttft_prompt_tokens": (), "tool_call": False} | given)
    return plan(
        workload,
        seed=seed,
        context_tokens=None,
        kv_tokens=None,
        calibration=CALIBRATION,
        clock_scale=clock_scale,
        held_out=held_out,
    ).stages


def test_a_ladder_of_users_is_a_stage_for_each_and_the_last_decides():
    stages = planned(concurrency=[1, 5, 20])
    assert [(stage.name, stage.streams) for stage in stages] == [
        ("users_1", 1),
        ("users_5", 5),
        ("concurrent", 20),
        ("single_user", 1),
    ]


def test_an_open_loop_lasts_its_time_in_the_engines_seconds():
    first, second, _ = planned(arrivals={"kind": "poisson", "rate": [2, 4]}, min_duration_s=60, clock_scale=3)
    assert [(stage.name, len(stage.requests), stage.rule) for stage in (first, second)] == [
        ("rate_2", 120, None),
        ("concurrent", 240, None),
    ]
    assert second.due_ms[-1] == pytest.approx(20_000, rel=0.1)


def test_measurements_share_a_schedule_but_no_prompt_and_the_proof_has_another():
    arrivals = {"kind": "poisson", "rate": 2}
    one, other = (planned(seed=seed, arrivals=arrivals)[0] for seed in (1, 2))
    assert one.due_ms == other.due_ms
    assert not {request.seed for request in one.requests} & {request.seed for request in other.requests}
    assert planned(arrivals=arrivals, held_out=True)[0].due_ms != one.due_ms


# --- on the wire ---


def test_requests_are_sent_on_schedule_while_the_server_answers_nothing(client, server):
    """A server that takes half a second for each sees all of them come at their own times."""
    server.ttft_s = 0.5
    stage = planned(arrivals={"kind": "gamma", "rate": 50}, requests=100, min_duration_s=0, output_tokens=2)[0]
    result = client.run(stage, server.target)
    assert [record.scheduled_ms for record in result.records] == pytest.approx(stage.due_ms, abs=0.01)
    late = [record.started_ms - due for record, due in zip(result.records, stage.due_ms, strict=True)]
    assert min(late) >= -2.0  # the event loop's clock ticks in milliseconds
    assert result.send_lag_max_ms == pytest.approx(max(late), abs=0.1)
    assert max(server.in_flight_at_arrival) > 15
    assert result.streams == pytest.approx(50 * 0.51 * 2 / 2.5, rel=0.5)


def test_the_window_of_an_open_loop_ends_with_its_schedule(client, server):
    stage = planned(arrivals={"kind": "constant", "rate": 50}, requests=50, min_duration_s=0, output_tokens=3)[0]
    result = client.run(stage, server.target)
    assert result.window.end_ms == result.records[-1].started_ms >= stage.due_ms[-1] - 1
    assert 0 < result.window.start_ms < 500
    measured = measure([result], Workload(name="w", requests=5, max_loop_lag_ms=5000))
    assert measured.send_lag_p99_ms == result.send_lag_p99_ms
    assert measured.samples["ttft_p50_ms"] == sum(r.started_ms >= result.window.start_ms for r in result.records)


def test_an_open_loop_that_only_fails_ends_before_its_schedule(client, server, answer):
    server.answer = lambda body: answer(status=500)
    stage = planned(arrivals={"kind": "constant", "rate": 1}, requests=60, min_duration_s=0)[0]
    result = client.run(stage, server.target)
    assert result.aborted
    assert len(result.records) < 10
