"""What a failure teaches: which side is closed, what is tried instead, and when nothing follows at all."""

from typing import Any

import pytest
from pydantic import JsonValue

from tests.present import present
from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause, Evidence
from tuner.engines.vllm.engine import VllmEngine
from tuner.engines.vllm.foresight import NAMES
from tuner.errors import GpuBusy
from tuner.foresight.lessons import Failed, busy, lesson
from tuner.space import SearchSpace, Settings

SPACE = SearchSpace.model_validate(
    {
        "params": {
            "gpu_memory_utilization": {"low": 0.80, "high": 0.96, "step": 0.01},
            "max_num_seqs": {"low": 4, "high": 512, "scale": "pow2"},
            "max_num_batched_tokens": {"low": 2048, "high": 65536, "scale": "pow2"},
            "max_model_len": {"choices": [8192, 16384, 32768, 65536, 131072]},
            "block_size": {"choices": [16, 32]},
            "kv_cache_dtype": {"choices": ["auto", "fp8"]},
            "enforce_eager": {"choices": [False, True]},
        }
    }
)
TRIED: dict[str, JsonValue] = {
    "gpu_memory_utilization": 0.9,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 8192,
    "max_model_len": 65536,
    "block_size": 16,
    "kv_cache_dtype": "auto",
    "enforce_eager": False,
}
ENGINE = VllmEngine(("vllm", "serve"), "m")
FREE = (
    "ValueError: Free memory on device cuda:0 (22.26/23.99 GiB) on startup is less than desired GPU memory utilization "
    "(0.95, 22.79 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
NO_BLOCKS = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
    "the engine."
)
CONTEXT = (
    "ValueError: To serve at least one request with the models's max seq len (65536), (3.30 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (2.00 GiB). Based on the available memory, the estimated "
    "maximum model length is 39648. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
    "initializing the engine."
)
OUT = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 604.00 MiB. GPU 0 has a total capacity of 23.99 GiB "
    "of which 92.00 MiB is free. Including non-PyTorch memory, this process has {held} GiB memory in use."
)
WARM: dict[str, Any] = {"compile_cache_hit": True, "weights_gib": 8.75}
LOADED, CACHED = {**WARM}, {**WARM, "kv_cache_gib": 11.0}


def failed(line, facts=WARM, **tried):
    """A launch that ended with this line, read as the engine reads it."""
    found = ENGINE.diagnose(Evidence([line], exit_code=1))
    params = {**TRIED, **tried}
    return Failed(SPACE.candidate(params), found.cause, found.numbers, found.line, StartupFacts(**facts))


def taught(line, facts=WARM, earlier=(), **tried):
    return lesson(failed(line, facts, **tried), SPACE, Settings(), NAMES, earlier)


def closes(known, **changed):
    """Whether it closes the failed configuration with these changes."""
    return known.closes(SPACE.settings(SPACE.candidate({**TRIED, **changed})), None)


def test_too_little_free_memory_closes_every_higher_share_and_no_lower_one():
    known = taught(FREE, {}, gpu_memory_utilization=0.95)
    assert not closes(known, gpu_memory_utilization=0.92)
    assert closes(known, gpu_memory_utilization=0.93)
    assert closes(known, gpu_memory_utilization=0.96, max_num_seqs=4, max_model_len=8192, kv_cache_dtype="fp8")


def test_too_little_free_memory_is_repaired_with_the_largest_share_that_is_free():
    known = taught(FREE, {}, gpu_memory_utilization=0.95)
    assert [repair.params["gpu_memory_utilization"] for repair in known.repairs] == [0.92]
    assert known.repairs[0].params == {**TRIED, "gpu_memory_utilization": 0.92}


@pytest.mark.parametrize("line", [NO_BLOCKS, CONTEXT])
def test_too_little_kv_cache_closes_lower_shares_and_what_is_more_demanding(line):
    known = taught(line)
    assert closes(known)
    assert closes(known, gpu_memory_utilization=0.85, max_num_seqs=128, max_num_batched_tokens=16384)
    assert not closes(known, gpu_memory_utilization=0.91)
    assert not closes(known, max_num_seqs=32)
    assert not closes(known, max_num_batched_tokens=4096)
    assert not closes(known, kv_cache_dtype="fp8")
    assert closes(known, block_size=32)


