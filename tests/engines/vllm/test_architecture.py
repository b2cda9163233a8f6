"""What is read from a model's config.json, where it is looked for, and what is never guessed."""

import json
import os
import struct

import pytest

from tests.present import present
from tuner.engines.vllm.model.architecture import find, of_mapping
from tuner.engines.vllm.model.checkpoint import stored_bytes
from tuner.engines.vllm.model.parts import Experts, Feed, Heads, Mixer, Mla

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
    model = present(find(str(folder(tmp_path / "m", DENSE))))
    assert (model.layers, model.hidden, model.full) == (4, 256, Heads(8, 2, 64, 64))
    assert (model.max_positions, model.mla, model.experts, model.missing) == (8192, None, None, ())
    assert model.source.endswith("m/config.json")


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"])
def test_a_field_that_is_not_there_is_missing_and_not_guessed(field):
    model = of_mapping("m", "test", {key: value for key, value in DENSE.items() if key != field})
    assert model.missing


def test_the_presets_need_no_files():
    glm, awq = present(find("zai-org/GLM-4.7-Flash")), present(find("QuantTrio/GLM-4.7-Flash-AWQ"))
    assert glm.mla == Mla(768, 512, 192, 64, 256)
    assert glm.experts == Experts(64, 4, 1536, 1536)
    assert [layer.feed for layer in glm.kinds] == [Feed.MLP] + [Feed.EXPERTS] * 46
    assert (glm.quantization, awq.layers) == (None, 47)
    assert present(present(awq.quantization).format).bits == 4
    assert glm.missing == awq.missing == ()


def test_an_unknown_model_is_unknown():
    assert find("somebody/some-model", {}) is None


def test_the_cache_of_hugging_face_is_read_at_the_revision_that_main_names(tmp_path):
    root = tmp_path / "hub" / "models--org--name"
    folder(root / "snapshots" / "old", DENSE)
    folder(root / "snapshots" / "new", {**DENSE, "num_hidden_layers": 5})
    os.utime(root / "snapshots" / "old", (2_000_000_000, 2_000_000_000))
    assert present(find("org/name", {"HF_HOME": str(tmp_path)})).layers == 4
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("new")
    assert present(find("org/name", {"HF_HOME": str(tmp_path)})).layers == 5
    assert present(find("org/name", {"HF_HUB_CACHE": str(tmp_path / "hub")})).layers == 5


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"layer_types": ["linear_attention", "full_attention"] * 2}, "the shape of its state"),
        ({"layer_types": ["differential_attention"] * 4}, "the kinds of its layers"),
        ({"mamba_d_state": 16, "mamba_d_conv": 4}, "the kinds of its layers"),
        ({"vision_config": {"model_type": "new"}}, "the size of its tower"),
        ({"quantization_config": {"quant_method": "mystery"}}, "quantization"),
        ({"moe_num_experts": 64}, "the number of experts per token"),
        ({"compress_ratios": [0, 4]}, "the field compress_ratios"),
        ({"num_thought_layers": 3}, "the field num_thought_layers"),
        ({"use_cla": True}, "the field use_cla"),
        ({"is_encoder_decoder": True}, "an encoder"),
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
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"full_attention": {"rope_type": "linear", "factor": 4.0}, "sliding_attention": {}}, 32768),
    ],
)
def test_rotary_scaling_stretches_the_context_as_vllm_has_it(scaling, positions):
    assert of_mapping("m", "test", {**DENSE, "rope_scaling": scaling}).max_positions == positions


def test_gemma_3s_length_counts_its_scaling_already():
    scaled = {**DENSE, "model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert of_mapping("m", "test", scaled).max_positions == 8192


@pytest.mark.parametrize(
    "harmless",
    [
        {"attention_bias": True, "attention_dropout": 0.1, "mlp_bias": True, "num_nextn_predict_layers": 1},
        {"norm_topk_prob": True, "router_aux_loss_coef": 0.1, "moe_router_enable_expert_bias": True},
        {"sliding_window": None, "layer_norm_eps": 1e-5, "use_qk_norm": True, "head_dim": 64},
    ],
)
def test_fields_without_weight_say_nothing(harmless):
    assert of_mapping("m", "test", {**DENSE, **harmless}).missing == ()


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
    kinds = of_mapping("m", "test", {**DENSE, **extra}).kinds
    assert sum(layer.mixer is Mixer.WINDOWED for layer in kinds) == windowed


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


@pytest.mark.parametrize(
    ("tensor", "counted"), [("model.layers.1.w", 5000), ("model.layers.2.w", None), ("mtp.fc.weight", None)]
)
def test_an_index_alone_tells_the_size_unless_it_counts_what_is_not_loaded(tensor, counted, tmp_path):
    index = {"metadata": {"total_size": 5000}, "weight_map": {tensor: "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert stored_bytes(tmp_path, layers=2) == counted


def test_towers_are_found_inside_what_thinks_and_by_their_names():
    """Qwen-Omni keeps decoder and towers one level deeper; NVIDIA's RADIO says no dimensions, but a name."""
    sound = {"d_model": 1280, "encoder_layers": 32, "encoder_ffn_dim": 5120}
    omni = {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": DENSE, "audio_config": sound}}
    assert present(of_mapping("m", "test", omni).encoder).weights == pytest.approx(32 * 19.66e6, rel=0.01)
    named = {"text_config": DENSE, "vision_config": {"args": {"model": "vit_huge_patch16_224"}}}
    assert present(of_mapping("m", "test", named).encoder).weights == 632_000_000


def test_a_field_of_chunks_alone_makes_no_layer_chunked():
    """MiMo-V2-Flash says one next to its windows."""
    windows = {"sliding_window": 128, "attention_chunk_size": 128, "hybrid_layer_pattern": [0, 1, 1, 1]}
    kinds = of_mapping("m", "test", {**DENSE, **windows}).kinds
    assert [layer.mixer for layer in kinds] == [Mixer.FULL] + [Mixer.WINDOWED] * 3
