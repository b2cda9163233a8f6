"""How a checkpoint's weights are quantized: how many bytes a weight takes, and which modules are left as they are.

Read from ``quantization_config`` in ``config.json``, in the dialects of AWQ, GPTQ, FP8 and compressed-tensors. A
dialect that is not known here gives ``bits=None``, and then weights cannot be predicted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SCALE_BYTES = 2.0
_NEVER = ("embed_tokens", "lm_head", "norm", "gate")
"""Modules that these dialects leave alone unless they say otherwise: embeddings, output head, norms, routers."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """One quantization.

    Attributes:
        method: As the file names it, ``awq``.
        bits: Bits of a weight; ``None`` where this dialect is not known.
        group_size: Weights that share a scale; ``None`` for one scale a channel or tensor.
        zero_point: Whether each group has a zero of ``bits`` bits besides.
        skipped: Names, parts of names, or ``re:`` patterns of modules that are not quantized.
    """

    method: str
    bits: int | None
    group_size: int | None = None
    zero_point: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def weight_bytes(self) -> float | None:
        """Bytes of one quantized weight, its share of scale and zero included."""
        if self.bits is None:
            return None
        whole = self.bits / 8
        if self.group_size is None:
            return whole
        return whole + (_SCALE_BYTES + (self.bits / 8 if self.zero_point else 0.0)) / self.group_size

    def covers(self, module: str) -> bool:
        """Whether a module, by its full name such as ``model.layers.3.mlp.experts.0.up_proj``, is quantized."""
        if any(part in _NEVER or part.endswith("norm") for part in module.split(".")):
            return False
        return not any(_names(pattern, module) for pattern in self.skipped)


def of_config(raw: object) -> Quantization | None:
    """The quantization in a ``quantization_config``; ``None`` if there is none."""
    if not isinstance(raw, Mapping) or not raw:
        return None
    method = str(raw.get("quant_method") or raw.get("quant_algo") or "unknown").lower()
    skipped = _skipped(raw)
    if method in ("awq", "gptq", "auto-round", "autoawq") and "dynamic" not in raw:
        bits, group = raw.get("bits", raw.get("w_bit")), raw.get("group_size", raw.get("q_group_size"))
        zero = bool(raw.get("zero_point", not raw.get("sym", True)))
        return Quantization(method, _bits(bits), _group(group), zero, skipped)
    if method in ("fp8", "fbgemm_fp8"):
        return Quantization(method, 8, None, False, skipped)
    if method == "compressed-tensors":
        return _compressed(raw, skipped)
    return Quantization(method, None, skipped=skipped)


def _compressed(raw: Mapping[str, Any], skipped: Sequence[str]) -> Quantization:
    """One group of weights for all linear layers; several groups with different weights are not predicted."""
    groups = [group.get("weights") or {} for group in (raw.get("config_groups") or {}).values()]
    shapes = {(group.get("num_bits"), group.get("group_size"), group.get("symmetric", True)) for group in groups}
    if len(shapes) != 1:
        return Quantization("compressed-tensors", None, skipped=tuple(skipped))
    bits, size, symmetric = shapes.pop()
    return Quantization("compressed-tensors", _bits(bits), _group(size), not symmetric, tuple(skipped))


def _skipped(raw: Mapping[str, Any]) -> tuple[str, ...]:
    lists = [raw.get(key) for key in ("modules_to_not_convert", "ignored_layers", "ignore")]
    return tuple(str(name) for names in lists if isinstance(names, list) for name in names)


def _bits(value: object) -> int | None:
    return value if isinstance(value, int) and value in (2, 3, 4, 8) else None


def _group(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _names(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return re.search(rf"(?:^|\.){re.escape(pattern)}(?:\.|$)", module) is not None