def test_the_estimated_maximum_length_bounds_the_context_and_repairs_it():
    known = taught(CONTEXT)
    assert closes(known, max_model_len=131072)
    assert not closes(known, max_model_len=32768)
    assert known.repairs[0].params == {**TRIED, "max_model_len": 32768}


def test_old_vllms_count_of_tokens_bounds_the_context_as_well():
    line = (
        "ValueError: The model's max seq len (65536) is larger than the maximum number of tokens that can be stored in "
        "KV cache (20000). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the "
        "engine."
    )
    assert taught(line).repairs[0].params["max_model_len"] == 16384


def test_what_the_cache_lacks_is_asked_for_if_so_much_was_ever_free():
    """1.30 GiB more of 23.99 are 0.06 of the card: 0.96, unless 22.26 GiB were the most that was free."""
    roomy, tight = ([StartupFacts(total_gib=23.99, free_gib=free)] for free in (23.9, 22.26))
    shares = [
        [repair.params["gpu_memory_utilization"] for repair in taught(CONTEXT, earlier=earlier).repairs]
        for earlier in (roomy, tight)
    ]
    assert max(shares[0]) == 0.96
    assert max(shares[1]) == 0.9


def test_a_peak_that_does_not_fit_closes_what_is_more_demanding_at_any_share():
    known = taught(OUT.format(held=22.1), LOADED)
    assert closes(known, gpu_memory_utilization=0.8, max_num_seqs=128)
    assert closes(known, max_model_len=131072, max_num_batched_tokens=16384)
    assert not closes(known, max_num_batched_tokens=4096)
    assert not closes(known, max_num_seqs=32)
    assert known.repairs[0].params["max_num_batched_tokens"] == 4096


def test_what_does_not_fit_beside_the_cache_closes_higher_shares_and_not_lower_ones():
    known = taught(OUT.format(held=22.1), CACHED)
    assert closes(known, gpu_memory_utilization=0.92)
    assert closes(known, max_num_seqs=512)
    assert not closes(known, gpu_memory_utilization=0.89)
    assert not closes(known, max_num_seqs=32)
    assert not closes(known, max_num_batched_tokens=16384)


def test_as_much_less_is_asked_for_as_the_failed_allocation_lacked():
    """604 - 92 MiB are 0.02 of 23.99 GiB: 0.87, since 0.88 would be just too much."""
    known = taught(OUT.format(held=22.1), CACHED)
    assert known.repairs[0].params == {**TRIED, "gpu_memory_utilization": 0.87}
    assert known.repairs[1].params == {**TRIED, "max_num_seqs": 32}


def test_the_cache_size_that_an_earlier_start_suggested_is_tried_where_it_may_be():
    space = SearchSpace.model_validate(
        {"params": {"kv_cache_memory_bytes": {"choices": [None, 4 << 30, 8 << 30, 12 << 30]}}}
    )
    tried = Failed(
        space.candidate({"kv_cache_memory_bytes": 12 << 30}),
        Cause.CUDA_OOM,
        {"tried_mib": 604.0, "free_mib": 92.0},
        facts=StartupFacts(**CACHED),
    )
    known = present(lesson(tried, space, Settings(), NAMES, [StartupFacts(suggested_kv_bytes=10 << 30)]))
    assert known.repairs[0].params == {"kv_cache_memory_bytes": 8 << 30}


def test_weights_that_do_not_fit_close_all_but_what_changes_weights():
    known = taught(OUT.format(held=22.1), {"engine_version": "0.15.0"})
    assert closes(known, max_num_seqs=4, gpu_memory_utilization=0.8, max_num_batched_tokens=2048)
    assert not closes(known, kv_cache_dtype="fp8")
    assert known.repairs == ()


