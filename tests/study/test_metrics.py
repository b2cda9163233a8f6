"""Studies whose goals and limits are named by the rule of docs/metrics.md, on the simulated engine."""

import pytest

from tests.fast import FAST
from tuner import composing
from tuner.errors import ConfigError
from tuner.records.record import State
from tuner.study.loop import run_study


@pytest.fixture
def measured(tmp_path):
    """The measurement of a study of one launch, and its verdict."""

    def run(*overrides):
        asked = composing.load([*FAST, f"study.folder={tmp_path}/studies", "space=none", *overrides])
        outcome = run_study(asked, lambda event: None)
        (record,) = outcome.records
        assert record.state is State.COMPLETE, record.failure
        return record.measurement, record.verdict

    return run


def test_goals_and_limits_by_percentile_stage_class_and_prompt_length_are_one_number_each(measured):
    chat, code = "name: chat, weight: 3, prompt_tokens: 40", "name: code, prompt_tokens: 90"
    measurement, verdict = measured(
        "workload.concurrency=[1,4]",
        "workload.ttft_prompt_tokens=[200]",
        f"workload.classes=[{{{chat}, output_tokens: 8}}, {{{code}, output_tokens: 8}}]",
        "objective.goals={output_tokens_per_s: null, ttft_ms.p90.users_1: minimize}",
        "objective.limits={e2e_ms.p95.class_code: {max: 9e9}, ttft_ms.p95.prompt_200.cold: {max: 0.001}}",
    )
    assert verdict.values == (measurement.numbers["ttft_ms.p90.users_1"],)
    assert verdict.violations["e2e_ms.p95.class_code"] < 0 < verdict.violations["ttft_ms.p95.prompt_200.cold"]
    assert measurement.samples["e2e_ms.p95.class_code"] >= 100
    assert measurement.samples["ttft_ms.p95.prompt_200.cold"] == 100
    assert measurement.intervals["ttft_ms.p90.users_1"].n >= 50
    assert measurement.numbers["output_tokens_per_s.users_1"] < measurement.numbers["output_tokens_per_s"]


def test_a_study_tunes_for_goodput(measured):
    measurement, verdict = measured("objective=goodput", "workload.slo={ttft_ms: 9e9, tpot_ms: 9e9}")
    numbers = measurement.numbers
    assert numbers["goodput_share"] == 1
    assert verdict.values == (numbers["goodput_requests_per_s"],)
    assert numbers["goodput_requests_per_s"] == pytest.approx(numbers["requests_per_s"], rel=0.05)
    assert measurement.samples["goodput_share"] >= 100


def test_a_goodput_of_nothing_is_a_result_and_no_error(measured):
    measurement, verdict = measured("objective=goodput", "workload.slo.ttft_ms=0.001")
    assert verdict.values == (0,)
    assert measurement.numbers["goodput_share"] == 0


def test_capacity_counters_and_cost_are_limits_of_a_study(measured):
    measurement, verdict = measured(
        "hardware.price_per_hour=3.6",
        "objective.goals={output_tokens_per_s: null, cost_per_million_tokens: minimize}",
        "objective.limits={preemptions: {max: 0}, prefix_hit_rate: {min: 0.5}, kv_requests: {min: 1}}",
        "objective.limits.startup_s.max=9e9",
    )
    numbers = measurement.numbers
    assert verdict.values == (pytest.approx(1000 / numbers["output_tokens_per_s"]),)
    assert numbers["kv_requests"] == pytest.approx(numbers["kv_tokens"] / 80)
    assert numbers["preemptions"] == 0
    assert {name: violation <= 0 for name, violation in verdict.violations.items()} == {
        "preemptions": True,
        "prefix_hit_rate": False,
        "kv_requests": True,
        "startup_s": True,
    }


def test_energy_that_no_gpu_counts_is_refused_before_trial_0(measured):
    with pytest.raises(ConfigError, match="needs the energy counter of NVML"):
        measured("objective=energy")


def test_a_percentile_of_an_open_loop_and_of_its_ladder_is_carried(measured):
    measurement, verdict = measured(
        "workload.arrivals={kind: poisson, rate: [4, 8]}",
        "workload.min_duration_s=5",
        "objective.goals={output_tokens_per_s: null, ttft_ms.p95: minimize}",
        "objective.limits={e2e_ms.p90.rate_4: {max: 9e9}}",
    )
    assert verdict.values == (measurement.ttft_p95_ms,)
    assert measurement.samples["ttft_p95_ms"] >= 100
    assert measurement.samples["e2e_ms.p90.rate_4"] >= 50
