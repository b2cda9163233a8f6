"""The heads of a decoder's attention layers, and the rank of a latent."""

from tuner.engines.vllm.model.numbers import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, Raw, whole
from tuner.engines.vllm.model.parts import Heads, Mla

_GATED = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "afmoe")
"""Kinds of models whose queries come with an output gate as wide, unless they say otherwise."""
_INDEXER_SCALES = 4
"""Bytes of scale that a sparse attention's indexer caches next to its eight-bit keys (``deepseek_v2.py``)."""


def heads_of(raw: Raw) -> Heads | None:
    """The heads of layers that see all tokens; ``None`` where a number is missing."""
    queries, hidden = whole(raw, *HEADS), whole(raw, *HIDDEN)
    width = whole(raw, "global_head_dim", *HEAD_DIM) or (hidden // queries if hidden and queries else None)
    if not (queries and width):
        return None
    shared = bool(raw.get("attention_k_eq_v"))
    keys = (whole(raw, "num_global_key_value_heads") if shared else None) or _keys(raw, queries)
    return _heads(raw, queries, keys, width, whole(raw, "v_head_dim"), values=not shared)


def windowed_heads_of(raw: Raw) -> Heads | None:
    """The heads of windowed layers, which some models give others."""
    others = raw.get("attention_other_setting")
    inner = {**raw, **others} if isinstance(others, dict) else raw
    queries, hidden = whole(inner, "swa_num_attention_heads", *HEADS), whole(raw, *HIDDEN)
    width = whole(inner, "swa_head_dim", *HEAD_DIM) or (hidden // queries if hidden and queries else None)
    if not (queries and width):
        return None
    keys = whole(inner, "swa_num_key_value_heads") or _keys(inner, queries)
    return _heads(raw, queries, keys, width, whole(inner, "swa_v_head_dim", "v_head_dim"))


def _heads(raw: Raw, queries: int, keys: int, width: int, value_width: int | None, values: bool = True) -> Heads:
    gated = raw.get("attn_output_gate", raw.get("model_type") in _GATED)
    value_width = width if value_width is None or whole(raw, "kv_lora_rank") else value_width
    return Heads(queries, keys, width, value_width, 2 if gated else 1, values)


def _keys(raw: Raw, queries: int) -> int:
    """Falcon and its contemporaries say by a switch that there is one head of keys."""
    said = whole(raw, *KV_HEADS) or whole(raw, "num_attention_groups")
    attention = raw.get("attn_config")
    said = said or (whole(attention, "kv_n_heads") if isinstance(attention, dict) else None)
    return said or (1 if raw.get("multi_query") else queries)


def mla_of(raw: Raw) -> Mla | None:
    """Latent attention."""
    kv_rank, rope, v = (whole(raw, key) for key in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim"))
    nope = raw.get("qk_nope_head_dim")
    if not (kv_rank and rope and v and isinstance(nope, int)):
        return None
    q_rank, hidden, width = whole(raw, "q_lora_rank"), whole(raw, *HIDDEN) or 0, whole(raw, "index_head_dim")
    if not width or not raw.get("index_topk"):
        return Mla(q_rank, kv_rank, nope, rope, v)
    indexers = whole(raw, "index_n_heads") or 0
    weights = (q_rank or hidden) * indexers * width + hidden * (width + indexers)
    share = _indexing(raw)
    return Mla(q_rank, kv_rank, nope, rope, v, weights * share, (width + _INDEXER_SCALES) * share)


def _indexing(raw: Raw) -> float:
    """The share of layers that have an indexer of their own; others use an earlier layer's."""
    kinds = raw.get("indexer_types")
    return sum(kind == "full" for kind in kinds) / len(kinds) if isinstance(kinds, list) and kinds else 1.0
