"""Starts correct the predictions, and how wrong those were decides what they may rule out."""

from dataclasses import replace

import pytest

from tests.engines.vllm.real import AWQ, GLM, H100, RTX4090X2, RUNS, SITE, asked, model_of
from tests.engines.vllm.world import WORLDS
from tests.present import present
from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.vllm.memory.calibration import Calibration, ObservedStart, compare
from tuner.engines.vllm.memory.margins import margin
from tuner.engines.vllm.memory.sizes import StartStage
from tuner.engines.vllm.model.architecture import of_mapping

KV_TOLERANCE = 0.005


def errors(prediction, facts):
    return {each.name: each.error for each in compare(prediction.terms, facts)}


@pytest.mark.parametrize(
    ("taught_by", "asked_of"), [("A_cold", "B_warm"), ("A_cold", "C_seqs8"), ("B_warm", "C_seqs8")]
)
def test_one_real_start_brings_the_next_within_half_a_percent(taught_by, asked_of, log):
    """Cold to warm, and to another number of sequences; here within 0.05 %."""
    run = RUNS[asked_of]
    found = errors(run.predicted(log, [RUNS[taught_by].start(log)]), run.start(log).facts)
    assert abs(found["kv_tokens"]) < KV_TOLERANCE / 10
    assert abs(found["weights_gib"]) < 0.0005


@pytest.mark.parametrize("taught_by", ["A_cold", "B_warm", "C_seqs8"])
def test_what_was_learned_of_12_layers_holds_for_47(taught_by, log):
    """The farthest transfer there is a log for: another size of model; 0.11 % off, the formulas alone 0.03 %."""
    full, learned = RUNS["E_full_cold"], Calibration(model_of(GLM, 12), H100, [RUNS[taught_by].start(log)])
    learned.model = full.model
    found = errors(learned.predict(full.start(log).demand), full.start(log).facts)
    assert abs(found["kv_tokens"]) < KV_TOLERANCE
    assert abs(found["weights_gib"]) < 0.001


def test_each_start_keeps_what_was_predicted_of_it_beforehand(log):
    starts = [RUNS[name].start(log) for name in ("A_cold", "B_warm", "C_seqs8")]
    history = Calibration(model_of(GLM, 12), H100, starts).history
    first, second, _ = ({each.name: each for each in row} for row in history)
    assert first["weights_gib"].logged == 14.41
    assert abs(present(second["kv_tokens"].error)) < abs(present(first["kv_tokens"].error))
    assert len(history) == 3


def test_a_margin_is_a_prior_first_and_then_what_was_measured():
    assert margin([], 0.35, 0.02) == 0.35
    assert margin([0.01], 0.35, 0.02) == 0.35 / 2
    assert margin([0.3], 0.35, 0.02) == pytest.approx(0.9)
    assert margin([0.5] + [0.01] * 8, 0.35, 0.02) == pytest.approx(0.35 / 10)
    assert margin([0.1] * 4, 0.35, 0.02) == pytest.approx(0.1 * (1 + 2 / 3))
    assert margin([0.0001] * 100, 0.35, 0.02) == 0.02


def margin_gib(calibration, demand):
    return present(calibration.predict(demand).margin_gib)


def kv_gib(prediction):
    return present(present(prediction.terms).kv_gib)


def test_agreeing_starts_narrow_the_margin():
    world = WORLDS[0]
    demand = world.demand(SITE)
    margins = [margin_gib(world.calibration([world.start(SITE)] * count), demand) for count in (0, 1, 4, 16)]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] < 0.2 < 0.9 < margins[0]


def test_cold_starts_alone_never_narrow_what_the_peak_may_be():
    """Their peak may be the compiler's; with a warm start of the same the margin is the measured one."""
    world = WORLDS[0]
    demand = world.demand(SITE)
    cold, warm = (margin_gib(world.calibration([world.start(SITE, warm)] * 6), demand) for warm in (False, True))
    assert warm < 0.5 * cold
    assert world.start(SITE, False).warm is False
    assert world.start(SITE, True).warm is True


def test_a_small_cold_start_does_not_rule_out_what_fits_warm():
    """With 2,048 batched tokens the compiler's own buffers are the peak: 0.6 GiB above a warm start's."""
    world = replace(WORLDS[0], fixed={**SITE, "max_num_batched_tokens": 2048})
    tight = next(
        args
        for share in range(60, 92)
        if world.plan(args := {**world.fixed, "gpu_memory_utilization": share / 100}, warm=True).starts
    )
    assert not world.plan(tight, warm=False).starts
    cold = world.start({**tight, "gpu_memory_utilization": 0.9}, warm=False)
    assert world.calibration([cold] * 5).predict(world.demand(tight)).ruled_out is None


def test_free_memory_is_learned_from_the_first_log_and_decides_at_once():
    world = WORLDS[0]
    demand = world.demand({**SITE, "gpu_memory_utilization": 0.93})
    assert world.calibration().predict(demand).ruled_out is None
    ruled_out = present(world.calibration([world.start(SITE)]).predict(demand).ruled_out)
    assert (ruled_out.stage, ruled_out.cause) == (StartStage.REQUEST, Cause.INSUFFICIENT_FREE_MEMORY)
    assert (ruled_out.available_gib, round(ruled_out.needed_gib, 2)) == (22.26, 22.31)


