"""What settings ask of a llama.cpp server, with its defaults filled in.

Defaults were read in ``common/common.h`` (August 2025). What a build chooses by itself is ``None``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tuner.engines.llamacpp.commandline import canonical
from tuner.engines.llamacpp.gguf import GgufModel
from tuner.space import Settings

OFF = (False, "off", "disabled", "0", "false", 0)
UNPREDICTABLE: Mapping[str, str] = {
    "model_draft": "a draft model",
    "hf_repo_draft": "a draft model",
    "mmproj": "a projector",
    "lora": "adapters",
    "override_tensor": "tensors placed by hand",
    "cpu_moe": "experts on the host",
    "n_cpu_moe": "experts on the host",
    "device": "devices chosen by hand",
}
"""Settings that change memory in ways that are not known here."""

_CACHE_BYTES: Mapping[str, float] = {
    **{"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32},
    **{"q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32},
}
"""Bytes of a cached number."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one server is asked for.

    Attributes:
        context: Tokens of all slots together.
        slots: Sequences at once.
        unified: Whether the slots share one cache.
        ubatch: Tokens computed at once.
        key_bytes: Bytes of a cached number of a key; ``None`` for a format that is not known here.
        value_bytes: Likewise of a value.
        flash: Whether flash attention is used; ``None`` where the build decides.
        offloaded: Layers on the GPUs, the output's included; ``None`` where the build decides.
        cache_on_gpus: Whether the cache of an offloaded layer is there as well.
        mapped: Whether weights on the host are pages of their file.
        split: Whether each layer lies on one GPU, all on one, or each on all: ``layer``, ``none``, ``row``.
        shares: The share of each GPU; empty for equal ones.
        beyond: What is asked for that changes memory in ways not known here.
    """

    context: int
    slots: int
    unified: bool
    ubatch: int
    key_bytes: float | None
    value_bytes: float | None
    flash: bool | None
    offloaded: int | None
    cache_on_gpus: bool
    mapped: bool
    split: str
    shares: tuple[float, ...]
    beyond: tuple[str, ...]

    @property
    def slot_tokens(self) -> int:
        """Tokens that the cache of one computation spans."""
        return self.context if self.unified else self.context // self.slots


def demand_of(settings: Settings, model: GgufModel, *, flash_by_default: bool | None) -> Demand:
    """What these settings ask for.

    Args:
        settings: Flags and variables of the whole command line.
        model: The model: its context is a default.
        flash_by_default: Whether this build uses flash attention unless told; ``None`` if it decides by itself.
    """
    args = canonical(settings.args)
    context = whole(args.get("ctx_size"), 4096) or model.context
    batch = min(whole(args.get("batch_size"), 2048), context)
    return Demand(
        context=context,
        slots=max(1, whole(args.get("parallel"), 1)),
        unified=args.get("kv_unified") is True,
        ubatch=min(whole(args.get("ubatch_size"), 512), batch),
        key_bytes=_CACHE_BYTES.get(str(args.get("cache_type_k") or "f16")),
        value_bytes=_CACHE_BYTES.get(str(args.get("cache_type_v") or "f16")),
        flash=flash_of(args, flash_by_default),
        offloaded=_offloaded(args.get("n_gpu_layers")),
        cache_on_gpus=args.get("kv_offload") is not False,
        mapped=args.get("mmap") is not False,
        split=str(args.get("split_mode") or "layer"),
        shares=_shares(args.get("tensor_split")),
        beyond=tuple(why for name, why in UNPREDICTABLE.items() if args.get(name) not in (None, False, 0)),
    )


def flash_of(args: Mapping[str, JsonValue], default: bool | None) -> bool | None:
    """Whether flash attention is used; ``None`` where the build decides."""
    asked = args.get("flash_attn")
    if asked is None:
        return default
    return None if asked == "auto" else asked not in OFF


def whole(value: JsonValue, default: int) -> int:
    """A whole number of a command line, or what holds without it."""
    if isinstance(value, bool) or value is None:
        return default
    try:
        number = int(str(value))
    except ValueError:
        return default
    return number if number >= 0 else default


def _offloaded(value: JsonValue) -> int | None:
    if value is None or value in ("auto", -1):
        return None
    return 1 << 20 if value == "all" else whole(value, 0)


def _shares(value: JsonValue) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in str(value).replace("/", ",").split(",")) if value else ()
    except ValueError:
        return ()
