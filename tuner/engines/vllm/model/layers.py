"""Which layers of a decoder attend to what, and which have experts: as many dialects as there are authors.

The fields were read in vLLM's models (0.32.0). Where none of them is there, every layer attends to all tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tuner.engines.vllm.model.experts import experts_of
from tuner.engines.vllm.model.numbers import HIDDEN, INTERMEDIATE, LAYERS, Raw, listed, whole, whole_numbers
from tuner.engines.vllm.model.parts import Feed, Layer, Mixer
from tuner.engines.vllm.model.state import state_of

Mixers = Sequence[Mixer]

_LETTERS = {
    "M": Layer(Mixer.STATE, Feed.NONE),
    "*": Layer(Mixer.FULL, Feed.NONE),
    "-": Layer(Mixer.NONE, Feed.MLP),
    "E": Layer(Mixer.NONE, Feed.EXPERTS),
}
_BLOCKS = {
    **dict.fromkeys(("mamba", "linear_attention"), _LETTERS["M"]),
    **dict.fromkeys(("attention", "full_attention"), _LETTERS["*"]),
    "mlp": _LETTERS["-"],
    "moe": _LETTERS["E"],
}
"""Nemotron-H: a layer either mixes tokens or treats each."""
_MIXERS = {
    **dict.fromkeys(("full_attention", "attention", "global", "global_attention", "full"), Mixer.FULL),
    **dict.fromkeys(("deepseek_sparse_attention", "sparse_attention", "indexed_attention"), Mixer.FULL),
    **dict.fromkeys(("sliding_attention", "sliding_window", "sliding", "local", "local_attention"), Mixer.WINDOWED),
    **dict.fromkeys(("chunked_attention", "chunked"), Mixer.CHUNKED),
    **dict.fromkeys(("linear_attention", "mamba", "mamba2", "conv", "recurrent", "kda", "gdn"), Mixer.STATE),
    "hybrid": Mixer.BOTH,
}
_EVERY_NTH_FULL = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Kinds of models whose every so many-th layer is not windowed, though an older ``config.json`` does not say so."""
_PARALLEL = ("falcon_h1",)
"""Kinds of models whose every layer has attention and a state next to each other."""
_WINDOWS = ("sliding_window", "sliding_window_size")


def layers_of(raw: Raw) -> tuple[Layer, ...] | None:
    """Every layer; ``None`` where a layer's kind has a name that is not known here."""
    count = count_of(raw)
    if count is None:
        return None
    if (alone := _single(raw)) is not None:
        return alone if len(alone) == count else None
    mixers = _mixers(raw, count)
    if mixers is None or len(mixers) != count:
        return None
    feeds, widths, shared = _feeds(raw, count), _widths(raw, count), _sharing(raw, count)
    return tuple(
        Layer(mixer, Feed.NONE if width == 0 else feed, width, index < shared)
        for index, (mixer, feed, width) in enumerate(zip(mixers, feeds, widths, strict=True))
    )


def count_of(raw: Raw) -> int | None:
    """How many there are, by number or by list."""
    return whole(raw, *LAYERS) or listed(raw, "hybrid_override_pattern", "layers_block_type", "layer_types")


def window_of(raw: Raw) -> int | None:
    """How many tokens windowed layers, or those that attend within chunks, look back."""
    return whole(raw, *_WINDOWS) or whole(raw, "attention_chunk_size")


def _single(raw: Raw) -> tuple[Layer, ...] | None:
    """Layers that do one thing each."""
    pattern, blocks = raw.get("hybrid_override_pattern"), raw.get("layers_block_type")
    if isinstance(pattern, str):
        return _each(_LETTERS, pattern.replace("|", ""))
    single = raw.get("model_type") == "nemotron_h" and isinstance(blocks, list)
    return _each(_BLOCKS, blocks) if single and isinstance(blocks, list) else None


