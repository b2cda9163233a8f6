"""Bytes of a quantized weight, and which modules are quantized, in the dialects of checkpoints."""

import pytest

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
        ({**COMPRESSED, "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}}, None),
    ],
)
def test_a_weight_takes_its_bits_and_its_share_of_scale_and_zero(raw, weight_bytes):
    assert of_config(raw).weight_bytes == weight_bytes


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
    ],
)
def test_modules_that_are_left_out_are_left_out(raw, module, covered):
    assert of_config(raw).covers(module) is covered