def test_eager_mode_is_closed_with_what_needs_graphs_but_not_the_other_way_round():
    assert closes(taught(OUT.format(held=22.1), CACHED, enforce_eager=True), enforce_eager=False)
    assert not closes(taught(OUT.format(held=22.1), CACHED, enforce_eager=False), enforce_eager=True)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (NO_BLOCKS, {"weights_gib": 8.75}),
        (CONTEXT, {"weights_gib": 8.75, "kv_cache_gib": 2.0}),
        (OUT.format(held=22.1), {"weights_gib": 8.75}),
    ],
)
def test_a_cold_start_closes_nothing_and_is_worth_a_second_launch(line, facts):
    known = taught(line, {**facts, "compile_cache_hit": False})
    assert (known.region, known.repairs, known.again) == (None, (), True)
    assert "cold" in known.sentence


def test_a_cold_start_that_failed_beside_its_cache_is_not_worth_one():
    """Its higher peak made the cache smaller: warm, there is even less room."""
    known = taught(OUT.format(held=22.1), {**CACHED, "compile_cache_hit": False})
    assert (known.region, known.repairs, known.again) == (None, (), False)


def test_eager_starts_compile_nothing_and_teach():
    assert taught(NO_BLOCKS, {"weights_gib": 8.75, "eager": True}, enforce_eager=True).region


def test_a_start_that_does_not_tell_whether_it_was_compiled_closes_nothing():
    known = taught(NO_BLOCKS, {"weights_gib": 8.75})
    assert (known.region, known.again) == (None, False)


def test_a_log_that_told_nothing_teaches_nothing():
    assert taught(OUT.format(held=22.1), {}) is None


@pytest.mark.parametrize("cause", [Cause.ENGINE_DIED, Cause.HOST_OOM, Cause.UNKNOWN, Cause.DEGRADED])
def test_what_the_configuration_is_not_to_blame_for_teaches_nothing(cause):
    assert lesson(Failed(SPACE.candidate(TRIED), cause, {}), SPACE, Settings(), NAMES) is None


EARLIER = [StartupFacts(total_gib=23.99, free_gib=22.26)]


def test_memory_that_others_hold_is_no_failure_of_the_configuration():
    error = busy(failed(FREE.replace("22.26/", "15.00/"), {}), EARLIER)
    assert isinstance(error, GpuBusy)
    assert "others hold 7.26 GiB" in error.message
    assert busy(failed(FREE, {}), EARLIER) is None


def test_it_is_seen_by_what_the_process_itself_held_when_it_ran_out():
    assert isinstance(busy(failed(OUT.format(held=17.0), CACHED), EARLIER), GpuBusy)
    assert busy(failed(OUT.format(held=22.1), CACHED), EARLIER) is None


def test_memory_that_others_gave_back_meanwhile_is_theirs_as_well():
    line = (
        "AssertionError: Error in memory profiling. Initial free memory 21.35 GiB, current free memory 22.11 GiB. This "
        "happens when other processes sharing the same container release GPU memory while vLLM is profiling during "
        "initialization. To fix this, ensure consistent GPU memory allocation or isolate vLLM in its own container."
    )
    assert isinstance(busy(failed(line, {}), []), GpuBusy)


def test_nobody_is_accused_before_any_start_has_said_what_is_usual():
    assert busy(failed(FREE.replace("22.26/", "15.00/"), {}), []) is None


def test_a_lesson_from_memory_that_others_held_ends_when_more_is_free():
    known = taught(FREE.replace("22.26/", "15.00/"), {})
    settings = SPACE.settings(SPACE.candidate(TRIED))
    assert known.closes(settings, None)
    assert not known.closes(settings, 22.26)


MAMBA = (
    "ValueError: max_num_seqs (512) exceeds available Mamba cache blocks (161). Each decode sequence requires one "
    "Mamba cache block, so CUDA graph capture cannot proceed. Please lower max_num_seqs to at most 161."
)


@pytest.mark.parametrize("facts", [{}, WARM, {**CACHED, "compile_cache_hit": False}])
def test_the_blocks_of_a_mamba_cache_close_every_larger_number_of_sequences_and_suggest_one_that_fits(facts):
    known = taught(MAMBA, facts, max_num_seqs=512)
    assert closes(known, max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=8192)
    assert not closes(known, max_num_seqs=128)
    assert not closes(known, gpu_memory_utilization=0.95, max_num_seqs=256)
    assert known.repairs[0].params == {**TRIED, "max_num_seqs": 128}


