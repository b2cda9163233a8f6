"""Numbers against hand-computed ones."""

from dataclasses import replace
from typing import Any

import pytest

from tuner.errors import InfeasibleConfig, MeasurementError, RequestsRefused, Unmeasurable
from tuner.load.counters import EngineCounters
from tuner.load.deciding import Deciding
from tuner.load.intervals import Interval
from tuner.load.metrics import Measurement, measure, pooled
from tuner.load.records import FailureKind, RequestFailure, RequestRecord, StageResult, Window
from tuner.load.stage import Request
from tuner.load.timing import tpot_ms
from tuner.load.workload import Workload
from tuner.objective import metric

WORKLOAD = Workload(name="w", concurrency=2, requests=2, max_failed_share=0.5)


def record(index: int = 0, chunks: tuple[float, ...] = (100.0, 110.0, 130.0), **more: Any) -> RequestRecord:
    """Three tokens in three chunks, unless said otherwise."""
    said: dict[str, Any] = {"output_tokens": len(chunks), "prompt_tokens": 50, "finish_reason": "length", "status": 200}
    request = Request(
        f"1/{index}", 40, more.pop("length", 50), more.pop("asked", 3), tool_call=more.pop("tool_call", False)
    )
    duration = chunks[-1] if chunks else 0.0
    return RequestRecord("s", index, 0, request, more.pop("at", 0.0), duration, chunk_ms=chunks, **(said | more))


def failed(index: int, kind: FailureKind = FailureKind.HTTP, text: str = "503 dead") -> RequestRecord:
    return record(index, (), output_tokens=None, failure=RequestFailure(kind, text))


def stage(name: str, *records: RequestRecord, wall_ms: float = 500.0, cpu: float = 0.1, lag: float = 1.0) -> Any:
    return StageResult(name, 2, records, wall_ms, cpu, lag, lag)


def measured(*stages: StageResult, clock_scale: float = 1.0) -> Measurement:
    return measure(stages, WORKLOAD, clock_scale)


BUSY = stage("concurrent", record(0, (100.0, 110.0, 130.0)), record(1, (200.0, 240.0, 300.0, 360.0), asked=4))


def test_throughput_is_completed_tokens_over_the_stages_wall_time():
    measurement = measured(BUSY)
    assert measurement.output_tokens_per_s == pytest.approx(7 / 0.5)
    assert measurement.requests_per_s == pytest.approx(2 / 0.5)


