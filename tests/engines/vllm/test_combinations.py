"""What vLLM refuses is refused before a launch, in the versions that refuse it, and what it takes is let through."""

import pytest

from tests.engines.vllm.real import AWQ, GLM, H100, RTX4090X2, SITE
from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.model.architecture import find, of_mapping
from tuner.engines.vllm.rules import RULES, PlannedLaunch, refused
from tuner.errors import Degraded, LaunchRejected
from tuner.space import Settings

RTX3090 = Hardware("RTX 3090", 4, 23.7, None, (8, 6), 82)
V100 = Hardware("V100", 1, 31.7, None, (7, 0), 80)
MANY = Hardware("H100 x8", 8, 79.18, None, (9, 0), 132)
DENSE = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "vocab_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 8192,
}
QWEN_AWQ = {
    **DENSE,
    "intermediate_size": 18944,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
}


def check(args, hardware=RTX4090X2, version="0.15.0", model=AWQ, env=None):
    """What is refused of these settings."""
    architecture = of_mapping("m", "test", model) if isinstance(model, dict) else find(model)
    settings = Settings(args, env or {})
    demand = demand_of(settings, hardware, release(version), architecture)
    return refused(PlannedLaunch(settings, demand, architecture, hardware))


REFUSED = [
    ({"max_num_seqs": 128, "max_num_batched_tokens": 64}, {}, "max_num_batched_tokens (64) must be greater than or"),
    ({"max_num_seqs": 0}, {}, "max_num_seqs (0) should be greater than or equal to 1"),
    ({"gpu_memory_utilization": 1.2}, {}, "gpu_memory_utilization (1.2) should be greater than 0"),
    (
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048, "max_model_len": 8192},
        {},
        "is smaller than max_model_len (8192) without chunked prefill",
    ),
    ({"long_prefill_token_threshold": 9000, "max_model_len": 8192}, {}, "cannot be greater than the max_model_len"),
    ({"max_num_active_seqs": 65, "max_num_seqs": 64}, {"version": "0.33.0"}, "cannot be greater than max_num_seqs"),
    ({"max_model_len": 300_000}, {}, "User-specified max_model_len (300000) is greater than the derived"),
    ({"tensor_parallel_size": 3}, {"hardware": MANY}, "heads (20) must be divisible by tensor parallel size (3)"),
    ({"tensor_parallel_size": 16}, {"hardware": MANY, "model": DENSE}, "heads (8) must be divisible"),
    (
        {"tensor_parallel_size": 4},
        {"hardware": MANY, "model": {**DENSE, "num_attention_heads": 12, "num_key_value_heads": 6}},
        "6 key and value heads can be neither cut nor replicated",
    ),
    (
        {"tensor_parallel_size": 4},
        {"hardware": MANY, "model": {**DENSE, "intermediate_size": 510}},
        "intermediate size (510) is not divisible by tensor parallel size (4)",
    ),
    (
        {"tensor_parallel_size": 8},
        {"hardware": MANY, "model": {**QWEN_AWQ, "intermediate_size": 18944 // 4}},
        "in groups of",
    ),
    ({"pipeline_parallel_size": 8}, {"hardware": MANY, "model": DENSE}, "4 layers cannot be divided among"),
    ({"tensor_parallel_size": 4}, {}, "World size (4) is larger than the number of available GPUs (2)"),
    ({"tensor_parallel_size": 2, "data_parallel_size": 2}, {}, "World size (4) is larger"),
    ({"enable_expert_parallel": True}, {"model": DENSE}, "Number of experts in the model must be greater than 0"),
    ({"enable_eplb": True}, {}, "enable_expert_parallel must be True to use EPLB"),
    (
        {"tensor_parallel_size": 2, "decode_context_parallel_size": 4},
        {},
        "tp_size=2 must be divisible by dcp_size=4",
    ),
    ({"enable_auto_tool_choice": True}, {}, "requires --tool-call-parser"),
    (
        {"max_cudagraph_capture_size": 64, "cudagraph_capture_sizes": [1, 2, 32]},
        {},
        "should be consistent with the max value of cudagraph_capture_sizes(=32)",
    ),
    ({"compilation_config.compile_sizes": [1, 3]}, {}, "compile_sizes contains 3 which would be padded to 4"),
]


@pytest.mark.parametrize(("args", "where", "says"), REFUSED)
def test_a_combination_that_vllm_rejects_is_a_bad_flag_with_a_fix(args, where, says):
    error = check(args, **where)
    assert isinstance(error, LaunchRejected)
    assert says in error.message
    assert error.cause == Cause.BAD_FLAG
    assert error.fix


UNSUPPORTED = [
    ({"block_size": 24}, {"version": "0.20.0"}, "No valid attention backend found for block_size 24"),
    ({"attention_backend": "FLASHMLA", "block_size": 16}, {"hardware": H100, "model": GLM}, "takes blocks of 64"),
    (
        {"attention_backend": "FLASHMLA"},
        {},
        "FLASHMLA is not valid for this configuration. Reason: [compute capability 8.9",
    ),
    ({"attention_backend": "FLASH_ATTN"}, {"hardware": H100, "model": GLM}, "MLA not supported"),
    ({"attention_backend": "triton_mla"}, {"model": DENSE}, "it is for MLA, which this model does not use"),
    (
        {"attention_backend": "FLASH_ATTN_MLA", "kv_cache_dtype": "fp8"},
        {"hardware": H100, "model": GLM, "version": "0.26.0"},
        "kv_cache_dtype fp8 not supported",
    ),
    ({"attention_backend": "FLASHINFER"}, {"model": DENSE}, "head_size 32 not supported"),
    ({"attention_config.backend": "FLASH_ATTN"}, {"hardware": V100, "model": DENSE}, "compute capability 7.0"),
    (
        {"attention_backend": "FLASHINFER"},
        {"hardware": H100, "model": {**DENSE, "head_dim": 64, "model_type": "gpt_oss"}},
        "sink setting not supported",
    ),
    ({"kv_cache_dtype": "fp8"}, {}, "TritonMLA V1 with FP8 KV cache not yet supported"),
    ({"kv_cache_dtype": "fp8"}, {"version": "0.20.0", "hardware": RTX3090}, "compute capability 8.6: it requires 8.9"),
    ({"kv_cache_dtype": "nvfp4"}, {"version": "0.33.0"}, "nvfp4 KV cache is not supported with MLA"),
    (
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}, "pipeline_parallel_size": 2},
        {"version": "0.26.0"},
        "speculative decoding does not start with pipeline_parallel_size 2",
    ),
    ({"dtype": "bfloat16"}, {"hardware": V100, "model": DENSE}, "at least 8.0; this one has 7.0"),
]


