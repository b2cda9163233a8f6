"""Layers that keep a state instead of a cache: Mamba, gated delta nets, linear attention, short convolutions.

The shapes of states were read in vLLM's ``model_executor/layers/mamba/mamba_utils.py``, those of weights in its models
(0.32.0).
"""

from collections.abc import Callable, Mapping, Sequence

from tuner.engines.vllm.model.numbers import HIDDEN, Raw, whole
from tuner.engines.vllm.model.parts import Recurrence

_BYTES: Mapping[str, float] = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
_FLOAT32 = 4.0


def state_of(raw: Raw) -> Recurrence | None:
    """The state of such layers; ``None`` where the fields that give its shape are not all there."""
    hidden = whole(raw, *HIDDEN)
    return next((state for kind in _KINDS if hidden and (state := kind(raw, hidden))), None)


def _delta_net(raw: Raw, hidden: int) -> Recurrence | None:
    """Qwen3-Next and its successors (``gdn_linear_attn.py``)."""
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    sizes = [whole(raw, f"linear_{name}") for name in names]
    if None in sizes:
        return None
    key_heads, value_heads, key_width, value_width = (size or 0 for size in sizes)
    keys, values = key_heads * key_width, value_heads * value_width
    kernel = whole(raw, "linear_conv_kernel_dim") or 4
    return Recurrence(
        names=("linear_attn.in_proj_qkvz", "linear_attn.in_proj_qkv"),
        weights=hidden * (2 * keys + 3 * values + 2 * value_heads) + (2 * keys + values) * kernel,
        conv=2 * keys + values,
        kept=kernel - 1,
        recurrent=value_heads * value_width * key_width,
        recurrent_bytes=_recurrent_bytes(raw),
    )


def _delta_attention(raw: Raw, hidden: int) -> Recurrence | None:
    """Kimi-Linear (``kda.py``)."""
    said = raw.get("linear_attn_config")
    inner = said if isinstance(said, dict) else {}
    heads = whole(inner, "num_heads") or whole(raw, "linear_num_heads")
    width = whole(inner, "head_dim") or whole(raw, "linear_head_dim")
    if not (heads and width):
        return None
    kernel = whole(inner, "short_conv_kernel_size") or whole(raw, "linear_conv_kernel_dim") or 4
    size = heads * width
    gates = 2 * (hidden * width + width * size)
    return Recurrence(
        names=("self_attn.q_proj",),
        weights=4 * hidden * size + gates + hidden * heads + 3 * size * kernel,
        conv=3 * size,
        kept=kernel - 1,
        recurrent=heads * width * width,
        recurrent_bytes=_FLOAT32,
    )


def _mamba2(raw: Raw, hidden: int) -> Recurrence | None:
    """Bamba, Granite 4, Nemotron-H, Falcon-H1, Zamba2 (``mamba_mixer2.py``)."""
    heads = whole(raw, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    inner = whole(raw, "mamba_d_ssm") or int((raw.get("mamba_expand") or raw.get("expand") or 2) * hidden)
    width = whole(raw, "mamba_head_dim", "mamba_d_head", "mamba_headdim") or (inner // heads if heads else None)
    size = whole(raw, "ssm_state_size", "mamba_d_state")
    if not (heads and width and size):
        return None
    groups = whole(raw, "n_groups", "mamba_n_groups", "mamba_ngroups") or 1
    kernel = whole(raw, "conv_kernel", "mamba_d_conv") or 4
    inner, shared = heads * width, 2 * groups * size
    default = _FLOAT32 if raw.get("model_type") == "nemotron_h" else None
    return Recurrence(
        names=("mixer.in_proj", "mamba.in_proj"),
        weights=hidden * (2 * inner + shared + heads) + (inner + shared) * kernel + inner * hidden,
        conv=inner + shared,
        kept=kernel - 1,
        shared=shared,
        groups=groups,
        recurrent=inner * size,
        recurrent_bytes=_recurrent_bytes(raw) or default,
    )


def _mamba1(raw: Raw, hidden: int) -> Recurrence | None:
    """Jamba (``mamba_mixer.py``)."""
    size, kernel = whole(raw, "mamba_d_state", "state_size"), whole(raw, "mamba_d_conv", "conv_kernel")
    if not (size and kernel):
        return None
    inner = int((raw.get("mamba_expand") or raw.get("expand") or 2) * hidden)
    rank = whole(raw, "mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
    return Recurrence(
        names=("mamba.in_proj",),
        weights=3 * hidden * inner + inner * (kernel + 2 * rank + 3 * size),
        conv=inner,
        kept=kernel - 1,
        recurrent=inner * size,
    )


def _lightning(raw: Raw, hidden: int) -> Recurrence | None:
    """MiniMax-Text-01 and M1 (``linear_attn.py``): queries, keys, values and an output gate; the state is float32."""
    heads, width = whole(raw, "num_attention_heads"), whole(raw, "head_dim")
    if not (heads and width and ("attn_type_list" in raw or raw.get("model_type") == "minimax")):
        return None
    return Recurrence(("self_attn.qkv_proj",), 5 * hidden * heads * width, 0, 0, heads * width * width, _FLOAT32)


def _short_convolution(raw: Raw, hidden: int) -> Recurrence | None:
    """LFM2 (``short_conv.py``)."""
    kernel = whole(raw, "conv_L_cache")
    width = whole(raw, "conv_dim") or hidden
    return Recurrence(("conv.in_proj",), 4 * hidden * width, width, kernel - 1, 0) if kernel else None


def _recurrent_bytes(raw: Raw) -> float | None:
    return _BYTES.get(str(raw.get("mamba_ssm_cache_dtype") or raw.get("mamba_ssm_dtype")))


_KINDS: Sequence[Callable[[Raw, int], Recurrence | None]] = (
    _delta_net,
    _delta_attention,
    _mamba2,
    _mamba1,
    _lightning,
    _short_convolution,
)