def _each(names: Mapping[str, Layer], listed: Iterable[Any]) -> tuple[Layer, ...]:
    return tuple(names[name] for name in listed if name in names)


def _mixers(raw: Raw, count: int) -> Mixers | None:
    """By the first dialect that the file speaks."""
    for dialect in _DIALECTS:
        if (mixers := dialect(raw, count)) is not None:
            return mixers
    if state_of(raw) is not None:
        return [Mixer.BOTH] * count if raw.get("model_type") in _PARALLEL else None
    return [Mixer.FULL] * count


def _named(raw: Raw, count: int) -> Mixers | None:
    names = raw.get("layer_types") or raw.get("layers_block_type")
    if not isinstance(names, list):
        return None
    mixers = [mixer for name in names[:count] if (mixer := _MIXERS.get(str(name)))]
    windowed = whole(raw, *_WINDOWS) is not None and raw.get("use_sliding_window") is not False
    return mixers if windowed else [Mixer.FULL if mixer is Mixer.WINDOWED else mixer for mixer in mixers]


def _blocks(raw: Raw, count: int) -> Mixers | None:
    """Layers that a search for architectures has left attention in, or not (``nemotron_nas.py``)."""
    blocks = raw.get("block_configs")
    if not isinstance(blocks, list):
        return None
    attentions = [block.get("attention") or {} for block in blocks]
    if any(each.get("replace_with_linear") for each in attentions):
        return []
    return [Mixer.NONE if each.get("no_op") else Mixer.FULL for each in attentions]


def _typed(raw: Raw, count: int) -> Mixers | None:
    kinds = whole_numbers(raw, "attn_type_list")
    return [Mixer.FULL if kind else Mixer.STATE for kind in kinds[:count]] if kinds else None


def _linear(raw: Raw, count: int) -> Mixers | None:
    """Layers are counted from 1."""
    inner = raw.get("linear_attn_config")
    full = inner.get("full_attn_layers") if isinstance(inner, dict) else None
    return [Mixer.FULL if n in full else Mixer.STATE for n in range(1, count + 1)] if isinstance(full, list) else None


def _interval(raw: Raw, count: int) -> Mixers | None:
    interval = whole(raw, "full_attention_interval", "layer_group_size")
    return [Mixer.FULL if (n + 1) % interval == 0 else Mixer.STATE for n in range(count)] if interval else None


def _period(raw: Raw, count: int) -> Mixers | None:
    period, offset = whole(raw, "attn_layer_period"), raw.get("attn_layer_offset") or 0
    return [Mixer.FULL if n % period == offset else Mixer.STATE for n in range(count)] if period else None


def _indices(raw: Raw, count: int) -> Mixers | None:
    full = whole_numbers(raw, "full_attn_idxs", "attn_layer_indices")
    return [Mixer.FULL if n in full else Mixer.STATE for n in range(count)] if full else None


