"""What a server does slower than it could is named with the line that mentions it."""

import pytest

from tuner.engines.vllm.log.degradations import degradations


def names(*lines):
    return [each.name for each in degradations(lines)]


@pytest.mark.parametrize(
    ("line", "name", "severe"),
    [
        ("WARNING [a] ['Foo'] is not supported by the V1 Engine. Falling back to V0.", "v0_engine", True),
        ("INFO [a] Using Transformers modeling backend.", "transformers_backend", True),
        ("WARNING [a] FooForCausalLM has no vLLM implementation, falling back to Transformers implementation.",
         "transformers_backend", True),
        ("WARNING [a] gptq quantization is not fully optimized yet.", "quantization_fallback", True),
        ("WARNING [a] Your GPU does not have native support for FP8 computation but FP8 quantization is being used",
         "fp8_weight_only", False),
        ("WARNING [a] Using default MoE config. Performance might be sub-optimal! Config file", "moe_untuned", False),
        ("WARNING [a] Using default W8A8 Block FP8 kernel config. Performance might be sub-optimal!",
         "fp8_gemm_untuned", False),
        ("WARNING [a] Custom allreduce is disabled because it's not supported on more than two PCIe-only GPUs",
         "custom_all_reduce_off", False),
        ("INFO [a] vLLM's torch.compile cache is disabled.", "compile_cache_off", False),
        ("WARNING [a] Enforce eager set, disabling torch.compile and CUDAGraphs.", "eager", True),
    ],
)  # fmt: skip
def test_a_line_names_a_degradation_and_whether_it_spoils_a_measurement(line, name, severe):
    (found,) = degradations([line])
    assert (found.name, found.severe, found.line, found.line_number) == (name, severe, line, 1)


def test_each_is_named_once_at_its_first_line():
    moe = "WARNING 01-01 00:00:00 [a.py:1] Using default MoE config. Performance might be sub-optimal!"
    found = degradations(["hello", moe, f"(Worker_TP1 pid=2) {moe}"])
    assert [(each.name, each.line_number) for each in found] == [("moe_untuned", 2)]


@pytest.mark.parametrize(
    "asked",
    [
        "INFO 01-01 00:00:00 [utils.py:1] non-default args: {'model': 'm', 'enforce_eager': True}",
        "$ vllm serve org/model-7b --enforce-eager",
    ],
)
def test_eager_is_mild_where_somebody_asked_for_it(asked):
    eager = "WARNING 01-01 00:00:00 [a.py:1] Enforce eager set, disabling torch.compile and CUDAGraphs."
    assert [each.severe for each in degradations([asked, eager])] == [False]


def test_a_model_made_for_mla_that_runs_without_is_degraded():
    model = "INFO 01-01 00:00:00 [model.py:1] Resolved architecture: DeepseekV3ForCausalLM"
    assert names(model, "INFO 01-01 00:00:00 [cuda.py:1] Using FLASH_ATTN attention backend out of") == ["mla_off"]
    assert names(model, "INFO 01-01 00:00:00 [cuda.py:1] Using FLASH_ATTN_MLA attention backend out of") == []
    assert names(model) == []


def test_healthy_gpu_logs_mention_nothing_severe(log):
    for run in ("A_cold", "B_warm", "C_seqs8"):
        assert not any(each.severe for each in degradations(log(f"vllm-0.26.0-h100-{run}.log")))


@pytest.mark.parametrize(
    "asked",
    [
        "INFO 01-01 00:00:00 [utils.py:1] non-default args: {'model': 'm', 'attention_backend': 'FLASHINFER'}",
        "INFO 01-01 00:00:00 [utils.py:1] args: {'attention_backend': <AttentionBackendEnum.FLASHINFER: 'a.b'>}",
        "$ VLLM_ATTENTION_BACKEND=FLASHINFER vllm serve org/model-7b",
        "$ vllm serve org/model-7b --attention-backend FLASHINFER",
    ],
)
def test_a_backend_that_was_asked_for_and_does_not_run_is_a_degradation(asked):
    other = (
        "INFO 01-01 00:00:00 [cuda.py:1] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN']"
    )
    (found,) = degradations([asked, other])
    assert (found.name, found.severe, found.line) == ("attention_backend", True, other)
    assert names(asked, "INFO 01-01 00:00:00 [cuda.py:1] Using AttentionBackendEnum.FLASHINFER backend.") == []
    assert names(asked, "INFO 01-01 00:00:00 [cuda.py:1] Using FlashInfer backend on V1 engine.") == []
    assert names(asked) == []


def test_a_backend_that_was_left_to_vllm_is_none():
    asked = "INFO 01-01 00:00:00 [utils.py:1] non-default args: {'model': 'm', 'attention_backend': None}"
    assert names(asked, "INFO 01-01 00:00:00 [cuda.py:1] Using FLASH_ATTN attention backend out of") == []