def test_the_most_that_was_ever_free_counts():
    """What others held at one start may be free at the next."""
    starts = [StartupFacts(total_gib=23.99, free_gib=free) for free in (15.0, 22.26, 18.0)]
    assert RTX4090X2.learned(starts).free_gib == 22.26


def test_free_memory_needs_no_model():
    hardware = replace(RTX4090X2, source="the engine's log")
    demand = asked({**SITE, "gpu_memory_utilization": 0.95}, hardware, "0.15.0", model_of(AWQ))
    found = Calibration(None, hardware).predict(demand)
    assert found.terms is None
    assert found.unknown == ("the model's config.json",)
    assert present(found.ruled_out).cause is Cause.INSUFFICIENT_FREE_MEMORY


def test_the_driver_overstates_memory_and_is_not_believed_to_the_last_percent():
    """24,564 MiB by nvidia-smi are 23.52 GiB to CUDA (vllm#33920): 0.94 of it is less than is free."""
    driver = replace(RTX4090X2, total_gib=24564 / 1024, free_gib=22.26, source="nvidia-smi")
    demand = asked({**SITE, "gpu_memory_utilization": 0.94}, driver, "0.15.0", model_of(AWQ))
    assert Calibration(None, driver).predict(demand).ruled_out is None
    assert Calibration(None, replace(driver, source="the configuration")).predict(demand).ruled_out is not None


def test_a_log_without_the_breakdown_teaches_by_what_is_left(log):
    """Before 0.10 only weights, KV cache and the share asked for are told."""
    start = RUNS["B_warm"].start(log)
    bare = StartupFacts(
        weights_gib=16.0,
        kv_cache_gib=50.0,
        requested_gib=72.85,
        total_gib=79.18,
        free_gib=78.66,
        compile_cache_hit=True,
    )
    taught = Calibration(model_of(GLM, 12), H100, [ObservedStart(start.demand, bare)] * 3)
    assert present(taught.predict(start.demand).terms).kv_gib == pytest.approx(50.0, abs=0.1)


def test_weights_of_one_placement_do_not_speak_for_another():
    world = WORLDS[0]
    taught = world.calibration([world.start(SITE)])
    other = world.demand({**SITE, "tensor_parallel_size": 1, "enable_expert_parallel": False})
    logged = world.start(SITE).facts.weights_gib
    assert present(taught.predict(world.demand(SITE)).terms).weights_gib == logged
    assert present(taught.predict(other).terms).weights_gib > 1.9 * logged


def test_errors_on_small_batches_do_not_narrow_the_margin_of_large_ones():
    """Agreement on 2,048 tokens says nothing of the activations of 65,536, which are another part's."""
    world = WORLDS[2]
    small = {**SITE, "max_num_batched_tokens": 2048}
    taught = world.calibration([world.start({**small, "max_num_seqs": seqs}) for seqs in (4, 8, 16, 32, 64)] * 2)
    near, far = (
        margin_gib(taught, world.demand({**small, "max_num_batched_tokens": tokens})) for tokens in (2048, 65536)
    )
    assert far > 3 * near


def test_more_starts_are_learned_without_learning_the_first_ones_anew():
    """And the calibration that they are added to stays as it was."""
    world = WORLDS[0]
    starts = [world.start({**SITE, "max_num_seqs": seqs}, warm=False) for seqs in (8, 64, 128, 32)]
    first = world.calibration(starts[:2])
    demand = world.demand({**SITE, "max_num_seqs": 16})
    before = first.predict(demand)
    grown, whole = first.after(starts[2:]), world.calibration(starts)
    assert first.predict(demand) == before
    assert grown.predict(demand) == whole.predict(demand)
    assert grown.history == whole.history


def test_a_failed_start_says_what_it_had_printed_by_then():
    """Its log has weights and KV cache, but neither the peak nor the requested memory: they follow from each other."""
    world = WORLDS[0]
    doomed = {**SITE, "max_num_seqs": 512}
    start = world.start(doomed)
    assert (start.out_of_memory, start.facts.peak_activation_gib) == (True, None)
    first, then = (world.calibration(starts).predict(start.demand) for starts in ([], [start]))
    logged = present(start.facts.kv_cache_gib)
    assert abs(kv_gib(then) - logged) < 0.2 * abs(kv_gib(first) - logged)


def test_what_ran_out_of_memory_after_its_kv_cache_is_not_launched_again():
    world = WORLDS[0]
    doomed = {**SITE, "max_num_seqs": 512, "gpu_memory_utilization": 0.9}
    starts = [world.start(SITE), *[world.start({**doomed, "max_num_batched_tokens": n}) for n in (16384, 65536)]]
    ruled_out = present(
        world.calibration(starts).predict(world.demand({**doomed, "max_num_batched_tokens": 32768})).ruled_out
    )
    assert (ruled_out.stage, ruled_out.cause) == (StartStage.WARM_UP, Cause.CUDA_OOM)
    assert world.calibration(starts).predict(world.demand(SITE)).ruled_out is None


