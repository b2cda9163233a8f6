"""What a ``config.json`` leaves out because it is its kind's default: transformers writes differences only.

Older files of models with a tower lack half of their decoder. The numbers are those of the configuration classes in
transformers (4.57 and 5).
"""

from collections.abc import Mapping
from typing import Any

_LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma2": {"vocab_size": 256000, "head_dim": 256, "num_key_value_heads": 4, "max_position_embeddings": 8192},
    "gemma3_text": {
        **{"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        **{"max_position_embeddings": 131072, "sliding_window": 4096},
    },
    "gemma3n_text": {
        **{"vocab_size": 262400, "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256},
        **{"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32768},
    },
    "gemma4_text": {
        **{"vocab_size": 262144, "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256},
        **{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "global_head_dim": 512},
        **{"max_position_embeddings": 131072, "sliding_window": 512},
    },
    "llama": {**_LLAMA, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {
        **{**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
    },
    "qwen2": {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768},
    "qwen3_5_text": {"head_dim": 256},
    "qwen3_5_moe_text": {"head_dim": 256},
    "qwen3_next": {"head_dim": 256},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128},
    "glm_moe_dsa": {"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 32},
    "llama4_text": {"no_rope_layers": [], "attention_chunk_size": 8192, "head_dim": 128},
    "phi3": {"num_key_value_heads": 32},
}


def completed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a file with its kind's defaults filled in."""
    return {**_DEFAULTS.get(str(raw.get("model_type")), {}), **_of_layers(raw), **raw}


def _of_layers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers 5 says of Gemma 4's full layers one by one, as the files before it have it."""
    each = raw.get("per_layer_config")
    if not isinstance(each, dict) or not each:
        return {}
    first = next(iter(each.values()))
    renamed = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    return {renamed[key]: value for key, value in first.items() if key in renamed}
