"""What a server runs with is read from its own words, and compared with what it was asked."""

import json
from pathlib import Path

import pytest

from tuner.engines.effective import Status, Witness
from tuner.engines.vllm.effective import effective
from tuner.space import Settings

DATA = Path(__file__).parents[2] / "data"
LOG = (DATA / "vllm-0.32.0-cpu-ok_glm_block32.log").read_text().splitlines()
INFO = (DATA / "vllm-0.32.0-cpu-server_info.json").read_text()
LABELS = 'vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="False",engine="0"} 1.0'
ASKED = Settings(
    {"max_num_batched_tokens": 256, "max_num_seqs": 16, "block_size": 32, "dtype": "auto", "served_model_name": "glm"},
    {"VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE": "1", "VLLM_FLOAT32_MATMUL_PRECISION": "highest", "HF_HUB_OFFLINE": "1"},
)


def found(asked, **words):
    return {setting.name: setting for setting in effective(asked, Witness(**{"log": LOG, **words}))}


def test_real_vllm_overrides_what_its_mla_backend_cannot_do():
    """The architecture of GLM on a CPU with MLA on, vLLM 0.32: block size and batched tokens are not as asked."""
    seen = found(ASKED, server_info=INFO)
    assert (seen["block_size"].status, seen["block_size"].effective) == (Status.OVERRIDDEN, 16)
    assert "requires block_size=16" in seen["block_size"].by
    assert (seen["max_num_batched_tokens"].status, seen["max_num_batched_tokens"].effective) == (
        Status.OVERRIDDEN,
        2048,
    )
    assert seen["max_num_seqs"].status is Status.HONOURED
    assert seen["dtype"].status is Status.HONOURED
    assert "served_model_name" not in seen


def test_the_inductor_toggles_have_no_effect_without_compile_sizes():
    seen = found(ASKED, server_info=INFO)["VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"]
    assert seen.status is Status.NO_EFFECT
    assert "compile_sizes" in seen.by
    sized = Settings({"compilation_config.compile_sizes": [1, 2]}, ASKED.env)
    assert found(sized)["VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"].status is Status.UNKNOWN


def test_variables_are_compared_with_what_the_server_read():
    seen = found(ASKED, server_info=INFO)
    assert seen["VLLM_FLOAT32_MATMUL_PRECISION"].status is Status.HONOURED
    assert seen["HF_HUB_OFFLINE"].status is Status.UNKNOWN


def test_without_the_endpoint_the_metrics_and_the_log_are_heard():
    seen = found(ASKED, metrics=LABELS)
    assert (seen["block_size"].status, seen["block_size"].effective) == (Status.OVERRIDDEN, 16)
    assert seen["max_num_seqs"].status is Status.UNKNOWN
    assert found(Settings({"max_model_len": 4096}))["max_model_len"].effective == 2048


def test_the_old_text_form_of_the_endpoint_is_read():
    info = '{"vllm_config": "model=\'m\', dtype=torch.float16, max_seq_len=2048, enforce_eager=False, seed=0"}'
    seen = found(Settings({"dtype": "half", "enforce_eager": True}), log=[], server_info=info)
    assert seen["dtype"].status is Status.HONOURED
    assert seen["enforce_eager"].status is Status.OVERRIDDEN


@pytest.mark.parametrize("info", [None, "", "<html>", "{}", "[]", '{"vllm_config": 3}'])
def test_a_server_that_says_nothing_leaves_everything_unknown(info):
    seen = found(Settings({"block_size": 32}), log=[], server_info=info)
    assert seen["block_size"].status is Status.UNKNOWN


def test_lists_and_json_flags_are_compared_inside():
    info = '{"vllm_config": {"compilation_config": {"compile_sizes": [1, 2]}}}'
    asked = Settings({"compilation_config.compile_sizes": [1, 2, 4]})
    assert found(asked, log=[], server_info=info)["compilation_config.compile_sizes"].status is Status.OVERRIDDEN
    asked = Settings({"compilation_config": {"compile_sizes": [1, 2]}})
    assert found(asked, log=[], server_info=info)["compilation_config.compile_sizes"].status is Status.HONOURED


def test_sizes_in_another_order_are_the_same_sizes():
    """vLLM 0.26 says ``[8, 1, 2, 4]`` of the ``[1, 2, 4, 8]`` it was given (seen on an H200)."""
    info = '{"vllm_config": {"compilation_config": {"compile_sizes": [8, 1, 2, 4]}}}'
    asked = Settings({"compilation_config.compile_sizes": [1, 2, 4, 8]})
    assert found(asked, log=[], server_info=info)["compilation_config.compile_sizes"].status is Status.HONOURED


def backend(said, asked):
    return next(iter(effective(asked, Witness(log=[f"INFO [cuda.py:1] {said}"], server_info=BACKEND_AS_ASKED))))


BACKEND_AS_ASKED = json.dumps(
    {"vllm_config": {"attention_config": {"backend": "FLASHINFER"}, "compilation_config": {"cudagraph_mode": [2, 0]}}}
)
ASKS_BACKEND = [
    Settings({"attention_backend": "FLASHINFER"}),
    Settings({"attention_config": {"backend": "FLASHINFER"}}),
    Settings({}, {"VLLM_ATTENTION_BACKEND": "FLASHINFER"}),
]


@pytest.mark.parametrize("asked", ASKS_BACKEND)
def test_the_attention_backend_is_the_one_that_the_log_says_was_taken(asked):
    other = backend("Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN'].", asked)
    assert (other.status, other.effective) == (Status.OVERRIDDEN, "FLASH_ATTN")
    for said in ("Using AttentionBackendEnum.FLASHINFER backend.", "Using FlashInfer backend on V1 engine."):
        assert (backend(said, asked).status, backend(said, asked).effective) == (Status.HONOURED, "FLASHINFER")


def test_the_mode_of_graphs_is_read_by_its_name():
    def mode(name):
        return effective(Settings({"compilation_config.cudagraph_mode": name}), Witness([], BACKEND_AS_ASKED))[0]

    assert mode("FULL_DECODE_ONLY").status is Status.HONOURED
    assert (mode("PIECEWISE").status, mode("PIECEWISE").effective) == (Status.OVERRIDDEN, "FULL_DECODE_ONLY")
