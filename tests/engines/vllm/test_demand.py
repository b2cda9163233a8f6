"""What settings ask for once vLLM's own defaults are filled in."""

import pytest

from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.demand import default_capture_sizes, demand_of, release, whole
from tuner.engines.vllm.model.architecture import find
from tuner.space import Settings

H100 = Hardware("H100", 1, 79.18, None, (9, 0), 132)
RTX4090 = Hardware("RTX 4090", 2, 23.99, None, (8, 9), 128)


def demand(args=None, env=None, hardware=RTX4090, version="0.26.0", model="zai-org/GLM-4.7-Flash"):
    return demand_of(Settings(args or {}, env or {}), hardware, release(version), find(model))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.15.0rc2.dev40+g2e8de8677", (0, 15, 0)), ("0.15", (0, 15, 99)), ("v0.8.5.post1", (0, 8, 5)), (None, None)],
)
def test_a_version_is_its_numbers(text, numbers):
    assert release(text) == numbers


@pytest.mark.parametrize(
    ("written", "number"),
    [(8192, 8192), ("32k", 32000), ("32K", 32768), ("1.5k", 1500), ("12", 12), ("x", None), (True, None)],
)
def test_whole_numbers_are_read_as_on_the_command_line(written, number):
    assert whole(written) == number


def test_defaults_depend_on_the_gpu_and_the_version():
    small, large = demand(), demand(hardware=H100)
    assert (small.max_num_seqs, small.max_num_batched_tokens) == (256, 2048)
    assert (large.max_num_seqs, large.max_num_batched_tokens) == (1024, 8192)
    assert (demand(version="0.15.0").utilization, demand(version="0.20.0").utilization) == (0.9, 0.92)
    assert small.max_model_len == 202752


def test_what_depends_on_an_unknown_gpu_is_unknown():
    nobody_knows = demand(hardware=Hardware("?", 1))
    assert nobody_knows.max_num_seqs is nobody_knows.max_num_batched_tokens is None


@pytest.mark.parametrize(("seqs", "sizes", "graphs"), [(64, 19, 30), (8, 5, 9), (256, 51, 51 + 35)])
def test_as_many_graphs_as_real_servers_captured(seqs, sizes, graphs):
    """19 piecewise and 11 whole ones in the H100's log with 64 sequences, 5 and 4 with 8."""
    asked = demand({"max_num_seqs": seqs}, hardware=H100)
    assert (len(asked.capture_sizes), asked.graphs) == (sizes, graphs)


def test_no_more_graphs_than_batched_tokens():
    assert demand({"max_num_seqs": 64, "max_num_batched_tokens": 64}).capture_sizes[-1] == 64
    assert default_capture_sizes(16) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    "args",
    [
        {"enforce_eager": True},
        {"optimization_level": 0},
        {"compilation_config": {"mode": "none"}},
        {"compilation_config.mode": 0},
        {"compilation_config": '{"level": 0}'},
    ],
)
def test_eager_in_every_spelling_captures_nothing(args):
    asked = demand(args)
    assert (asked.eager, asked.graphs, asked.capture_sizes) == (True, 0, ())


def test_compile_sizes_may_name_the_captured_ones():
    assert demand({"compilation_config.compile_sizes": [1, 2]}).compile_sizes == (1, 2)
    named = demand({"compilation_config": {"compile_sizes": ["cudagraph_capture_sizes"]}, "max_num_seqs": 8})
    assert named.compile_sizes == named.capture_sizes == (1, 2, 4, 8, 16)


@pytest.mark.parametrize(
    ("version", "env", "model", "counted"),
    [
        ("0.15.0", {}, "zai-org/GLM-4.7-Flash", False),
        ("0.20.0", {}, "zai-org/GLM-4.7-Flash", True),
        ("0.26.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"}, "zai-org/GLM-4.7-Flash", False),
        ("0.26.0", {}, "Qwen/Qwen3-8B", False),
        ("0.26.0", {"VLLM_USE_V2_MODEL_RUNNER": "0"}, "Qwen/Qwen3-8B", True),
    ],
)
def test_whether_memory_is_set_aside_for_graphs(version, env, model, counted):
    assert demand(env=env, version=version, model=model).graphs_counted is counted


@pytest.mark.parametrize(
    ("args", "hardware", "triton"),
    [({}, RTX4090, True), ({}, H100, False), ({"attention_backend": "TRITON_MLA"}, H100, True)],
)
def test_triton_is_the_only_mla_backend_of_consumer_cards(args, hardware, triton):
    assert demand(args, hardware=hardware).triton_mla is triton


def test_what_changes_memory_in_unknown_ways_is_named():
    assert demand({"speculative_config": {"method": "mtp"}}, model="Qwen/Qwen3-8B").beyond == ("a draft model",)
    assert demand({"enable_lora": False, "decode_context_parallel_size": 1}).beyond == ()


@pytest.mark.parametrize(
    ("args", "beyond"),
    [
        ({"quantization": "awq"}, ()),
        ({"quantization": "awq_marlin"}, ()),
        ({"quantization": "fp8"}, ("another quantization",)),
        ({"hf_overrides": {"rope_parameters": {"factor": 4.0}}}, ()),
        ({"hf_overrides.rope_parameters.factor": 4.0}, ()),
        ({"hf_overrides.num_hidden_layers": 4}, ("a changed model",)),
        ({"hf_overrides": {"text_config": {"num_experts": 4}}}, ("a changed model",)),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}, ()),
        ({"speculative_config.method": "eagle3", "speculative_config.model": "m"}, ("a draft model",)),
    ],
)
def test_what_changes_no_memory_keeps_nothing_from_being_predicted(args, beyond):
    assert demand(args, model="QuantTrio/GLM-4.7-Flash-AWQ").beyond == beyond


def test_an_unquantized_checkpoint_may_be_quantized_as_it_is_loaded():
    asked = demand({"quantization": "fp8"}, model="Qwen/Qwen3-8B")
    assert (asked.beyond, asked.online.format.weight_bytes) == ((), 1.0)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("int8", (1.0, 0.0)),
        ("int8_per_token_head", (1.0, 4.0)),
        ("nvfp4", (0.5625, 0.0)),
        ("turboquant_k8v4", (None, 0)),
    ],
)
def test_a_cached_number_takes_its_bits_and_its_share_of_scales(kind, numbers):
    asked = demand({"kv_cache_dtype": kind}, model="Qwen/Qwen3-8B")
    assert (asked.kv_element_bytes, asked.kv_scale_bytes) == numbers


@pytest.mark.parametrize(
    ("version", "args", "batches"),
    [("0.25.0", {}, 1), ("0.26.0", {}, 2), ("0.26.0", {"async_scheduling": False}, 1)],
)
def test_two_batches_are_under_way_where_they_are_scheduled_ahead(version, args, batches):
    assert demand(args, version=version).batches == batches


@pytest.mark.parametrize(
    ("version", "runner", "counted"), [("0.26.0", "0", True), ("0.26.0", "1", False), ("0.31.0", "1", False)]
)
def test_the_second_runner_sets_nothing_aside_for_graphs(version, runner, counted):
    assert demand(env={"VLLM_USE_V2_MODEL_RUNNER": runner}, version=version).graphs_counted is counted
