import pytest

from tuner.load.deciding import Deciding, repeats, unmeasurable
from tuner.load.metrics import METRICS
from tuner.load.plan import SLACK_TOKENS, Plan, Room, plan
from tuner.load.prompts import TokenCalibration, text
from tuner.load.shapes import RequestClass
from tuner.load.stage import StopRule
from tuner.load.workload import Workload

CALIBRATION = TokenCalibration(tokens_per_word=1.25, overhead_tokens=10)
OFTEN = RequestClass(name="often", weight=99, prompt_tokens=9, output_tokens=9)
RARE = RequestClass(name="rare", prompt_tokens=9, output_tokens=9)
WORKLOAD = Workload(name="agents", concurrency=5, prompt_tokens=1000, output_tokens=200, requests=20)


def planned(workload: Workload = WORKLOAD, seed: int = 1, context: int | None = None, kv: int | None = None) -> Plan:
    return plan(workload, seed=seed, context_tokens=context, kv_tokens=kv, calibration=CALIBRATION)


def test_a_plan_measures_concurrency_one_user_long_prompts_and_a_tool_call():
    stages = planned().stages
    assert [(stage.name, stage.streams, len(stage.requests)) for stage in stages] == [
        ("concurrent", 5, 20),
        ("single_user", 1, 3),
        ("ttft_5000", 1, 2),
        ("ttft_30000", 1, 2),
        ("tool_call", 1, 1),
    ]


def test_a_long_prompt_is_sent_twice_and_everything_else_once():
    for stage in planned().stages:
        seeds = {request.seed for request in stage.requests}
        assert len(seeds) == (1 if stage.name.startswith("ttft") else len(stage.requests))


def test_only_what_repeats_lasts_a_time_of_its_own_in_the_engines_seconds():
    stages = plan(
        WORKLOAD.model_copy(update={"min_duration_s": 12.0}),
        seed=1,
        context_tokens=None,
        kv_tokens=None,
        calibration=CALIBRATION,
        clock_scale=6,
    ).stages
    lasting = {stage.name: (stage.rule.least_s, stage.rule.most_s) for stage in stages if stage.rule}
    assert lasting == {"concurrent": (2.0, 12.0), "single_user": (2.0, 12.0)}


def rules(workload: Workload, deciding: Deciding) -> dict[str, StopRule]:
    stages = plan(
        workload, seed=1, context_tokens=None, kv_tokens=None, calibration=CALIBRATION, deciding=deciding
    ).stages
    return {stage.name: stage.rule for stage in stages if stage.rule}


def test_a_goal_is_measured_as_precisely_as_a_goal_and_a_limit_as_a_limit():
    workload = WORKLOAD.model_copy(update={"precision": 0.01, "limit_precision": 0.04})
    made = rules(workload, Deciding(("output_tokens_per_s",), ("ttft_p50_ms", "tpot_p50_ms")))
    busy, alone = made["concurrent"], made["single_user"]
    assert (busy.rate, busy.ttft, busy.tpot) == (0.01, 0.04, None)
    assert (alone.rate, alone.ttft, alone.tpot) == (None, None, 0.04)


def test_a_percentile_that_decides_makes_its_stage_long_enough():
    made = rules(WORKLOAD, Deciding(("ttft_p95_ms",), ("tpot_p95_ms", "itl_p99_ms")))
    assert (made["concurrent"].least_requests, made["single_user"].least_requests) == (100, 100)
    assert rules(WORKLOAD, Deciding())["concurrent"].least_requests == 20
    # gaps of five users share their steps: 500 steps are 500 × 5 gaps, 199 of them a request
    assert (
        rules(WORKLOAD.model_copy(update={"requests": 5}), Deciding(("itl_p99_ms",)))["concurrent"].least_requests == 13
    )


def test_a_stage_of_a_ladder_and_a_class_last_until_their_percentiles_are_carried():
    ladder = WORKLOAD.model_copy(update={"concurrency": (1, 5)})
    made = rules(ladder, Deciding(("output_tokens_per_s",), ("ttft_ms.p95.users_1",)))
    assert (made["users_1"].least_requests, made["users_1"].ttft) == (100, ladder.limit_precision)
    assert made["concurrent"].least_requests == 20
    kinds = [{"name": "chat", "weight": 3, "prompt_tokens": 9, "output_tokens": 9}]
    kinds += [{"name": "code", "prompt_tokens": 9, "output_tokens": 9}]
    classes = Workload.model_validate(WORKLOAD.model_dump() | {"classes": kinds})
    assert rules(classes, Deciding(("ttft_ms.p95.class_code",)))["concurrent"].least_requests == 400


