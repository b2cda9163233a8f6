"""Bytes of a quantized weight, and which modules are quantized, in the dialects of checkpoints."""

import pytest

from tests.present import present
from tuner.engines.vllm.model.quantization import of_config

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128, "symmetric": True}}},
    "ignore": ["lm_head", "re:.*self_attn.*"],
}


@pytest.mark.parametrize(
    ("raw", "weight_bytes"),
    [
        (AWQ, 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True}, 1.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1.0),
        (COMPRESSED, 0.5 + 2 / 128),
        ({"quant_method": "gguf"}, None),
        ({**COMPRESSED, "config_groups": {"a": {"weights": {"num_bits": 5}}}}, None),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, 0.5 + 1 / 16),
        ({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}, 1.0),
        ({"quant_method": "mxfp4"}, 0.5 + 1 / 32),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 4 / 64),
    ],
)
def test_a_weight_takes_its_bits_and_its_share_of_scale_and_zero(raw, weight_bytes):
    stored = present(of_config(raw)).format
    assert (stored and stored.weight_bytes) == weight_bytes


def test_no_quantization_is_none():
    assert of_config(None) is of_config({}) is None


@pytest.mark.parametrize(
    ("raw", "module", "covered"),
    [
        (AWQ, "model.layers.3.mlp.up_proj", True),
        (AWQ, "model.layers.3.mlp.gate", False),
        (AWQ, "model.layers.3.input_layernorm", False),
        (AWQ, "lm_head", False),
        ({**AWQ, "modules_to_not_convert": ["self_attn"]}, "model.layers.3.self_attn.o_proj", False),
        ({**AWQ, "modules_to_not_convert": ["model.layers.0"]}, "model.layers.0.mlp.up_proj", False),
        ({**AWQ, "modules_to_not_convert": ["model.layers.1"]}, "model.layers.10.mlp.up_proj", True),
        (COMPRESSED, "model.layers.3.self_attn.o_proj", False),
        (COMPRESSED, "model.layers.3.mlp.up_proj", True),
        ({"quant_method": "mxfp4", "ignore": ["model.layers.*.self_attn"]}, "model.layers.3.self_attn.o_proj", False),
        ({**AWQ, "ignore": ["model.language_model.layers.3.mlp"]}, "model.layers.3.mlp.up_proj", False),
    ],
)
def test_modules_that_are_left_out_are_left_out(raw, module, covered):
    assert (present(of_config(raw)).of_module(module) is not None) is covered


MIXED = {
    "quant_method": "compressed-tensors",
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}},
        "group_1": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4, "type": "float", "group_size": 16}},
    },
}


@pytest.mark.parametrize(
    ("module", "weight_bytes"),
    [("model.layers.3.self_attn.o_proj", 1.0), ("model.layers.3.mlp.experts.0.up_proj", 0.5 + 1 / 16)],
)
def test_groups_with_targets_of_their_own_come_before_the_one_for_all(module, weight_bytes):
    assert present(present(of_config(MIXED)).of_module(module)).weight_bytes == weight_bytes


@pytest.mark.parametrize(
    ("method", "asked", "same"),
    [
        ("awq", "awq_marlin", True),
        ("gptq", "gptq_marlin", True),
        ("modelopt", "modelopt_fp4", True),
        ("fp8", "fp8", True),
        ("awq", "fp8", False),
    ],
)
def test_a_flag_may_name_what_the_checkpoint_has(method, asked, same):
    assert present(of_config({"quant_method": method, "bits": 4})).same_as(asked) is same


def test_a_checkpoint_may_ask_for_an_eight_bit_cache():
    assert present(of_config({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"})).cache_bytes == 1.0
    assert present(of_config({**COMPRESSED, "kv_cache_scheme": {"num_bits": 8}})).cache_bytes == 1.0
    assert present(of_config(AWQ)).cache_bytes is None


ROUND = {
    "quant_method": "auto-round",
    "bits": 4,
    "group_size": 128,
    "sym": True,
    "extra_config": {"model.language_model.layers.0.mlp.down_proj": {"bits": 8}, ".*linear_attn.*": {"bits": 16}},
}
DYNAMIC = {
    **{"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
    "dynamic": {"-:.*self_attn.*": {}, "+:.*shared_expert.*": {"bits": 8}},
}


@pytest.mark.parametrize(
    ("raw", "module", "bits"),
    [
        (ROUND, "model.layers.3.mlp.up_proj", 4),
        (ROUND, "model.layers.0.mlp.down_proj", 8),
        (ROUND, "model.layers.3.linear_attn.in_proj_qkvz", None),
        (DYNAMIC, "model.layers.3.mlp.experts.0.up_proj", 4),
        (DYNAMIC, "model.layers.3.mlp.shared_expert.up_proj", 8),
        (DYNAMIC, "model.layers.3.self_attn.q_proj", None),
    ],
)
def test_modules_may_have_bits_of_their_own(raw, module, bits):
    stored = present(of_config(raw)).of_module(module)
    assert (stored and stored.bits) == bits