def test_where_the_engine_chose_the_number_of_sequences_its_choice_is_closed():
    known = taught(MAMBA, WARM, max_num_seqs=None)
    assert closes(known, max_num_seqs=None)
    assert not closes(known, max_num_seqs=128)


BLOCKS = SearchSpace.model_validate(
    {
        "params": {
            "block_size": {"choices": [8, 16, 24, 32, 48, 64, 96, 128]},
            "attention_backend": {"choices": ["A", "B"]},
        }
    }
)


def block_lesson(said, size):
    found = ENGINE.diagnose(Evidence([said], exit_code=1))
    candidate = BLOCKS.candidate({"block_size": size, "attention_backend": "A"})
    return lesson(
        Failed(candidate, found.cause, found.numbers, found.line), BLOCKS, Settings({"block_size": 64}), NAMES
    )


@pytest.mark.parametrize(
    ("said", "size", "closed", "first"),
    [
        ("ValueError: No common block size for 8. ", 8, [8, 24], 16),
        ("ValueError: No common block size for 16. ", 16, [8, 16, 24, 48], 32),
        ("ValueError: No common block size for 64 (A: [MultipleOf(48)]; B: [96]).", 64, [8, 16, 24, 32, 64, 128], 48),
        ("ValueError: Block size must be a multiple of 16.", 24, [8, 24], 16),
    ],
)
def test_a_refused_block_size_closes_those_that_fail_alike(said, size, closed, first):
    known = block_lesson(said, size)
    sizes = [8, 16, 24, 32, 48, 64, 96, 128]
    shut = [size for size in sizes if known.closes(Settings({"block_size": size, "attention_backend": "A"}), None)]
    assert shut == closed
    assert not known.closes(Settings({"block_size": size, "attention_backend": "B"}), None)
    assert known.repairs[0].params["block_size"] == first


def test_a_refusal_closes_what_the_candidate_changed():
    line = "NotImplementedError: this combination has no kernel"
    tried = SPACE.candidate({**TRIED, "kv_cache_dtype": "fp8", "max_num_seqs": 128})
    known = present(lesson(Failed(tried, Cause.UNSUPPORTED, {}, line), SPACE, Settings(TRIED), NAMES))
    assert str(known.region) == "max_num_seqs = 128 and kv_cache_dtype = fp8"
    assert lesson(Failed(SPACE.candidate(TRIED), Cause.UNSUPPORTED, {}, line), SPACE, Settings(TRIED), NAMES) is None


def test_a_refusal_that_names_a_setting_closes_that_value_whatever_else_is_tried():
    line = "AssertionError: kv-cache-dtype fp8 has no kernel"
    tried = SPACE.candidate({**TRIED, "kv_cache_dtype": "fp8", "max_num_seqs": 128})
    known = present(lesson(Failed(tried, Cause.UNSUPPORTED, {}, line), SPACE, Settings(TRIED), NAMES))
    assert str(known.region) == "kv_cache_dtype = fp8"


def test_where_the_size_of_the_cache_is_given_it_is_closed_and_changed_and_not_the_share():
    space = SearchSpace.model_validate({"params": {"kv_cache_memory_bytes": {"choices": [2 << 30, 4 << 30, 8 << 30]}}})
    numbers = {"needed_kv_gib": 3.3, "available_kv_gib": 2.0}
    small = Failed(
        space.candidate({"kv_cache_memory_bytes": 2 << 30}), Cause.NO_KV_CACHE, numbers, facts=StartupFacts(**WARM)
    )
    known = present(lesson(small, space, Settings({"gpu_memory_utilization": 0.9}), NAMES))
    assert "gpu_memory_utilization" not in known.sentence
    assert known.closes(Settings({"kv_cache_memory_bytes": 1 << 30}), None)
    assert known.repairs[0].params == {"kv_cache_memory_bytes": 4 << 30}
