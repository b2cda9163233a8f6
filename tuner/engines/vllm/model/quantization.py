"""How a checkpoint's weights are quantized: how many bytes a weight takes, and which modules are left as they are.

Read from ``quantization_config`` in ``config.json``, in the dialects of AWQ, GPTQ, FP8, compressed-tensors, ModelOpt,
MXFP4 and bitsandbytes. A dialect that is not known here gives no format, and then weights cannot be predicted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_NEVER = ("embed_tokens", "lm_head", "norm", "gate", "router")
"""Modules that these dialects leave alone unless they say otherwise: embeddings, output head, norms, routers."""
_INTEGER = ("awq", "gptq", "auto-round", "autoawq", "intel/auto-round")
_ALIASES = {
    **dict.fromkeys(("awq", "autoawq", "awq_marlin"), "awq"),
    **dict.fromkeys(("gptq", "gptq_marlin"), "gptq"),
    **dict.fromkeys(("auto-round", "auto_round", "inc"), "auto-round"),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8"), "modelopt"),
    **dict.fromkeys(("mxfp4", "gpt_oss_mxfp4"), "mxfp4"),
    **dict.fromkeys(("fp8", "fbgemm_fp8", "deepseek_v3_fp8"), "fp8"),
}
_WHOLE_BITS = 16
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:model|language_model|backbone|llm|text_model|transformer)\.")


@dataclass(frozen=True, slots=True)
class Format:
    """How one weight is stored.

    Attributes:
        bits: Its bits.
        group: Weights that share a scale; ``None`` for one scale a channel or tensor.
        scale_bytes: That scale.
        zero_point: Whether each group has a zero of ``bits`` bits as well.
        block: Rows and columns that share a scale, where they are a square.
    """

    bits: int
    group: int | None = None
    scale_bytes: float = 2.0
    zero_point: bool = False
    block: int | None = None

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight, its share of scale and zero included."""
        whole = self.bits / 8
        if self.group is None:
            return whole
        return whole + (self.scale_bytes + (whole if self.zero_point else 0.0)) / self.group


@dataclass(frozen=True, slots=True)
class Quantization:
    """One quantization.

    Attributes:
        method: As the file names it, ``awq``.
        formats: The formats and the modules that each is for; empty where this dialect is not known.
        skipped: Names, parts of names, or patterns of modules that are not quantized.
        cache_bytes: Bytes of a cached number that the checkpoint asks for; ``None`` where it does not.
    """

    method: str
    formats: tuple[tuple[str, Format], ...] = field(default=(), hash=False)
    skipped: tuple[str, ...] = field(default=(), hash=False)
    cache_bytes: float | None = None

    @property
    def format(self) -> Format | None:
        """The format of most modules; ``None`` where this dialect is not known."""
        return self.formats[-1][1] if self.formats else None

    def of_module(self, *names: str) -> Format | None:
        """The format of a module, by the names that checkpoints give it; ``None`` where it is left as it is.

        A name is full, such as ``model.layers.3.mlp.experts.0.up_proj``.
        """
        if any(part in _NEVER or part.endswith("norm") for name in names for part in name.split(".")):
            return None
        whole, patterns = _sorted(self.skipped)
        if any(not whole.isdisjoint(_parts(name)) for name in names):
            return None
        if any(_names(pattern, name) for pattern in patterns for name in names):
            return None
        return next((each for target, each in self.formats if any(_names(target, name) for name in names)), None)

    def same_as(self, asked: str) -> bool:
        """Whether a flag names this quantization."""
        return _ALIASES.get(asked, asked) == _ALIASES.get(self.method, self.method)


def of_config(raw: object) -> Quantization | None:
    """The quantization in a ``quantization_config``; ``None`` if there is none."""
    if not isinstance(raw, Mapping) or not raw:
        return None
    inner = raw.get("quantization")
    raw = {**raw, **inner} if isinstance(inner, Mapping) else raw
    method = str(raw.get("quant_method") or raw.get("quant_algo") or "unknown").lower()
    return Quantization(method, tuple(_formats(method, raw)), _skipped(raw), _cache_bytes(raw))


def online(asked: str) -> Quantization | None:
    """What a flag makes of a checkpoint that is not quantized."""
    return Quantization(asked, (("*", Format(8)),)) if asked == "fp8" else None


def _formats(method: str, raw: Mapping[str, Any]) -> Iterator[tuple[str, Format]]:
    if method in _INTEGER:
        return _with_exceptions(raw, _integer(raw))
    if method in ("fp8", "fbgemm_fp8"):
        block = raw.get("weight_block_size")
        return _all(Format(8, block=block[0] if isinstance(block, list) and block else None))
    if method == "mxfp4":
        return _all(Format(4, 32, 1.0))
    if method == "bitsandbytes":
        return _all(Format(4, 64, 4.0) if raw.get("load_in_4bit") or raw.get("_load_in_4bit") else Format(8))
    if method == "compressed-tensors" or raw.get("config_groups"):
        return _compressed(raw)
    return _optimized(raw)