def test_a_percentile_of_a_long_prompt_is_sent_as_many_as_it_needs():
    stages = plan(
        WORKLOAD,
        seed=1,
        context_tokens=None,
        kv_tokens=None,
        calibration=CALIBRATION,
        deciding=Deciding(("ttft_ms.p95.prompt_5000.cold",)),
    ).stages
    sent = {stage.name: stage.requests for stage in stages}
    assert (len(sent["ttft_5000"]), len({request.seed for request in sent["ttft_5000"]})) == (200, 100)
    assert all(one == other for one, other in zip(sent["ttft_5000"][::2], sent["ttft_5000"][1::2], strict=True))
    assert len(sent["ttft_30000"]) == 2


def test_gaps_behind_a_long_prompt_are_counted_by_token():
    deciding = Deciding((), ("itl_ms.p99.prompt_5000.cold", "e2e_ms.p90.prompt_30000.cached"))
    gaps = WORKLOAD.ttft_output_tokens - 1
    assert repeats(WORKLOAD, 5000, deciding) == -(-500 // gaps)
    assert repeats(WORKLOAD, 30000, deciding) == 50


def test_a_workload_of_a_fixed_number_of_requests_has_no_rule():
    assert rules(WORKLOAD.model_copy(update={"min_duration_s": 0.0}), Deciding(("ttft_p95_ms",))) == {}


@pytest.mark.parametrize(
    ("name", "workload", "instead"),
    [
        ("ttft_p95_ms", {"min_duration_s": 0.0}, "workload.requests=100, or name ttft_p50_ms"),
        ("tpot_p95_ms", {"min_duration_s": 0.0}, "workload.single_user.requests=100, or name tpot_p50_ms"),
        ("tool_call_ms", {"tool_call": False}, "workload.tool_call=true"),
        ("ttft_7000_cold_ms", {}, "add 7000"),
        ("ttft_ms.p95.prompt_7000.cold", {}, "add 7000"),
        ("tpot_ms.p50.prompt_7000.cold", {}, "add 7000"),
        ("tpot_ms.p50.prompt_5000.cold", {"ttft_output_tokens": 1}, "workload.ttft_output_tokens=16"),
        ("ttft_ms.p50.users_2", {}, "leave the stage out"),
        ("ttft_ms.p50.users_2", {"concurrency": (1, 5)}, "name one of its stages (users_1)"),
        ("ttft_ms.p50.users_5", {"concurrency": (1, 5)}, "name it ttft_p50_ms"),
        ("ttft_ms.p50.class_chat", {}, "leave the class out"),
        ("ttft_ms.p50.class_rare", {"classes": (OFTEN, RARE)}, "raise workload.requests"),
    ],
)
def test_what_a_workload_can_never_measure_is_refused_with_what_to_write_instead(name, workload, instead):
    refused = unmeasurable(WORKLOAD.model_copy(update=workload), Deciding((name,)))
    assert refused is not None
    assert name in refused[0]
    assert instead in refused[1]


def test_what_a_workload_measures_is_not_refused():
    assert unmeasurable(WORKLOAD, Deciding((*METRICS, "ttft_5000_cold_ms"))) is None


def test_the_words_of_a_prompt_follow_from_the_calibration():
    assert {request.words for request in planned().stages[0].requests} == {round((1000 - 10) / 1.25)}


def test_the_same_seed_plans_the_same_and_another_one_nothing_of_it():
    assert planned(seed=3) == planned(seed=3)
    mine, other = planned(seed=3), planned(seed=4)
    starts = [{text(r.seed, 6) for stage in p.stages[:-1] for r in stage.requests} for p in (mine, other)]
    assert starts[0].isdisjoint(starts[1])


def test_what_exceeds_the_context_is_left_out_whole_and_said():
    result = planned(context=30_000)
    assert "ttft_30000" not in [stage.name for stage in result.stages]
    (skipped,) = result.skipped
    assert skipped.what == "ttft_30000"
    assert "exceed the context of 30000 tokens" in skipped.reason


def test_what_exceeds_the_kv_cache_is_left_out_whole_and_said():
    result = planned(context=131_072, kv=4000)
    assert [(skipped.what, "KV cache of 4000" in skipped.reason) for skipped in result.skipped] == [
        ("ttft_5000", True),
        ("ttft_30000", True),
    ]


def test_prompt_slack_and_output_may_fill_the_context_to_the_last_token():
    assert Room(1000 + SLACK_TOKENS + 200, None).objection(1000, 200) is None
    assert Room(1000 + SLACK_TOKENS + 199, None).objection(1000, 200) is not None


def test_no_limit_known_leaves_nothing_out():
    assert planned().skipped == ()


def test_a_stage_ends_early_only_when_the_whole_measurement_is_lost():
    workload = WORKLOAD.model_copy(update={"max_failed_share": 0.25})
    assert {stage.max_failures for stage in planned(workload).stages} == {7.0}  # of 28
