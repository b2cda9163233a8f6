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

from tuner.engines.vllm.model import attention, encoder, experts, layers, rope, state
from tuner.engines.vllm.model.checkpoint import stored_bytes
from tuner.engines.vllm.model.defaults import completed
from tuner.engines.vllm.model.fields import not_understood
from tuner.engines.vllm.model.numbers import HIDDEN, VOCAB, whole
from tuner.engines.vllm.model.parts import Encoder, Experts, Feed, Heads, Layer, Mixer, Mla, Recurrence
from tuner.engines.vllm.model.quantization import Quantization, of_config
from tuner.reading import bytes_of

_TIED = ("gemma", "cohere", "command", "gpt2", "gpt_bigcode", "falcon", "bloom", "opt", "starcoder2", "mpt")
"""Kinds of models whose output head is the embedding, unless ``config.json`` says otherwise."""
_UNTIED = ("falcon_h1", "falcon_mamba")
_DECODERS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where a model with a tower keeps the fields of its decoder."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder, as far as memory and placement depend on it; ``None`` where the file does not say.

    Attributes:
        name: The model as it was asked for.
        source: Where this was read: a path, or ``tuner's table``.
        kind: The class that vLLM resolves, ``Glm4MoeLiteForCausalLM``.
        family: The decoder's ``model_type``.
        layers: Hidden layers.
        hidden: Width of the residual stream.
        vocab: Size of the vocabulary.
        full: The heads of layers that see all tokens.
        windowed: The heads of those that do not.
        intermediate: Width of the ordinary MLP.
        matrices: Matrices of the ordinary MLP.
        max_positions: Longest context, rotary scaling included.
        tied_embeddings: Whether the output head is the embedding.
        mla: Latent attention, if it has it.
        experts: Mixture of experts, if it is one.
        quantization: How weights are quantized, ``None`` where they are not.
        plan: Every layer; ``None`` where a layer's kind is not known.
        window: Tokens that windowed layers, or those that attend within chunks, look back.
        state: What layers without a cache keep.
        encoder: The tower for images or sound.
        per_layer_input: Width of the embedding that each layer has of its own; 0 without.
        predicting: Layers that predict further tokens, where they are asked for.
        stored_bytes: What the checkpoint's tensors take, layers beyond ``layers`` left out; ``None`` without a
            checkpoint on this disk.
        unsupported: What keeps this model from being predicted: ``an encoder``, ``the field compress_ratios``.
    """

    name: str
    source: str
    kind: str | None = None
    family: str | None = None
    layers: int | None = None
    hidden: int | None = None
    vocab: int | None = None
    full: Heads | None = None
    windowed: Heads | None = None
    intermediate: int | None = None
    matrices: int = 3
    max_positions: int | None = None
    tied_embeddings: bool = False
    mla: Mla | None = None
    experts: Experts | None = None
    quantization: Quantization | None = None
    plan: tuple[Layer, ...] | None = field(default=None, hash=False)
    window: int | None = None
    state: Recurrence | None = None
    encoder: Encoder | None = None
    per_layer_input: int = 0
    predicting: int = 0
    stored_bytes: int | None = None
    unsupported: tuple[str, ...] = field(default=())

    @property
    def heads(self) -> int | None:
        """Query heads."""
        return self.full.queries if self.full else None

    @property
    def kv_heads(self) -> int | None:
        """Key and value heads."""
        return self.full.keys if self.full else None

    @property
    def kinds(self) -> tuple[Layer, ...]:
        """The layers that there are."""
        return (self.plan or ())[: self.layers]

    @property
    def predicting_layer(self) -> Layer:
        """A layer that predicts: it sees all tokens, and ends as most layers do."""
        feeds = [layer.feed for layer in self.kinds if layer.feed is not Feed.NONE]
        return Layer(Mixer.FULL, max(feeds, key=feeds.count, default=Feed.MLP))

    @property
    def has_mlp(self) -> bool:
        """Whether any layer has an ordinary MLP of the model's own width."""
        return any(layer.feed in (Feed.MLP, Feed.BOTH) and layer.width is None for layer in self.kinds)

    @property
    def missing(self) -> tuple[str, ...]:
        """What a prediction of memory would need and does not have; empty when it can be made."""
        needed = ("layers", "hidden", "vocab", "full", "max_positions")
        absent = [name for name in needed if getattr(self, name) is None]
        if self.plan is None:
            absent.append("the kinds of its layers")
        if self.has_mlp and self.intermediate is None:
            absent.append("intermediate")
        if self.state is None and any(layer.mixer in (Mixer.STATE, Mixer.BOTH) for layer in self.kinds):
            absent.append("the shape of its state")
        if self.quantization and self.quantization.format is None and self.stored_bytes is None:
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
    raw = _json(path)
    if raw is None:
        return None
    beside = _json(folder / "hf_quant_config.json")
    raw = {"quantization_config": beside, **raw} if beside else raw
    return of_mapping(name, str(path), raw, folder)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(bytes_of(path))
    except (OSError, ValueError):
        return None
    return raw if isinstance(raw, dict) else None


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
    text = completed(_decoder(raw))
    count, hidden = layers.count_of(text), whole(text, *HIDDEN)
    return Architecture(
        name=name,
        source=source,
        kind=next(iter(raw.get("architectures") or ()), None),
        family=text.get("model_type"),
        layers=count,
        hidden=hidden,
        vocab=whole(text, *VOCAB),
        full=attention.heads_of(text),
        windowed=attention.windowed_heads_of(text),
        intermediate=experts.mlp_width(text),
        matrices=experts.matrices(text),
        max_positions=rope.max_positions(text),
        tied_embeddings=_tied(raw, text),
        mla=attention.mla_of(text),
        experts=experts.experts_of(text),
        quantization=of_config(raw.get("quantization_config") or text.get("quantization_config")),
        plan=layers.layers_of(text),
        window=layers.window_of(text),
        state=state.state_of(text),
        encoder=encoder.encoder_of(_towers(raw, text), hidden or 0),
        per_layer_input=whole(text, "hidden_size_per_layer_input") or 0,
        predicting=whole(text, "num_nextn_predict_layers", "mtp_num_hidden_layers") or 0,
        stored_bytes=stored_bytes(folder, count) if folder and count else whole(raw, "stored_bytes"),
        unsupported=tuple(_unsupported(raw, text, hidden)),
    )


def _decoder(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the decoder, over those of the whole model."""
    inner = next((raw[key] for key in _DECODERS if isinstance(raw.get(key), dict)), None)
    return dict(raw) if inner is None else {**raw, **_decoder(inner)}


def _towers(raw: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of its towers, wherever they are, under the name of the whole model."""
    return {**text, "model_type": raw.get("model_type")}


def _tied(raw: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    family = str(text.get("model_type", ""))
    usual = family.startswith(_TIED) and not family.startswith(_UNTIED)
    return bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", usual)))


def _unsupported(raw: Mapping[str, Any], text: Mapping[str, Any], hidden: int | None) -> list[str]:
    found = [f"the field {name}" for name in not_understood(text)]
    towers = _towers(raw, text)
    if encoder.speaks_of_one(towers) and encoder.encoder_of(towers, hidden or 0) is None:
        found.append("the size of its tower")
    if raw.get("is_encoder_decoder"):
        found.append("an encoder")
    if (unread := experts.unread(text)) is not None:
        found.append(f"the number of {unread}")
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
