"""Numbers of a ``config.json`` under the names that its authors gave them."""

from collections.abc import Mapping
from typing import Any

Raw = Mapping[str, Any]


def whole(raw: Raw, *keys: str) -> int | None:
    """The first of these fields that is a positive whole number; a list of equal numbers counts as one."""
    for key in keys:
        value = raw.get(key)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def whole_numbers(raw: Raw, *keys: str) -> tuple[int, ...] | None:
    """The first of these fields that is a list of whole numbers."""
    for key in keys:
        value = raw.get(key)
        if isinstance(value, list) and value and all(type(each) is int for each in value):
            return tuple(value)
    return None


def listed(raw: Raw, *keys: str) -> int | None:
    """How many entries the first of these fields has, a list or a word with a letter for each."""
    return next((len(value) for key in keys if isinstance(value := raw.get(key), list | str) and value), None)


LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head")
INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "block_ff_dim")
POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length"),
    *("max_seq_length", "seq_len", "model_max_length"),
)
VOCAB = ("vocab_size", "padded_vocab_size")