UNKNOWN = of_mapping("m", "test", {"model_type": "new", "num_thought_layers": 3, "num_hidden_layers": 4})
SEEN = StartupFacts(
    weights_gib=20.0,
    kv_cache_gib=48.0,
    kv_tokens=480_000,
    requested_gib=72.85,
    total_gib=79.18,
    free_gib=78.66,
    peak_activation_gib=4.0,
)
SMALL = {"max_num_seqs": 64, "max_num_batched_tokens": 8192, "max_model_len": 8192}


def test_what_cannot_be_predicted_is_learned_from_the_first_start():
    """Its own lines tell what all but the cache took; another share of the card leaves so much more, or less."""
    first, more = (asked({**SMALL, "gpu_memory_utilization": u}, H100, "0.26.0", UNKNOWN) for u in (0.92, 0.97))
    before, after = Calibration(UNKNOWN, H100), Calibration(UNKNOWN, H100, [ObservedStart(first, SEEN)])
    assert before.predict(first).terms is None
    assert present(after.predict(first).terms).kv_gib == pytest.approx(48.0, abs=0.01)
    grown = present(after.predict(more).terms)
    assert present(grown.kv_gib) - 48.0 == pytest.approx(0.05 * 79.18, abs=0.01)
    assert grown.kv_tokens == pytest.approx(10_000 * present(grown.kv_gib), rel=0.001)
    assert after.predict(more).unknown


def test_a_start_of_another_placement_tells_nothing_of_what_is_unknown():
    first = asked(SMALL, H100, "0.26.0", UNKNOWN)
    taught = Calibration(UNKNOWN, replace(H100, gpus=2), [ObservedStart(first, SEEN)])
    assert taught.predict(asked({**SMALL, "tensor_parallel_size": 2}, H100, "0.26.0", UNKNOWN)).terms is None


def test_what_is_unknown_is_never_ruled_out_by_what_was_learned():
    first, less = (asked({**SMALL, "gpu_memory_utilization": u}, H100, "0.26.0", UNKNOWN) for u in (0.92, 0.2))
    found = Calibration(UNKNOWN, H100, [ObservedStart(first, SEEN)]).predict(less)
    assert present(present(found.terms).shortage).cause is Cause.NO_KV_CACHE
    assert found.ruled_out is None


def test_an_estimate_of_no_graphs_is_learned():
    """An engine that sets nothing aside for them: the figures add up to what was asked for without."""
    model = model_of("Qwen/Qwen3-30B-A3B")
    demand = asked(SMALL, H100, "0.26.0", model)
    plain = present(Calibration(model, H100).predict(demand).terms)
    assert plain.graph_estimate_gib > 0.05
    said = replace(SEEN, weights_gib=plain.weights_gib, non_torch_gib=0.25, requested_gib=plain.requested_gib)
    said = replace(
        said, kv_cache_gib=present(plain.requested_gib) - present(plain.weights_gib) - 0.25 - 4.0, kv_tokens=None
    )
    assert (
        present(Calibration(model, H100, [ObservedStart(demand, said)]).predict(demand).terms).graph_estimate_gib == 0.0
    )


def test_counting_in_requests_does_not_corrupt_the_size_of_a_block():
    """The engine's figure for windowed layers is no capacity: 1.70 GiB for one request where 3.19 are needed."""
    config = {"model_type": "gpt_oss", "head_dim": 64, "sliding_window": 128, "max_position_embeddings": 131072}
    config |= {
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "num_hidden_layers": 24,
        "vocab_size": 201088,
    }
    config |= {"hidden_size": 2880, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880}
    model = of_mapping("gpt-oss-20b", "test", config)
    demand = asked({**SMALL, "max_model_len": 131072}, H100, "0.21.0", model)
    plain = present(Calibration(model, H100).predict(demand).terms)
    tokens = int(int(48.0 * 2**30 / (16 * 2048 * 12)) / 8713 * 131072)
    taught = present(
        Calibration(model, H100, [ObservedStart(demand, replace(SEEN, kv_tokens=tokens))]).predict(demand).terms
    )
    assert plain.request_gib == taught.request_gib == pytest.approx(3.19, abs=0.01)
    assert present(taught.kv_tokens) / present(taught.kv_gib) == pytest.approx(tokens / 48.0, rel=0.001)


def test_two_decimals_do_not_change_the_size_of_a_block():
    model = model_of("Qwen/Qwen3-8B")
    demand = asked(SMALL, H100, "0.26.0", model)
    rounded = replace(SEEN, kv_cache_gib=2.0, kv_tokens=14_592)
    taught, plain = (
        Calibration(model, H100, starts).predict(demand) for starts in ([ObservedStart(demand, rounded)], [])
    )
    assert present(taught.terms).kv_token_bytes == present(plain.terms).kv_token_bytes
