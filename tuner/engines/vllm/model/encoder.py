"""Towers for images and sound: weights by their dimensions, and what they turn into tokens.

A transformer's layer has four square matrices and an MLP; the projector reads the merged patches. Norms, biases and
position tables are left out: a tower is a fiftieth of a model, and its size here is within a few percent.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuner.engines.vllm.model.numbers import Raw, whole
from tuner.engines.vllm.model.parts import Encoder

_TOWERS = ("vision_config", "audio_config", "sound_config", "vit_config")
_DEPTHS = ("depth", "num_hidden_layers", "layers", "encoder_layers", "vt_num_hidden_layers", "conf_num_hidden_layers")
_MILLIONS = {"vit_huge": 632, "so400m": 428, "clip-l": 304, "sam_vit_b": 96}
"""Millions of weights of towers that files only name."""
_GATED = ("silu", "swish")
_GATED_KINDS = ("pixtral", "qwen2_5_vl", "gemma4_vision")
_DYNAMIC_TOKENS = 16384
"""Tokens of the largest image where its size is not fixed: 12.8 million pixels (Qwen's processors)."""
_FILMED, _FRAMES = ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni"), 7
"""Kinds of models that are profiled with a film of 14 frames, of which two are one (``qwen2_vl.py``)."""
_DYNAMIC = ("qwen", "glm4v", "glm4_6v", "keye", "kimi_k25", "dots")


def encoder_of(raw: Raw, hidden: int) -> Encoder | None:
    """Every tower of a model whose decoder is so wide; ``None`` where dimensions are missing."""
    towers = [raw[key] for key in _TOWERS if isinstance(raw.get(key), dict) and raw[key]]
    found = [_tower(tower, raw, hidden) for tower in towers]
    read = [each for each in found if each is not None]
    if not read or len(read) < len(found):
        return None
    first = read[0]
    return replace(first, weights=sum(each.weights for each in read))


def speaks_of_one(raw: Raw) -> bool:
    """Whether there is a tower at all."""
    return any(raw.get(key) for key in (*_TOWERS, "vision_tower", "mm_vision_tower", "visual"))


def _tower(tower: Mapping[str, Any], raw: Raw, hidden: int) -> Encoder | None:
    width = whole(tower, "embed_dim", "hidden_size", "width", "d_model", "vt_hidden_size")
    depth = whole(tower, *_DEPTHS)
    if (weights := _by_name(tower)) is not None:
        return Encoder(weights, width or hidden, width or hidden, 0, 1, _tokens(raw))
    if not (width and depth):
        return None
    inner = _inner(tower, width)
    gated = tower.get("hidden_act") in _GATED or str(tower.get("model_type")).startswith(_GATED_KINDS)
    layer = 4 * width * width + (3 if gated else 2) * width * inner
    joined, pooled = _joined(tower, raw), _pooled(tower, raw)
    mergers = 1 + len(tower.get("deepstack_visual_indexes") or ())
    projector = mergers * (joined * width) * (min(joined * width, hidden) + hidden)
    frames = _FRAMES if str(raw.get("model_type")).startswith(_FILMED) else 1
    weights, merged = depth * layer + projector, joined * pooled
    return Encoder(weights, width, inner, _pixels(tower), merged, _tokens(raw), frames, mergers)


def _joined(tower: Mapping[str, Any], raw: Raw) -> int:
    """Patches that the projector reads as one."""
    kernel = tower.get("merge_kernel_size")
    side = kernel[0] if isinstance(kernel, list) and kernel else None
    side = side or whole(tower, "spatial_merge_size") or whole(raw, "spatial_merge_size")
    ratio = raw.get("downsample_ratio") or tower.get("pixel_shuffle_ratio")
    return (side or (round(1 / ratio) if isinstance(ratio, float) else 1)) ** 2


def _pooled(tower: Mapping[str, Any], raw: Raw) -> int:
    """Patches whose average is one: a square, or what a fixed number of tokens makes of an image."""
    if (side := whole(tower, "pooling_kernel_size")) is not None:
        return side * side
    image, patch, tokens = whole(tower, "image_size"), whole(tower, "patch_size"), whole(raw, "mm_tokens_per_image")
    return max(1, (image // patch) ** 2 // tokens) if image and patch and tokens else 1


def _pixels(tower: Mapping[str, Any]) -> int:
    """Three colours of a square, of two frames where the tower sees films."""
    dynamic = str(tower.get("model_type")).startswith(_DYNAMIC)
    frames = whole(tower, "temporal_patch_size") or (2 if dynamic else 1)
    return 3 * frames * (whole(tower, "patch_size") or 0) ** 2


def _by_name(tower: Mapping[str, Any]) -> int | None:
    """Weights that a tower's name tells, ``mobilenetv5_300m_enc``; without dimensions, the names inside it."""
    named = re.search(r"_(\d+)m(?:_|$)", str(tower.get("architecture")))
    if named:
        return int(named[1]) * 10**6
    inside = sum(weights for name, weights in _MILLIONS.items() if name in str(tower))
    return inside * 10**6 if inside and whole(tower, *_DEPTHS) is None else None


def _inner(tower: Mapping[str, Any], width: int) -> int:
    ratio = tower.get("mlp_ratio")
    said = whole(tower, "intermediate_size", "encoder_ffn_dim", "vt_intermediate_size")
    return said or int(width * (ratio if isinstance(ratio, int | float) else 4))


def _tokens(raw: Raw) -> int:
    said = whole(raw, "mm_tokens_per_image", "vision_soft_tokens_per_image", "image_seq_length")
    dynamic = str(raw.get("model_type")).startswith(_DYNAMIC)
    return said or (_DYNAMIC_TOKENS if dynamic else 0)
