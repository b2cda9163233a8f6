"""What memory bandwidth allows: the weights that a step visits and the KV cache, read once, on all GPUs at once."""

import pytest

from tests.engines.vllm.test_cache import model
from tests.present import present
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.bound import tokens_per_s
from tuner.engines.vllm.memory.demand import demand_of
from tuner.engines.vllm.model.architecture import find
from tuner.space import Settings

CARDS = Hardware("H100", 8, 79.18, bandwidth_gb_s=3350.0)
DENSE, MIXTURE = "qwen3-8b", "qwen3-30b-a3b"
CONTEXT = 1000
KV_BYTES = 36 * 2 * 8 * 128 * 2
"""Of a token of Qwen3-8B: layers, keys and values, heads, width, bytes."""


def bound(name, users=1, context=0, **args):
    architecture = find(name)
    demand = demand_of(Settings(args), CARDS, None, architecture)
    return tokens_per_s(architecture, demand, CARDS.bandwidth_gb_s, users, context)


def test_a_dense_model_reads_all_of_its_weights_and_every_users_cache():
    alone, weights = bound(DENSE), 3350e9 / bound(DENSE)
    assert weights == pytest.approx((8.19 - 0.62) * 2e9, rel=0.01), (
        "8.19 billion weights but the embedding's, of 2 bytes"
    )
    assert bound(DENSE, 32) == pytest.approx(32 * alone)
    cached = weights + 32 * CONTEXT * KV_BYTES
    assert bound(DENSE, 32, CONTEXT) == pytest.approx(32 * 3350e9 / cached)


def test_all_gpus_read_at_once_in_tensor_parallel_and_in_data_parallel():
    one, tensor = bound(DENSE, 32, CONTEXT), bound(DENSE, 32, CONTEXT, tensor_parallel_size=4)
    assert tensor == pytest.approx(4 * one, rel=0.001)
    assert bound(DENSE, 64, CONTEXT, data_parallel_size=2) == pytest.approx(2 * one)


def test_stages_of_a_pipeline_read_their_weights_one_after_the_other():
    assert bound(DENSE, pipeline_parallel_size=4) == pytest.approx(bound(DENSE))
    staged, one = bound(DENSE, 32, CONTEXT, pipeline_parallel_size=4), bound(DENSE, 32, CONTEXT)
    assert one < staged < 4 * one, "each keeps the cache of its own layers"


def test_several_users_visit_more_experts_but_not_each_its_own():
    alone = bound(MIXTURE)
    assert 1.5 * alone < bound(MIXTURE, 8) < 4 * alone
    assert bound(MIXTURE, 512) == pytest.approx(512 * bound(MIXTURE, 4096) / 4096, rel=0.01), "all are visited"


def test_a_window_bounds_what_is_read_of_a_long_context():
    windowed = model("Gemma-3-27B")
    demand = demand_of(Settings(), CARDS, None, windowed)
    short, long = (present(tokens_per_s(windowed, demand, 3350.0, 512, length)) for length in (1024, 4096))
    assert long > short / 2, "five of six layers look back 1,024 tokens"


def test_no_number_where_something_is_not_known():
    assert tokens_per_s(None, demand_of(Settings(), CARDS, None), 3350.0) is None
    assert tokens_per_s(find(DENSE), demand_of(Settings(), CARDS, None, find(DENSE)), None) is None
    assert bound(DENSE, speculative_config={"method": "ngram", "num_speculative_tokens": 4}) is None
    assert bound(DENSE, kv_cache_dtype="unheard_of") is None
    assert bound(DENSE, cpu_offload_gb=4) is None
