"""What of a model's ``config.json`` decides its memory and its placement on GPUs.

The file is read from the model's folder, or from the Hugging Face cache on this disk; tuner's own table stands in for
the few models of its presets. Nothing is fetched. A field that is not there is ``None``: whoever needs it says that it
cannot predict, and never guesses.

The names of the fields in the file are those of transformers; what vLLM makes of them was read in its
``transformers_utils/model_arch_config_convertor.py`` and ``config/model.py`` (0.32.0).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tuner.engines.vllm.model.checkpoint import stored_bytes
from tuner.engines.vllm.model.quantization import Quantization, of_config

_STATE_SPACE = ("linear_attention", "mamba", "conv", "recurrent")
_KEPT_LENGTH = (None, "default", "llama3", "su", "longrope", "mrope")
"""Kinds of rotary scaling that leave ``max_position_embeddings`` as the length (``config/model.py``)."""
_EVERY_NTH_FULL = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
"""Kinds of models whose every so many-th layer is not windowed, though an older ``config.json`` does not say so."""
_TIED = ("gemma", "cohere", "command")
"""Kinds of models whose output head is the embedding, unless ``config.json`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: one latent vector a token is cached, whatever the number of heads.

    Attributes:
        q_rank: Rank of the queries' projection; ``None`` where queries are projected directly.
        kv_rank: Rank of the cached latent.
        nope: Width of a head's part without rotary embedding.
        rope: Width of the part with it, cached next to the latent.
        v: Width of a head's values.
    """

    q_rank: int | None
    kv_rank: int
    nope: int
    rope: int
    v: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts.

    Attributes:
        count: Routed experts in a layer.
        active: Routed experts that a token visits.
        intermediate: Width of one expert.
        shared_intermediate: Width of all shared experts of a layer together; 0 without.
        dense_layers: Layers that have an ordinary MLP instead.
    """

    count: int
    active: int
    intermediate: int
    shared_intermediate: int = 0
    dense_layers: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder, as far as memory and placement depend on it; ``None`` where the file does not say.

    Attributes:
        name: The model as it was asked for.
        source: Where this was read: a path, or ``tuner's table``.
        kind: The class that vLLM resolves, ``Glm4MoeLiteForCausalLM``.
        layers: Hidden layers.
        hidden: Width of the residual stream.
        vocab: Size of the vocabulary.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Width of the ordinary MLP.
        max_positions: Longest context, rotary scaling included.
        tied_embeddings: Whether the output head is the embedding.
        mla: Latent attention, if it has it.
        experts: Mixture of experts, if it is one.
        quantization: How weights are quantized, ``None`` where they are not.
        sliding_window: Tokens that the windowed layers look back, if there are such layers.
        sliding_layers: How many layers are windowed.
        stored_bytes: What the checkpoint's tensors take, layers beyond ``layers`` left out; ``None`` without a
            checkpoint on this disk.
        unsupported: What keeps this model from being predicted: ``state-space layers``, ``a vision tower``.
    """

    name: str
    source: str
    kind: str | None = None
    layers: int | None = None
    hidden: int | None = None
    vocab: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    intermediate: int | None = None
    max_positions: int | None = None
    tied_embeddings: bool = False
    mla: Mla | None = None
    experts: Experts | None = None
    quantization: Quantization | None = None
    sliding_window: int | None = None
    sliding_layers: int = 0
    stored_bytes: int | None = None
    unsupported: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> tuple[str, ...]:
        """What a prediction of memory would need and does not have; empty when it can be made."""
        needed = ("layers", "hidden", "vocab", "heads", "kv_heads", "head_dim", "max_positions")
        absent = [name for name in needed if getattr(self, name) is None]
        if self.intermediate is None and (self.experts is None or self.experts.dense_layers):
            absent.append("intermediate")
        if self.quantization and self.quantization.weight_bytes is None and self.stored_bytes is None:
            absent.append("quantization")
        return (*absent, *self.unsupported)


def find(model: str, env: Mapping[str, str] | None = None) -> Architecture | None:
    """The architecture of the model that a command line names; ``None`` where nothing on this disk says.

    Args:
        model: A folder, or a repository id.
        env: The environment that says where the Hugging Face cache is; this process's own by default.
    """
    folder = Path(model) if (Path(model) / "config.json").is_file() else cached_folder(model, env or os.environ)
    if folder is not None:
        return read(model, folder)
    raw = _shipped(model)
    return None if raw is None else of_mapping(model, "tuner's table", raw)


def read(name: str, folder: Path) -> Architecture | None:
    """The architecture in a model's folder; ``None`` if its ``config.json`` cannot be read."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return of_mapping(name, str(path), raw, folder) if isinstance(raw, dict) else None


def cached_folder(model: str, env: Mapping[str, str]) -> Path | None:
    """Where the Hugging Face cache holds a repository's files, or ``None``.

    The snapshot is the one that ``main`` points to, else the newest; the layout is that of huggingface_hub.
    """
    home = Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    root = Path(env.get("HF_HUB_CACHE") or home / "hub") / f"models--{model.replace('/', '--')}"
    reference = root / "refs" / "main"
    named = [root / "snapshots" / reference.read_text("utf-8").strip()] if reference.is_file() else []
    others = sorted(root.glob("snapshots/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in (*named, *others) if (path / "config.json").is_file()), None)


def of_mapping(name: str, source: str, raw: Mapping[str, Any], folder: Path | None = None) -> Architecture:
    """An architecture from the contents of a ``config.json``.

    Args:
        name: The model as it was asked for.
        source: Where the contents come from.
        raw: The contents.
        folder: Where the checkpoint is, if it is here.
    """
    text = {**raw, **raw["text_config"]} if isinstance(raw.get("text_config"), dict) else dict(raw)
    layers, heads, hidden = (_whole(text, key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    window, windowed = _windows(text, layers)
    return Architecture(
        name=name,
        source=source,
        kind=next(iter(raw.get("architectures") or ()), None),
        layers=layers,
        hidden=hidden,
        vocab=_whole(text, "vocab_size"),
        heads=heads,
        kv_heads=_whole(text, "num_key_value_heads") or heads,
        head_dim=_whole(text, "head_dim") or (hidden // heads if hidden and heads else None),
        intermediate=_whole(text, "intermediate_size"),
        max_positions=_max_positions(text),
        tied_embeddings=_tied(raw, text),
        mla=_mla(text),
        experts=_experts(text),
        quantization=of_config(raw.get("quantization_config") or text.get("quantization_config")),
        sliding_window=window,
        sliding_layers=windowed,
        stored_bytes=stored_bytes(folder, layers) if folder and layers else _whole(raw, "stored_bytes"),
        unsupported=tuple(_unsupported(raw, text)),
    )


def _whole(raw: Mapping[str, Any], key: str) -> int | None:
    value = raw.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _tied(raw: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    usual = str(text.get("model_type", "")).startswith(_TIED)
    return bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", usual)))


def _mla(raw: Mapping[str, Any]) -> Mla | None:
    kv_rank, rope, v = (_whole(raw, key) for key in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim"))
    nope = raw.get("qk_nope_head_dim")
    if not (kv_rank and rope and v and isinstance(nope, int)):
        return None
    return Mla(_whole(raw, "q_lora_rank"), kv_rank, nope, rope, v)


def _experts(raw: Mapping[str, Any]) -> Experts | None:
    count = _whole(raw, "n_routed_experts") or _whole(raw, "num_experts") or _whole(raw, "num_local_experts")
    active = _whole(raw, "num_experts_per_tok")
    width = _whole(raw, "moe_intermediate_size") or _whole(raw, "intermediate_size")
    if not (count and active and width):
        return None
    shared = (_whole(raw, "n_shared_experts") or 0) * width
    dense = raw.get("first_k_dense_replace") or len(raw.get("mlp_only_layers") or ())
    return Experts(count, active, width, _whole(raw, "shared_expert_intermediate_size") or shared, int(dense))


def _max_positions(raw: Mapping[str, Any]) -> int | None:
    """The derived length: scaled kinds of rotary embedding stretch it (``_get_and_verify_max_len``)."""
    length = _whole(raw, "max_position_embeddings")
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if length is None or kind in _KEPT_LENGTH or not isinstance(factor, int | float):
        return length
    if kind == "yarn":
        length = _whole(scaling, "original_max_position_embeddings") or length
    return int(length * factor)


def _windows(raw: Mapping[str, Any], layers: int | None) -> tuple[int | None, int]:
    """The window, and in how many layers it is used."""
    window = _whole(raw, "sliding_window")
    if window is None or layers is None or raw.get("use_sliding_window") is False:
        return None, 0
    kinds = raw.get("layer_types")
    if isinstance(kinds, list):
        windowed = sum(kind == "sliding_attention" for kind in kinds)
    else:
        pattern = _whole(raw, "sliding_window_pattern") or _EVERY_NTH_FULL.get(str(raw.get("model_type")))
        windowed = layers - layers // pattern if pattern else layers
    return (window, windowed) if windowed else (None, 0)


def _unsupported(raw: Mapping[str, Any], text: Mapping[str, Any]) -> list[str]:
    kinds = " ".join(str(kind) for kind in text.get("layer_types") or text.get("layers_block_type") or ())
    state_space = any(word in kinds for word in _STATE_SPACE)
    state_space = state_space or any("mamba" in key or key.startswith(("ssm_", "linear_num_")) for key in text)
    found = ["state-space layers"] if state_space or "full_attention_interval" in text else []
    if any(key in raw for key in ("vision_config", "audio_config", "vision_tower")):
        found.append("a second modality")
    if raw.get("is_encoder_decoder"):
        found.append("an encoder")
    if text.get("attention_chunk_size") or text.get("index_topk"):
        found.append("chunked or sparse attention")
    return found


def _shipped(model: str) -> Mapping[str, Any] | None:
    """The table's entry for a repository id, by its last part; an entry may stand on another one."""
    entry = _table().get(model.rstrip("/").rsplit("/", 1)[-1].lower())
    if entry is None:
        return None
    base = _table()[entry["based_on"]] if "based_on" in entry else {}
    return {key: value for key, value in {**base, **entry}.items() if key != "based_on"}


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    text = files("tuner.engines.vllm").joinpath("models.json").read_text("utf-8")
    table: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return table
