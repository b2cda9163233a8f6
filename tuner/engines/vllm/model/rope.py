"""The longest context, which rotary scaling stretches (``config/model.py::_get_and_verify_max_len``)."""

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.engines.vllm.model.numbers import POSITIONS, Raw, whole

_KEPT_LENGTH = (None, "default", "llama3", "su", "longrope", "mrope", "proportional")
"""Kinds of rotary scaling that leave the length as it is."""
_YARN = ("yarn", "deepseek_yarn", "deepseek_llama_scaling")
_SCALED_ALREADY = "gemma3"
"""Kinds of models whose length counts the scaling already."""


def max_positions(raw: Raw) -> int | None:
    """The length that vLLM derives; of two that versions derive the longer, so that nothing is refused wrongly."""
    length = whole(raw, *POSITIONS)
    if length is None or _SCALED_ALREADY in str(raw.get("model_type")):
        return length
    return max([length, *(_scaled(length, each) for each in _scalings(raw))])


def _scalings(raw: Raw) -> Sequence[Mapping[str, Any]]:
    """One for all layers, or one for each kind of them."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling")
    if not isinstance(scaling, dict):
        return []
    inner = [each for each in scaling.values() if isinstance(each, dict)]
    return inner or [scaling]


def _scaled(length: int, scaling: Mapping[str, Any]) -> int:
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind in _KEPT_LENGTH or not isinstance(factor, int | float):
        return length
    if kind in _YARN:
        length = whole(scaling, "original_max_position_embeddings") or length
    return int(length * factor)
