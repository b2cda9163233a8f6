"""The formulas on models that everybody knows: parameters as their authors count them, KV cache as vLLM lays it out.

Each ``config.json`` is cut to the fields that are read.
"""

from typing import Any

import pytest

from tests.engines.vllm.real import H100, asked
from tuner.engines.vllm.memory.cache import GIB
from tuner.engines.vllm.memory.sizes import sizes_of, unknown
from tuner.engines.vllm.model.architecture import of_mapping
from tuner.engines.vllm.model.parts import Mixer


def decoder(
    layers: int, hidden: int, vocab: int, heads: int, kv_heads: int, intermediate: int, positions: int, **others: Any
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "vocab_size": vocab,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "tie_word_embeddings": False,
        **others,
    }


LLAMA_8B = decoder(32, 4096, 128256, 32, 8, 14336, 131072, rope_scaling={"rope_type": "llama3", "factor": 8.0})
LLAMA_70B = decoder(80, 8192, 128256, 64, 8, 28672, 131072)
QWEN25_7B = decoder(28, 3584, 152064, 28, 4, 18944, 32768, use_sliding_window=False, sliding_window=131072)
MISTRAL_7B = decoder(32, 4096, 32000, 32, 8, 14336, 32768, sliding_window=4096)
MIXTRAL = decoder(32, 4096, 32000, 32, 8, 14336, 32768, num_local_experts=8, num_experts_per_tok=2)
GEMMA2_9B = decoder(42, 3584, 256000, 16, 8, 14336, 8192, model_type="gemma2", head_dim=256, sliding_window=4096)
del GEMMA2_9B["tie_word_embeddings"]
_EXPERTS = {"head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
QWEN3_MOE = decoder(48, 2048, 151936, 32, 4, 6144, 40960) | _EXPERTS
DEEPSEEK_V3 = {
    **decoder(61, 7168, 129280, 128, 128, 18432, 163840),
    **{"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    **{"n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 2048},
    "first_k_dense_replace": 3,
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def sizes(config, **args):
    model = of_mapping("m", "test", config)
    demand = asked({"max_num_seqs": 64, "max_num_batched_tokens": 8192, **args}, H100, "0.26.0", model)
    assert unknown(model, demand) == ()
    return sizes_of(model, demand, H100)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA_8B, 8_030_261_248),
        (LLAMA_70B, 70_553_706_496),
        (QWEN25_7B, 7_615_616_512),
        (MISTRAL_7B, 7_241_732_096),
        (MIXTRAL, 46_702_792_704),
        (GEMMA2_9B, 9_241_705_984),
        (QWEN3_MOE, 30_532_122_624),
        (DEEPSEEK_V3, 671_026_419_200),
    ],
)
def test_weights_are_two_bytes_a_parameter(config, parameters):
    assert sizes(config).weights_gib == pytest.approx(parameters * 2 / GIB, rel=0.004)


def test_llama_31_8b_takes_what_its_logs_say():
    """ "Model loading took 14.99 GiB", the table of its rotary embedding included."""
    assert sizes(LLAMA_8B).weights_gib == pytest.approx(14.99, abs=0.005)


@pytest.mark.parametrize(
    ("config", "token_bytes"),
    [
        (LLAMA_8B, 131_072),
        (LLAMA_70B, 327_680),
        (QWEN25_7B, 57_344),
        (MIXTRAL, 131_072),
        (QWEN3_MOE, 98_304),
        (DEEPSEEK_V3, 70_272),
    ],
)
def test_a_token_takes_so_much_kv_cache(config, token_bytes):
    assert sizes(config).cache.token_bytes == token_bytes
    assert sizes(config, kv_cache_dtype="fp8").cache.token_bytes == token_bytes / 2


@pytest.mark.parametrize(("ranks", "share"), [(1, 1), (2, 2), (4, 4), (8, 8)])
def test_tensor_parallelism_divides_weights_and_heads(ranks, share):
    whole, cut = sizes(LLAMA_70B), sizes(LLAMA_70B, tensor_parallel_size=ranks)
    assert cut.weights_gib == pytest.approx(whole.weights_gib / share, rel=0.01)
    assert cut.cache.token_bytes == whole.cache.token_bytes / share


@pytest.mark.parametrize(("ranks", "token_bytes"), [(2, 28_672), (4, 14_336), (8, 14_336)])
def test_more_ranks_than_key_and_value_heads_keep_a_copy_each(ranks, token_bytes):
    """Four heads of Qwen2.5-7B; eight ranks have one each, so that four of them are copies."""
    assert sizes(QWEN25_7B, tensor_parallel_size=ranks).cache.token_bytes == token_bytes


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_latent_is_on_every_rank_whatever_their_number(ranks):
    assert sizes(DEEPSEEK_V3, tensor_parallel_size=ranks).cache.token_bytes == 70_272


def test_stages_divide_layers_weights_and_cache():
    whole, half = sizes(LLAMA_70B), sizes(LLAMA_70B, pipeline_parallel_size=2)
    assert half.cache.token_bytes == whole.cache.token_bytes / 2
    assert half.weights_gib == pytest.approx(whole.weights_gib / 2, rel=0.01)


def test_a_window_bounds_what_a_request_needs():
    """Mistral 7B looks back 4,096 tokens in every layer: 32k of context need no more than window and two batches."""
    request = sizes(MISTRAL_7B).cache
    assert request.token_bytes == 131_072
    assert request.blocks_per_request * 16 == pytest.approx(4096 + 2 * 8192, abs=32)


def test_gemma_2_alternates_between_full_and_windowed_layers():
    cache = sizes(GEMMA2_9B).cache
    windowed = [layer.mixer is Mixer.WINDOWED for layer in of_mapping("m", "test", GEMMA2_9B).kinds]
    assert windowed == [True, False] * 21
    assert cache.token_bytes == 42 * 2 * 8 * 256 * 2
    assert of_mapping("m", "test", GEMMA2_9B).tied_embeddings


@pytest.mark.parametrize(
    ("config", "quantization", "gib"),
    [
        (QWEN25_7B, AWQ, 5.2),
        (LLAMA_8B, GPTQ, 5.35),
        (LLAMA_70B, AWQ, 37.1),
        (LLAMA_8B, FP8, 8.49),
        (QWEN3_MOE, FP8, 29.1),
    ],
)
def test_quantized_weights_leave_embeddings_head_and_routers_as_they_are(config, quantization, gib):
    """Sizes of their checkpoints, which embeddings of two bytes make larger than bits alone would."""
    assert sizes({**config, "quantization_config": quantization}).weights_gib == pytest.approx(gib, rel=0.02)


def test_expert_parallelism_takes_no_more_weights_than_cutting_each_expert():
    cut, whole = (sizes(MIXTRAL, tensor_parallel_size=4, enable_expert_parallel=ep).weights_gib for ep in (False, True))
    assert whole == pytest.approx(cut)