@pytest.mark.parametrize(("args", "where", "says"), UNSUPPORTED)
def test_what_no_backend_or_gpu_supports_is_unsupported(args, where, says):
    error = check(args, **where)
    assert isinstance(error, LaunchRejected)
    assert says in error.message
    assert (error.cause, bool(error.fix)) == (Cause.UNSUPPORTED, True)


@pytest.mark.parametrize("feature", ["enable_chunked_prefill", "num_scheduler_steps"])
def test_what_forces_old_vllm_back_to_v0_is_a_degradation(feature):
    args = {feature: True if feature == "enable_chunked_prefill" else 8}
    error = check(args, version="0.10.2")
    assert isinstance(error, Degraded)
    assert error.cause == Cause.V0_FALLBACK


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (SITE, {}),
        ({"tensor_parallel_size": 2, "max_num_seqs": 64, "max_num_batched_tokens": 64}, {}),
        ({"kv_cache_dtype": "fp8"}, {"version": "0.20.0"}),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}, {"version": "0.26.0"}),
        ({"kv_cache_dtype": "fp8"}, {"hardware": H100, "model": GLM}),
        ({"kv_cache_dtype": "fp8"}, {"model": DENSE}),
        ({"kv_cache_dtype": "fp8"}, {"env": {"VLLM_MLA_DISABLE": "1"}}),
        ({"block_size": 24}, {"version": "0.15.0"}),
        ({"block_size": 32}, {"version": "0.20.0"}),
        ({"compilation_config.compile_sizes": [1, 2, 4, 8]}, {}),
        ({"compilation_config.compile_sizes": [3], "enforce_eager": True}, {}),
        ({"compilation_config.compile_sizes": [3]}, {"version": "0.11.2"}),
        ({"max_model_len": 300_000}, {"env": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}),
        ({"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}, {}),
        ({"pipeline_parallel_size": 3}, {"hardware": MANY}),
        ({"tensor_parallel_size": 8}, {"hardware": MANY, "model": DENSE}),
        ({"enable_expert_parallel": True, "tensor_parallel_size": 2}, {}),
        ({"enable_chunked_prefill": True}, {"version": "0.15.0"}),
        ({"dtype": "bfloat16"}, {"hardware": H100, "model": DENSE}),
        ({"tensor_parallel_size": 7}, {"model": "somebody/unknown", "hardware": MANY}),
    ],
)
def test_what_vllm_takes_is_let_through(args, where):
    assert check(args, **where) is None