def _windowed(raw: Raw, count: int) -> Mixers | None:
    if whole(raw, *_WINDOWS) is None or raw.get("use_sliding_window") is False:
        return None
    marked = whole_numbers(raw, "hybrid_layer_pattern")
    if marked:
        return [Mixer.WINDOWED if mark else Mixer.FULL for mark in marked[:count]]
    pattern = whole(raw, "sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
    pattern = pattern or _EVERY_NTH_FULL.get(str(raw.get("model_type")))
    first = whole(raw, "max_window_layers") or 0
    if pattern:
        return [Mixer.FULL if (n + 1) % pattern == 0 else Mixer.WINDOWED for n in range(count)]
    return [Mixer.WINDOWED if n >= first or raw.get("model_type") == "mistral" else Mixer.FULL for n in range(count)]


def _chunked(raw: Raw, count: int) -> Mixers | None:
    """Layers without rotary embedding see all tokens (``models/llama4.py``)."""
    if whole(raw, "attention_chunk_size") is None or "no_rope_layers" not in raw:
        return None
    rotary = raw.get("no_rope_layers")
    marks = rotary if isinstance(rotary, list) and rotary else [(n + 1) % 4 for n in range(count)]
    return [Mixer.CHUNKED if mark else Mixer.FULL for mark in marks[:count]]


_DIALECTS: Sequence[Callable[[Raw, int], Mixers | None]] = (
    _chunked,
    _named,
    _blocks,
    _typed,
    _linear,
    _interval,
    _period,
    _indices,
    _windowed,
)


def _feeds(raw: Raw, count: int) -> Sequence[Feed]:
    if experts_of(raw) is None:
        return [Feed.MLP] * count
    with_experts = _with_experts(raw, count)
    both = Feed.BOTH if raw.get("enable_moe_block") else Feed.EXPERTS
    return [both if n in with_experts else Feed.MLP for n in range(count)]


def _with_experts(raw: Raw, count: int) -> frozenset[int]:
    """The layers that have experts: listed, or all from some layer on at some interval."""
    if (marked := _listed_experts(raw)) is not None:
        return marked
    first = whole(raw, "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "n_dense_layers") or 0
    last = raw.get("moe_layer_end_index")
    last = last if isinstance(last, int) and last >= 0 else count - 1
    step, at = _every(raw)
    dense = set(whole_numbers(raw, "mlp_only_layers") or ())
    return frozenset(n for n in range(first, last + 1) if n % step == at and n not in dense)


def _listed_experts(raw: Raw) -> frozenset[int] | None:
    marks = whole_numbers(raw, "moe_layer_freq")
    if marks and len(marks) > 1:
        return frozenset(n for n, mark in enumerate(marks) if mark)
    kinds = raw.get("mlp_layer_types")
    if isinstance(kinds, list) and kinds:
        return frozenset(n for n, kind in enumerate(kinds) if kind != "dense")
    named = raw.get("moe_layers_enum")
    if isinstance(named, str) and named:
        return frozenset(int(part) for part in named.split(",") if part.strip().isdigit())
    layers = raw.get("moe_layers")
    return frozenset(layers) if isinstance(layers, list) and layers else None


def _every(raw: Raw) -> tuple[int, int]:
    """Every so many-th layer, and which of them: the last, unless an offset says otherwise."""
    if (period := whole(raw, "expert_layer_period")) is not None:
        return period, int(raw.get("expert_layer_offset") or 0)
    step = whole(raw, "decoder_sparse_step", "moe_layer_interval", "interleave_moe_layer_step") or 1
    if (frequency := whole(raw, "moe_layer_freq")) is not None:
        return frequency, 0
    return step, step - 1


def _widths(raw: Raw, count: int) -> Sequence[int | None]:
    """Each layer's MLP width, where they differ; ``None`` for the model's own."""
    blocks = raw.get("block_configs")
    if isinstance(blocks, list) and len(blocks) == count:
        return [_searched_width(raw, block.get("ffn") or {}) for block in blocks]
    each = whole_numbers(raw, "intermediate_size")
    if each and len(each) == count:
        return each
    width, doubled = whole(raw, *INTERMEDIATE), whole(raw, "num_kv_shared_layers") or 0
    if width and raw.get("use_double_wide_mlp"):
        return [2 * width if n >= count - doubled else None for n in range(count)]
    return [None] * count


def _searched_width(raw: Raw, block: Mapping[str, Any]) -> int:
    """``nemotron_nas.py``: two thirds of so many hidden widths, rounded up to 256."""
    if block.get("no_op"):
        return 0
    width = int(2 * float(block.get("ffn_mult") or 0) * (whole(raw, *HIDDEN) or 0) / 3)
    return -(-width // 256) * 256


def _sharing(raw: Raw, count: int) -> int:
    """The layer from which on an earlier layer's cache is used."""
    return count - (whole(raw, "num_kv_shared_layers") or 0)
