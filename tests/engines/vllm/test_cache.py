"""The KV cache's layout against what public starts printed, and what one request of the full context needs."""

import json
from pathlib import Path

import pytest

from tests.engines.vllm.real import asked
from tests.present import present
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.cache import GIB, cache_of
from tuner.engines.vllm.memory.calibration import Calibration
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.memory.sizes import Part, account, sizes_of
from tuner.engines.vllm.model.architecture import of_mapping
from tuner.space import Settings

DATA = Path(__file__).parents[2] / "data"
CONFIGS = {model["name"]: model["config"] for model in json.loads((DATA / "models.json").read_text("utf-8"))}
STARTS = json.loads((DATA / "starts.json").read_text("utf-8"))
CARD = Hardware("H100", 8, 79.18, 78.66, (9, 0), 132)


def model(name, **others):
    return of_mapping(name, "test", {**CONFIGS[name], **others})


def layout(name, version, **args):
    architecture = model(name)
    demand = asked({"max_num_batched_tokens": 8192, "max_num_seqs": 64, **args}, CARD, version, architecture)
    return cache_of(architecture, demand, demand.max_model_len)


def counted(figure):
    return [pytest.param(start, id=start["source"]) for start in STARTS if figure in start["figures"]]


def predicted(start):
    architecture = model(start["model"], **start.get("config", {}))
    name, count, total, free, capability, multiprocessors = start["card"]
    hardware = Hardware(name, count, total, free, tuple(capability), multiprocessors)
    settings = Settings(start["args"], start.get("env", {}))
    demand = demand_of(settings, hardware, release(start["version"]), architecture)
    return account(present(sizes_of(architecture, demand, hardware)), demand, hardware), demand, architecture, hardware


@pytest.mark.parametrize("start", counted("kv_tokens"))
def test_as_many_tokens_as_the_engine_printed(start):
    """By the cache's size, of two decimals, that the same log has: a block more or less."""
    _, demand, architecture, _ = predicted(start)
    cache, (kv, tokens, within) = cache_of(architecture, demand, demand.max_model_len), start["figures"]["kv_tokens"]
    assert cache.tokens(kv) == pytest.approx(tokens, rel=within)


@pytest.mark.parametrize("start", counted("weights_gib"))
def test_weights_as_the_engine_printed_them(start):
    assert predicted(start)[0].weights_gib == pytest.approx(start["figures"]["weights_gib"], rel=0.03)


@pytest.mark.parametrize("start", counted("kv_gib"))
def test_the_cache_is_as_large_as_the_engine_printed_it(start):
    assert predicted(start)[0].kv_gib == pytest.approx(start["figures"]["kv_gib"], rel=0.02, abs=0.7)


@pytest.mark.parametrize("start", [pytest.param(start, id=start["source"]) for start in STARTS])
def test_what_came_up_is_expected_to_and_what_did_not_is_not(start):
    """Not vllm#48601, which ran out of memory later, by graphs that its version set nothing aside for."""
    terms, demand, architecture, hardware = predicted(start)
    assert start["started"] in (None, terms.shortage is None)
    if start["started"]:
        assert Calibration(architecture, hardware).predict(demand).ruled_out is None


def test_a_request_of_gpt_oss_needs_blocks_of_windowed_layers_as_well():
    """gpt-oss-20b at 131,072 tokens: 3.19 GiB for one request, of which windows and one batch are 0.19."""
    small = of_mapping("gpt-oss-20b", "test", {**CONFIGS["gpt-oss-120b"], "num_hidden_layers": 24})
    args = {"max_model_len": 131072, "max_num_batched_tokens": 8192, "max_num_seqs": 64}
    cache = cache_of(small, asked(args, CARD, "0.21.0", small), 131072)
    assert cache.request_gib == pytest.approx(3.19, abs=0.005)


@pytest.mark.parametrize(("version", "by_requests"), [("0.20.2", False), ("0.21.0", True)])
def test_from_021_on_the_cache_is_counted_in_requests(version, by_requests):
    cache = layout("gpt-oss-120b", version, max_model_len=131072)
    tokens = cache.blocks(30.0) / cache.blocks_per_request * 131072 if by_requests else cache.blocks(30.0) / 2 * 16
    assert cache.tokens(30.0) == int(tokens)


def test_a_block_is_lengthened_until_a_state_fits():
    """Qwen3-Next: 544 tokens, as its logs say; four groups of twelve layers."""
    cache = layout("Qwen3-Next-80B-A3B", "0.19.0", max_model_len=8192)
    assert cache.block_bytes == 544 * 2 * 2 * 256 * 2 * 12
    assert cache.block_tokens == 544 / 4


def test_prefixes_cost_a_second_state():
    plain, cached = (
        layout("Qwen3.6-27B", "0.24.0", max_model_len=65536, enable_prefix_caching=on) for on in (False, True)
    )
    assert cached.blocks_per_request - plain.blocks_per_request == 3


def test_a_latent_and_a_state_share_blocks_of_whole_128s():
    cache = layout("Kimi-Linear-48B-A3B", "0.19.0", max_model_len=32768)
    assert cache.block_bytes / (7 * 576 * 2) % 128 == 0


def test_without_the_hybrid_manager_windows_save_nothing():
    saving, plain = (
        layout("gpt-oss-120b", "0.21.0", max_model_len=131072, disable_hybrid_kv_cache_manager=on)
        for on in (False, True)
    )
    assert plain.request_gib == pytest.approx(36 * 2 * 8 * 64 * 2 * 131072 / GIB)
    assert saving.request_gib < 0.6 * plain.request_gib


def test_a_drafting_layer_has_a_cache_of_its_own():
    args = {"max_model_len": 8192, "speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}
    drafting = model("GLM-4.5-Air")
    with_it, without = (
        cache_of(drafting, asked({"max_num_batched_tokens": 8192, **each}, CARD, "0.24.0", drafting), 8192)
        for each in (args, {"max_model_len": 8192})
    )
    assert with_it.token_bytes - without.token_bytes == 2 * 8 * 128 * 2


def towers_peak(name, **args):
    architecture = model(name)
    asked_for = asked({"max_num_batched_tokens": 8192, "max_num_seqs": 64, **args}, CARD, "0.19.0", architecture)
    return sizes_of(architecture, asked_for, CARD)


def test_a_film_is_as_long_as_the_context_allows_in_the_profiling_run():
    """Qwen2.5-VL: 14 frames of 16,384 tokens, two by two, are 114,688; without films one image is 16,384."""
    long, short, images = (
        towers_peak("Qwen2.5-VL-7B", **args).parts_gib[Part.IMAGES] * GIB / 3584 / 2
        for args in ({"max_model_len": 128000}, {"max_model_len": 32768}, {"limit_mm_per_prompt": {"video": 0}})
    )
    assert (long, short, images) == (114688, 32768, 16384)


@pytest.mark.parametrize(
    "flags",
    [
        {"limit_mm_per_prompt": {"image": 0, "video": 0}},
        {"limit_mm_per_prompt.image": 0},
        {"language_model_only": True},
    ],
)
def test_a_model_that_only_reads_has_no_tower(flags):
    plain, reading = towers_peak("Gemma-3-27B"), towers_peak("Gemma-3-27B", **flags)
    assert reading.parts_gib[Part.TOWER] == reading.parts_gib[Part.IMAGES] == 0.0
    assert plain.weights_gib - reading.weights_gib == pytest.approx(0.8, abs=0.05)


def test_towers_may_be_left_out_of_the_profiling_run():
    assert towers_peak("Gemma-3-27B", skip_mm_profiling=True).parts_gib[Part.TOWER] == 0.0
