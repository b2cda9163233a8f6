"""What is read from a model's config.json, where it is looked for, and what is never guessed."""

import json
import os
import struct

import pytest

from tuner.engines.vllm.model.architecture import Experts, Mla, find, of_mapping
from tuner.engines.vllm.model.checkpoint import stored_bytes

DENSE = {
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "vocab_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "max_position_embeddings": 8192,
}


def folder(path, config):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_says_all_that_a_prediction_needs(tmp_path):
    model = find(str(folder(tmp_path / "m", DENSE)))
    assert (model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim) == (4, 256, 8, 2, 64)
    assert (model.max_positions, model.mla, model.experts, model.missing) == (8192, None, None, ())
    assert model.source.endswith("m/config.json")


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"])
def test_a_field_that_is_not_there_is_missing_and_not_guessed(field):
    model = of_mapping("m", "test", {key: value for key, value in DENSE.items() if key != field})
    assert model.missing


def test_the_presets_need_no_files():
    glm, awq = find("zai-org/GLM-4.7-Flash"), find("QuantTrio/GLM-4.7-Flash-AWQ")
    assert glm.mla == Mla(768, 512, 192, 64, 256)
    assert glm.experts == Experts(64, 4, 1536, 1536, 1)
    assert (glm.quantization, awq.quantization.bits, awq.layers) == (None, 4, 47)
    assert glm.missing == awq.missing == ()


def test_an_unknown_model_is_unknown():
    assert find("somebody/some-model", {}) is None


def test_the_cache_of_hugging_face_is_read_at_the_revision_that_main_names(tmp_path):
    root = tmp_path / "hub" / "models--org--name"
    folder(root / "snapshots" / "old", DENSE)
    folder(root / "snapshots" / "new", {**DENSE, "num_hidden_layers": 5})
    os.utime(root / "snapshots" / "old", (2_000_000_000, 2_000_000_000))
    assert find("org/name", {"HF_HOME": str(tmp_path)}).layers == 4
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("new")
    assert find("org/name", {"HF_HOME": str(tmp_path)}).layers == 5
    assert find("org/name", {"HF_HUB_CACHE": str(tmp_path / "hub")}).layers == 5


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, "state-space layers"),
        ({"mamba_d_state": 16}, "state-space layers"),
        ({"vision_config": {}}, "a second modality"),
        ({"quantization_config": {"quant_method": "mystery"}}, "quantization"),
    ],
)
def test_what_a_formula_would_get_wrong_is_named(extra, what):
    assert what in of_mapping("m", "test", {**DENSE, **extra}).missing


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        (None, 8192),
        ({"rope_type": "llama3", "factor": 8.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384),
        ({"type": "linear", "factor": 2.0}, 16384),
    ],
)
def test_rotary_scaling_stretches_the_context_as_vllm_has_it(scaling, positions):
    assert of_mapping("m", "test", {**DENSE, "rope_scaling": scaling}).max_positions == positions


@pytest.mark.parametrize(
    ("extra", "windowed"),
    [
        ({}, 0),
        ({"sliding_window": 1024}, 4),
        ({"sliding_window": 1024, "use_sliding_window": False}, 0),
        ({"sliding_window": 1024, "sliding_window_pattern": 2}, 2),
        ({"sliding_window": 1024, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}, 3),
    ],
)
def test_windowed_layers_are_counted(extra, windowed):
    assert of_mapping("m", "test", {**DENSE, **extra}).sliding_layers == windowed


def test_the_decoder_of_a_larger_model_is_found_inside():
    model = of_mapping("m", "test", {"architectures": ["X"], "text_config": DENSE})
    assert (model.layers, model.kind) == (4, "X")


def safetensors(path, tensors):
    header = {
        name: {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]} for name, size in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def test_a_checkpoint_is_measured_by_its_headers_without_layers_that_are_not_loaded(tmp_path):
    safetensors(tmp_path / "a.safetensors", {"model.embed_tokens.weight": 100, "model.layers.0.mlp.up_proj.weight": 10})
    safetensors(tmp_path / "b.safetensors", {"model.layers.1.w": 20, "model.layers.2.mtp.w": 5000})
    assert stored_bytes(tmp_path, layers=2) == 130


def test_a_checkpoint_that_is_not_complete_says_nothing(tmp_path):
    assert stored_bytes(tmp_path, layers=2) is None
    safetensors(tmp_path / "a.safetensors", {"w": 100})
    index = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert stored_bytes(tmp_path, layers=2) is None
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "b.safetensors").write_bytes(b"truncated")
    assert stored_bytes(tmp_path, layers=2) is None