def _with_exceptions(raw: Mapping[str, Any], usual: Format | None) -> Iterator[tuple[str, Format]]:
    """Modules with bits of their own, as AutoRound and GPTQModel list them; those of 16 bits are ``skipped``."""
    for name, each in _exceptions(raw):
        one = _integer({**raw, **each})
        if usual is not None and one is not None:
            yield name, one
    yield from _all(usual)


def _exceptions(raw: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Patterns of modules, and what is said of them; nothing for those that are left as they are."""
    for name, each in (raw.get("extra_config") or {}).items():
        yield f"re:{name}" if "*" in name else name, each if isinstance(each, Mapping) else {}
    for name, each in (raw.get("dynamic") or {}).items():
        yield f"re:.*{name.removeprefix('+:').removeprefix('-:')}", {} if name.startswith("-:") else each or {}


def _all(one: Format | None) -> Iterator[tuple[str, Format]]:
    return iter(()) if one is None else iter((("*", one),))


def _integer(raw: Mapping[str, Any]) -> Format | None:
    bits, group = raw.get("bits", raw.get("w_bit")), raw.get("group_size", raw.get("q_group_size"))
    if bits not in (2, 3, 4, 8):
        return None
    return Format(bits, _group(group), zero_point=bool(raw.get("zero_point", not raw.get("sym", True))))


def _compressed(raw: Mapping[str, Any]) -> Iterator[tuple[str, Format]]:
    """Each group's targets; what is for all linear layers comes last."""
    groups = (raw.get("config_groups") or {}).values()
    found = [(group.get("targets") or ["Linear"], _weights(group.get("weights") or {})) for group in groups]
    if any(one is None for _, one in found):
        return
    pairs = [(str(target), one) for targets, one in found for target in targets if one]
    yield from (pair for pair in pairs if pair[0] != "Linear")
    yield from (("*", one) for target, one in pairs if target == "Linear")


def _weights(weights: Mapping[str, Any]) -> Format | None:
    """Four-bit floats have a scale of one byte for 16 weights, or for 32 as microscaling has it."""
    bits, group = weights.get("num_bits"), _group(weights.get("group_size"))
    if bits not in (2, 3, 4, 8):
        return None
    narrow = weights.get("type") == "float" and group is not None and group <= 32
    block = weights.get("block_structure")
    square = block[0] if isinstance(block, list) and block else None
    return Format(bits, group, 1.0 if narrow else 2.0, not weights.get("symmetric", True), square)


def _optimized(raw: Mapping[str, Any]) -> Iterator[tuple[str, Format]]:
    """ModelOpt: one algorithm for all, or one for each layer."""
    layers = raw.get("quantized_layers")
    if isinstance(layers, Mapping):
        for name, each in layers.items():
            if one := _algorithm(each):
                yield str(name), one
        return
    if one := _algorithm(raw):
        yield "*", one


def _algorithm(raw: Mapping[str, Any]) -> Format | None:
    name = str(raw.get("quant_algo") or "").upper()
    if "FP4" in name and "MX" not in name:
        return Format(4, _group(raw.get("group_size")) or 16, 1.0)
    if "MXFP4" in name:
        return Format(4, 32, 1.0)
    if "MXFP8" in name:
        return Format(8, 32, 1.0)
    return Format(8) if "FP8" in name or "INT8" in name else None


def _skipped(raw: Mapping[str, Any]) -> tuple[str, ...]:
    lists = [raw.get(key) for key in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")]
    lists.append(raw.get("llm_int8_skip_modules"))
    whole = [name for name, each in _exceptions(raw) if each.get("bits", _WHOLE_BITS) == _WHOLE_BITS]
    return (*(str(name) for names in lists if isinstance(names, list) for name in names), *whole)


def _cache_bytes(raw: Mapping[str, Any]) -> float | None:
    """An eight-bit cache that comes with the checkpoint's own scales."""
    scheme = raw.get("kv_cache_scheme")
    bits = scheme.get("num_bits") if isinstance(scheme, Mapping) else None
    return 1.0 if bits == 8 or str(raw.get("kv_cache_quant_algo") or "").upper() == "FP8" else None


def _group(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


@cache
def _sorted(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Whole names, of which checkpoints list thousands, and patterns, of which they list a few."""
    patterns = tuple(name for name in names if name.startswith("re:") or "*" in name)
    return frozenset(_bare(name) for name in names if name not in patterns), patterns


@cache
def _parts(module: str) -> frozenset[str]:
    """Every run of a module's name that a whole name may stand for."""
    words = _bare(module).split(".")
    ends = range(1, len(words) + 1)
    return frozenset(".".join(words[start:end]) for end in ends for start in range(end))


def _names(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return any(re.match(pattern[3:], each) is not None for each in (module, _bare(module)))
    return _expression(_bare(pattern)).search(_bare(module)) is not None


@cache
def _bare(name: str) -> str:
    """Without what a name begins with in models that have a tower."""
    return _WRAPPERS.sub("", name)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts: Sequence[str] = [re.escape(part) for part in pattern.split("*")]
    return re.compile(rf"(?:^|\.){'.*'.join(parts)}(?:\.|$)")