def many(count: int, ttfts: Any, **more: Any) -> Any:
    """That many requests of two users, one pair after the other."""
    records = [record(n, (ttfts(n), ttfts(n) + 10.0, ttfts(n) + 20.0), at=n // 2 * 100.0) for n in range(count)]
    return stage("concurrent", *records, wall_ms=count * 50.0, **more)


def test_the_median_ttft_at_concurrency_is_interpolated_between_requests():
    assert measured(BUSY).ttft_p50_ms == pytest.approx(150.0)


@pytest.mark.parametrize(("requests", "p95"), [(99, None), (100, 190.05)])
def test_a_p95_needs_a_hundred_requests(requests, p95):
    measurement = measured(many(requests, lambda n: 96.0 + n))
    assert measurement.ttft_p95_ms == (p95 and pytest.approx(p95))
    assert measurement.samples["ttft_p95_ms"] == requests


def test_a_p99_of_gaps_needs_five_hundred_steps_of_the_engine():
    chunks = tuple(float(n) for n in range(501))
    pairs = [[record(n, c, asked=501) for n in range(2)] for c in (chunks[:-1], chunks)]
    short, long = (stage("concurrent", *pair, wall_ms=600.0) for pair in pairs)
    assert measured(short).itl_p99_ms is None
    assert measured(long).itl_p99_ms == pytest.approx(1.0)


def test_itl_pools_the_gaps_of_all_requests():
    assert measured(BUSY).itl_p50_ms == pytest.approx(40.0)  # gaps 10 20 40 60 60


def test_tpot_is_end_minus_first_over_the_tokens_after_the_first():
    assert measured(BUSY).concurrent_tpot_p50_ms == pytest.approx((15.0 + 160 / 3) / 2)


def test_tpot_counts_tokens_not_chunks():
    assert tpot_ms(record(0, (100.0, 160.0), output_tokens=7)) == pytest.approx(10.0)


def test_a_request_of_one_token_has_no_tpot():
    assert tpot_ms(record(0, (100.0,))) is None
    assert measured(stage("single_user", record(0, (100.0,)))).tpot_p50_ms is None


def test_e2e_ends_with_the_last_chunk_that_carries_tokens():
    assert measured(BUSY).e2e_p50_ms == pytest.approx((130 + 360) / 2)


def test_the_single_users_tpot_comes_from_the_single_user_alone():
    alone = stage("single_user", record(0, (10.0, 12.0, 14.0)), record(1, (10.0, 14.0, 18.0)))
    measurement = measured(BUSY, alone)
    assert measurement.tpot_p50_ms == pytest.approx(3.0)
    assert measurement.single_user_ttft_p50_ms == pytest.approx(10.0)


def test_what_was_not_measured_is_none_not_zero():
    measurement = measured(stage("single_user", record()))
    missing = measurement.output_tokens_per_s, measurement.ttft_p95_ms, measurement.itl_p50_ms, measurement.tool_call_ms
    assert missing == (None, None, None, None)


def test_failed_requests_are_counted_and_never_averaged_in():
    measurement = measured(stage("concurrent", record(0), failed(1)))
    assert (measurement.completed, measurement.failed, measurement.failures) == (1, 1, {FailureKind.HTTP: 1})
    assert measurement.ttft_p50_ms == pytest.approx(100.0)
    assert measurement.output_tokens_per_s == pytest.approx(3 / 0.5)


def test_the_tokens_of_a_failed_request_do_not_count():
    cut = record(1, failure=RequestFailure(FailureKind.CONNECTION, "reset"))
    assert measured(stage("concurrent", record(0), cut)).output_tokens_per_s == pytest.approx(3 / 0.5)


def test_a_long_prompts_first_sending_is_cold_and_its_second_cached():
    long = stage(
        "ttft_5000",
        record(0, (900.0,), prompt_tokens=5003, length=5000),
        record(1, (90.0,), prompt_tokens=5003, length=5000),
    )
    (prompt,) = measured(long).long_prompts
    assert prompt.model_dump() == {"asked_tokens": 5000, "prompt_tokens": 5003, "cold_ms": 900.0, "cached_ms": 90.0}


def test_a_long_prompt_that_the_server_had_cached_has_no_cold_ttft():
    (prompt,) = measured(
        stage("ttft_5000", record(0, length=5000, prompt_tokens=5003, cached_tokens=4992))
    ).long_prompts
    assert (prompt.cold_ms, prompt.cached_ms) == (None, None)


def test_a_tool_call_takes_until_its_last_chunk():
    call = record(0, (50.0, 70.0), tool_call=True, tool_called=True, finish_reason="tool_calls")
    assert measured(stage("tool_call", call)).tool_call_ms == 70.0


def test_an_answer_without_the_tool_is_no_tool_call():
    assert measured(stage("tool_call", record(0, tool_call=True))).tool_call_ms is None


def test_outputs_shorter_than_asked_are_reported():
    measurement = measured(stage("concurrent", record(0), record(1, (1.0, 2.0))))
    assert measurement.short_outputs == 1
    assert "1 of 2 answers were shorter than asked" in measurement.warnings[0]


def test_a_tool_call_may_be_shorter_than_its_limit():
    assert measured(stage("tool_call", record(0, (1.0, 2.0), tool_call=True, tool_called=True))).short_outputs == 0


def test_a_clock_scale_multiplies_durations_and_divides_throughput():
    alone = stage("single_user", record())
    wall, scaled = measured(BUSY, alone), measured(BUSY, alone, clock_scale=4.0)
    assert wall.output_tokens_per_s is not None
    assert scaled.output_tokens_per_s == pytest.approx(wall.output_tokens_per_s / 4)
    for name in ("ttft_p50_ms", "itl_p50_ms", "tpot_p50_ms", "e2e_p50_ms"):
        assert getattr(scaled, name) == pytest.approx(4 * getattr(wall, name))
    assert (scaled.loop_lag_p99_ms, scaled.clock_scale) == (wall.loop_lag_p99_ms, 4.0)


def test_the_clients_lateness_is_that_of_its_worst_stage_and_its_cpu_share_that_of_the_busy_one():
    tiny = stage("tool_call", record(), wall_ms=2.0, cpu=0.97, lag=2.0)
    measurement = measured(tiny, stage("concurrent", record(), cpu=0.3, lag=0.0))
    assert (measurement.client_cpu_share, measurement.loop_lag_p99_ms) == (0.3, 2.0)


def test_nothing_completed_is_an_error_that_says_why():
    with pytest.raises(MeasurementError, match="no request completed: 2 x http; the first: 503 dead"):
        measured(stage("concurrent", failed(0), failed(1)))


def test_nothing_sent_is_an_error():
    with pytest.raises(MeasurementError, match="none was sent"):
        measured()


def test_a_server_without_usage_is_an_error():
    with pytest.raises(MeasurementError, match="2 x no_usage"):
        measured(stage("concurrent", *(failed(i, FailureKind.NO_USAGE, "no usage") for i in range(2))))


def test_more_failures_than_the_workload_allows_are_an_error():
    with pytest.raises(MeasurementError, match="2 of 3 requests failed, above 50%"):
        measured(stage("concurrent", record(0), failed(1), failed(2)))


REFUSED, LOST = failed(1, text="400 too long"), failed(2, FailureKind.TIMEOUT, "after 600 s")


@pytest.mark.parametrize(
    ("failures", "error"),
    [
        ([REFUSED] * 3, RequestsRefused),
        ([LOST, LOST, REFUSED, REFUSED], RequestsRefused),
        ([LOST, LOST, LOST, REFUSED, REFUSED, REFUSED], RequestsRefused),
        ([LOST] * 9 + [REFUSED] * 3, RequestsRefused),
        ([failed(1, text="501 no such function")] * 3, RequestsRefused),
        ([LOST] * 9 + [REFUSED], MeasurementError),
        ([failed(1, text="503 busy")] * 3, MeasurementError),
        ([failed(1, text="429 later")] * 3, MeasurementError),
    ],
)
def test_requests_of_one_kind_that_are_refused_are_the_configurations_fault(failures, error):
    workload = WORKLOAD.model_copy(update={"max_failed_share": 0.1})
    with pytest.raises(MeasurementError) as raised:
        measure([stage("concurrent", *map(record, range(20 - len(failures))), *failures)], workload)
    assert type(raised.value) is error
    assert error is MeasurementError or "the first: 400" in str(raised.value) or "501" in str(raised.value)


def test_a_client_that_used_up_its_core_is_an_error():
    with pytest.raises(MeasurementError, match="used 95% of a core, above 80%"):
        measured(stage("concurrent", record(), cpu=0.95))


def test_a_client_that_could_not_keep_the_schedule_voids_the_stage():
    late = replace(stage("rate_2", record()), send_lag_p99_ms=80.4, send_lag_max_ms=130.0)
    measurement = measured(late, BUSY)
    assert measurement.unreliable == ("rate_2",)
    assert measurement.send_lag_p99_ms == 80.4
    assert measurement.warnings[0].startswith(
        "rate_2: the load client sent 80 ms later than scheduled (p99; at most 130 ms), above 50 ms"
    )


def test_a_concurrent_stage_off_its_schedule_is_an_error():
    with pytest.raises(MeasurementError, match="sent 80 ms later than scheduled"):
        measured(replace(BUSY, send_lag_p99_ms=80.0, send_lag_max_ms=90.0))


def test_a_client_that_ran_late_is_an_error():
    with pytest.raises(MeasurementError, match="ran 80 ms late"):
        measured(stage("concurrent", record(), lag=80.0))


def test_another_stage_that_the_client_stamped_late_has_no_numbers_and_is_named():
    measurement = measured(BUSY, stage("single_user", record(), lag=80.0), stage("ttft_5000", record(), lag=80.0))
    assert (measurement.tpot_p50_ms, measurement.long_prompts) == (None, ())
    assert measurement.unreliable == ("single_user", "ttft_5000")
    assert measurement.output_tokens_per_s is not None


def test_every_number_says_what_it_means():
    assert all(info.description for info in Measurement.model_fields.values())


def test_a_number_that_its_sample_cannot_carry_is_refused_with_what_to_name_instead():
    with pytest.raises(MeasurementError, match="it needs a sample of 100, and had 2") as refused:
        metric(measured(BUSY), "ttft_p95_ms")
    assert "name the median instead" in str(refused.value)


def test_a_number_that_the_stream_hides_is_the_configurations_own_fault():
    """It is hidden from every attempt: on an H200 a study launched its baseline three times for it."""
    hidden = measured(BUSY).model_copy(update={"tpot_p50_ms": None, "warnings": ("tokens that are not shown",)})
    with pytest.raises(Unmeasurable, match="tokens that are not shown") as refused:
        metric(hidden, "tpot_p50_ms")
    assert isinstance(refused.value, InfeasibleConfig)


def test_the_long_prompts_can_be_named_as_metrics():
    long = stage("ttft_5000", record(0, (900.0,), length=5000, prompt_tokens=5003))
    assert metric(measured(BUSY, long), "ttft_5000_cold_ms") == 900.0
    assert "ttft_5000_cached_ms" not in measured(BUSY, long).numbers


def test_only_requests_sent_inside_the_window_are_the_sample():
    early, inside, late = (record(n, (10.0, 20.0, 30.0), at=at) for n, at in enumerate((0.0, 100.0, 900.0)))
    measurement = measured(replace(stage("concurrent", early, inside, late), window=Window(90.0, 500.0)))
    assert measurement.samples["ttft_p50_ms"] == 1
    assert measurement.windows == {"concurrent": Window(90.0, 500.0)}


def test_throughput_is_what_arrived_inside_the_window_over_its_length():
    before, across = record(0, (50.0, 80.0, 90.0)), record(1, (60.0, 120.0, 180.0), at=0.0)
    cut = record(2, (150.0, 450.0), at=0.0, output_tokens=None, failure=RequestFailure(FailureKind.CUT, "over"))
    result = replace(
        stage("concurrent", before, across, cut, record(3, (110.0, 120.0, 130.0), at=0.0)), window=Window(0.0, 400.0)
    )
    measurement = measured(result)
    assert measurement.output_tokens_per_s == pytest.approx(10 / 0.4)  # all but the cut one's second chunk
    assert measurement.ramped_output_tokens_per_s == pytest.approx(11 / 0.5)
    assert (measurement.completed, measurement.failed) == (3, 0)


def test_a_record_of_an_earlier_version_is_still_read():
    new = {"intervals", "samples", "windows", "warnings", "engine", "kv_tokens", "startup_s", "tokens_per_chunk"}
    old = measured(BUSY).model_dump(mode="json", exclude={*new, "ramped_output_tokens_per_s"})
    assert Measurement.model_validate(old).intervals == {}


def test_intervals_survive_the_disk():
    measurement = measured(many(120, lambda n: 100.0 + n % 7))
    assert {"output_tokens_per_s", "ttft_p50_ms", "ttft_p95_ms"} <= measurement.intervals.keys()
    assert Measurement.model_validate_json(measurement.model_dump_json()) == measurement


def test_two_measurements_of_one_server_count_as_their_mean_with_a_narrower_interval():
    first = measured(BUSY)
    one, other = (
        first.model_copy(
            update={
                "output_tokens_per_s": value,
                "intervals": {"output_tokens_per_s": Interval(low=value / 1.1, high=value * 1.1, n=10)},
            }
        )
        for value in (100.0, 121.0)
    )
    both = pooled(one, other)
    assert both.output_tokens_per_s == pytest.approx(110)
    interval = both.intervals["output_tokens_per_s"]
    assert interval.n == 20
    assert interval.high / 110 == pytest.approx(1.1 ** (1 / 2**0.5))
    assert both.completed == 2 * first.completed


def asked_for(stages: list[StageResult], *names: str, **more: Any) -> Measurement:
    return measure(stages, WORKLOAD.model_copy(update=more), deciding=Deciding(names))


def test_any_percentile_of_any_latency_can_be_asked_for_with_its_interval_and_sample():
    busy = many(120, lambda n: 96.0 + n)
    measurement = asked_for([busy], "ttft_ms.p90", "e2e_ms.p95", "e2e_ms.p99")
    assert measurement.numbers["ttft_ms.p90"] == pytest.approx(96 + 119 * 0.9)
    assert measurement.numbers["e2e_ms.p95"] == pytest.approx(116 + 119 * 0.95)
    assert "e2e_ms.p99" not in measurement.numbers
    assert {name: measurement.samples[name] for name in ("ttft_ms.p90", "e2e_ms.p99")} == {
        "ttft_ms.p90": 120,
        "e2e_ms.p99": 120,
    }
    assert measurement.intervals["ttft_ms.p90"].low < 96 + 119 * 0.9 < measurement.intervals["ttft_ms.p90"].high
    with pytest.raises(MeasurementError, match="needs a sample of 500, and had 120"):
        metric(measurement, "e2e_ms.p99")


def test_both_spellings_give_the_same_number():
    measurement = asked_for([many(120, lambda n: 96.0 + n)], "ttft_ms.p95")
    assert measurement.named == {}
    assert measurement.numbers["ttft_p95_ms"] == pytest.approx(96 + 119 * 0.95)


def test_each_stage_of_a_ladder_has_its_own_numbers():
    rung = replace(stage("users_1", record(0, (10.0, 12.0, 14.0))), streams=1)
    measurement = asked_for([rung, BUSY], concurrency=(1, 2))
    assert measurement.numbers["output_tokens_per_s.users_1"] == pytest.approx(3 / 0.5)
    assert measurement.numbers["ttft_ms.p50.users_1"] == pytest.approx(10.0)
    assert measurement.output_tokens_per_s == pytest.approx(7 / 0.5)


def test_each_class_of_requests_has_its_own_numbers():
    chat, code = (
        replace(each.request, traffic=name) for each, name in zip(BUSY.records, ("chat", "code"), strict=True)
    )
    busy = replace(BUSY, records=(replace(BUSY.records[0], request=chat), replace(BUSY.records[1], request=code)))
    classes = [{"name": name, "prompt_tokens": 50, "output_tokens": 3} for name in ("chat", "code")]
    workload = Workload.model_validate(WORKLOAD.model_dump() | {"classes": classes})
    numbers = measure([busy], workload, deciding=Deciding(("output_tokens_per_s.class_code",))).numbers
    assert (numbers["ttft_ms.p50.class_chat"], numbers["ttft_ms.p50.class_code"]) == (100.0, 200.0)
    assert numbers["output_tokens_per_s.class_code"] == pytest.approx(4 / 0.5)


def test_a_percentile_of_a_long_prompt_is_over_different_prompts_cold_or_cached():
    records = [record(n, ((900.0 + n if n % 2 == 0 else 90.0),), length=5000, prompt_tokens=5003) for n in range(200)]
    measurement = asked_for([stage("ttft_5000", *records)], "ttft_ms.p95.prompt_5000.cold")
    assert measurement.numbers["ttft_ms.p95.prompt_5000.cold"] == pytest.approx(900 + 198 * 0.95)
    assert measurement.samples["ttft_ms.p95.prompt_5000.cold"] == 100
    assert measurement.numbers["ttft_5000_cached_ms"] == 90.0


def test_every_latency_of_a_long_prompt_can_be_asked_for_cold_or_cached():
    cold, cached = (900.0, 920.0, 960.0), (90.0, 110.0, 130.0)
    records = [record(n, cached if n % 2 else cold, length=5000, prompt_tokens=5003) for n in range(8)]
    names = [f"{what}.p50.prompt_5000.{how}" for what in ("tpot_ms", "itl_ms", "e2e_ms") for how in ("cold", "cached")]
    measurement = asked_for([stage("ttft_5000", *records)], *names)
    assert [measurement.numbers[name] for name in names] == [30.0, 20.0, 30.0, 20.0, 960.0, 130.0]
    assert {measurement.samples[name] for name in names} == {4}
    assert measurement.numbers["ttft_5000_cold_ms"] == 900.0


def test_what_the_server_counts_in_a_stage_is_measured_where_it_tells():
    told = EngineCounters(readings=3, preemptions=0.0, prefix_hits=30.0, prefix_queries=120.0)
    rung = replace(stage("users_1", record()), engine=replace(told, preemptions=4.0))
    numbers = measure(
        [replace(BUSY, engine=told), rung],
        WORKLOAD.model_copy(update={"concurrency": (1, 2)}),
        deciding=Deciding((), ("preemptions.users_1",)),
    ).numbers
    assert (numbers["preemptions"], numbers["prefix_hit_rate"], numbers["preemptions.users_1"]) == (0.0, 0.25, 4.0)
    silent = measured(replace(BUSY, engine=EngineCounters(readings=3)))
    assert not {"preemptions", "prefix_hit_rate"} & silent.numbers.keys()
    with pytest.raises(MeasurementError, match="the server does not tell"):
        metric(silent, "preemptions")