def test_a_rule_of_some_versions_says_nothing_of_an_unknown_one():
    assert check({"kv_cache_dtype": "fp8"}, version=None) is None
    assert check({"tensor_parallel_size": 3}, hardware=MANY, version=None) is not None


def test_the_deployed_configuration_of_every_shipped_world_is_let_through():
    """Three cards by pipeline parallelism, as that site ran it; GLM whole on one H100."""
    three = Hardware("3 x RTX 4090", 3, 23.99, None, (8, 9), 128)
    assert check({"pipeline_parallel_size": 3}, hardware=three) is None
    assert check({"max_model_len": 8192, "max_num_seqs": 64}, hardware=H100, version="0.26.0", model=GLM) is None


def test_rules_have_names_of_their_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


STRETCHED = [
    {"hf_overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}},
    {"hf_overrides.rope_parameters.factor": 4.0},
    {"hf_overrides.text_config.max_position_embeddings": 131072},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    {"rope_scaling.factor": 4.0},
]


@pytest.mark.parametrize("flags", STRETCHED)
def test_a_context_that_flags_stretch_is_not_refused(flags):
    """The route that Qwen3's model card documents."""
    assert check({"max_model_len": 131072}, model="Qwen/Qwen3-8B") is not None
    assert check({"max_model_len": 131072, **flags}, model="Qwen/Qwen3-8B") is None


def test_gemma_3_with_linear_rope_is_as_long_as_it_says():
    gemma = {**DENSE, "model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert check({"max_model_len": 8192}, model=gemma) is None
    assert "greater than the derived" in str(check({"max_model_len": 65536}, model=gemma))


ERNIE = {**DENSE, "moe_num_experts": 64, "moe_k": 6, "moe_intermediate_size": 1536, "moe_layer_start_index": 1}


def test_experts_under_another_name_are_experts():
    args = {"enable_expert_parallel": True, "tensor_parallel_size": 2}
    assert check(args, hardware=MANY, model=ERNIE) is None
    assert "Number of experts" in str(check(args, hardware=MANY, model=DENSE))


@pytest.mark.parametrize(("ranks", "expert_parallel", "starts"), [(4, False, True), (8, False, False), (8, True, True)])
def test_blocks_of_fp8_must_stay_whole_on_a_rank(ranks, expert_parallel, starts):
    """Qwen3-235B-A22B-FP8: experts of 1,536 are 192 on each of eight ranks, and blocks have 128."""
    args = {"tensor_parallel_size": ranks, "enable_expert_parallel": expert_parallel}
    found = check(args, hardware=MANY, version="0.26.0", model="Qwen/Qwen3-235B-A22B-FP8")
    assert (found is None) is starts
    assert starts or "not divisible by tensor parallel size (8) in groups of 128" in str(found)


@pytest.mark.parametrize("ranks", [4, 8])
def test_experts_in_mxfp4_are_padded_to_any_number_of_ranks(ranks):
    """gpt-oss: experts of 2,880 are 360 on each of eight ranks, which is no multiple of the 32 that share a scale."""
    experts = {"num_local_experts": 32, "num_experts_per_tok": 4, "intermediate_size": 2880, "model_type": "gpt_oss"}
    model = {**DENSE, **experts, "num_key_value_heads": 8, "quantization_config": {"quant_method": "mxfp4"}}
    assert check({"tensor_parallel_size": ranks}, hardware=MANY, version="0.26.0", model=model) is None


@pytest.mark.parametrize(
    ("args", "env", "where"),
    [
        ({"attention_backend": "TRITON_MLA"}, None, {}),
        ({"attention_backend": "FLASHMLA", "block_size": 64}, None, {"hardware": H100, "model": GLM}),
        ({"attention_backend": "auto"}, None, {}),
        ({"attention_backend": "SOMEBODY_S_OWN"}, None, {}),
        ({"attention_backend": "TRITON_ATTN"}, None, {"model": DENSE, "hardware": V100}),
        ({"attention_backend": "FLASH_ATTN"}, None, {"model": DENSE}),
        ({}, {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}, {"model": DENSE, "version": "0.11.2"}),
    ],
)
def test_an_attention_backend_that_runs_or_is_not_known_here_is_let_through(args, env, where):
    assert check(args, env=env, **where) is None


def test_a_refused_backend_comes_with_those_that_run():
    error = check({"attention_backend": "FLASHINFER_MLA"}, hardware=H100, model=GLM)
    assert "FLASH_ATTN_MLA, FLASHMLA, TRITON_MLA" in error.fix
    assert check({}, env={"VLLM_ATTENTION_BACKEND": "FLASHMLA"}, version="0.11.2").cause == Cause.UNSUPPORTED
