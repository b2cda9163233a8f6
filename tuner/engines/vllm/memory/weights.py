"""What a model's weights take on one rank: every module with its own number format, replicated or cut.

Which modules tensor parallelism cuts was read in vLLM's models (``deepseek_v2.py``, ``glm4_moe_lite.py``,
``qwen3.py``, ``qwen3_moe.py``, ``qwen3_next.py``, ``nemotron_h.py``, 0.32.0): all but the latent's down-projections and
the routers. Checked against real starts of GLM-4.7-Flash's architecture: 14.40 GiB here, 14.41 there (12 layers);
55.82 and 55.83 (47 layers).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tuner.engines.vllm.memory.demand import Demand, at_least
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.model.parts import ATTENDING, Experts, Feed, Heads, Layer, Mixer, Mla
from tuner.engines.vllm.model.quantization import Quantization

_MLA_ROTARY_BYTES = 4.0
"""Latent attention keeps its table in float32, others in the model's own format (seen in starts of 0.26.0)."""
_EMBEDDED_IN_16_BITS = 2.0
_PREDICTING = "mtp.layers.0."
_PADDED_WIDTH, _PADDED_HIDDEN = 256, 128
"""To whose multiples MXFP4's experts are padded: 64.38 GiB for gpt-oss-120b with Triton's kernels (vllm#33155), which
pad widths only, and 65.97 with Marlin's (vllm#23278), which pad either."""


@dataclass(frozen=True, slots=True)
class _Module:
    """Linear layers of one kind.

    Attributes:
        names: What checkpoints call it, inside its layer.
        count: Its weights.
        divided_by: Ranks that share it.
    """

    names: tuple[str, ...]
    count: float
    divided_by: int = 1


@dataclass(frozen=True, slots=True)
class _Placement:
    """Among how many ranks what is divided.

    Attributes:
        tensor: Ranks that share a layer.
        pipeline: Ranks that share the layers.
        experts: Ranks that share a layer's experts.
    """

    tensor: int = 1
    pipeline: int = 1
    experts: int = 1


def weight_bytes(model: Architecture, demand: Demand) -> float:
    """GPU memory of the weights on the fullest GPU.

    Where the checkpoint is on this disk, its size counts, and the formulas only say how much of it a rank gets.
    """
    placement = _Placement(demand.tensor_parallel, demand.pipeline_parallel, demand.experts_divided_by)
    quantization = model.quantization or demand.online
    placed = _placed(model, quantization, placement, demand.element_bytes)
    rotary = _rotary_bytes(model, demand.element_bytes)
    if model.stored_bytes is not None and demand.online is None:
        placed = model.stored_bytes * placed / _placed(model, quantization, _Placement(), demand.element_bytes)
    if demand.predicting:
        placed += demand.predicting * _predicting_bytes(model, quantization, placement, demand.element_bytes)
    return placed * _padding(model, demand) + rotary + _tower_bytes(model, demand)


@lru_cache(maxsize=64)
def _predicting_bytes(
    model: Architecture, quantization: Quantization | None, placement: _Placement, element: float
) -> float:
    """A layer that predicts, and the matrix before it; embedding and output head are the model's (``*_mtp.py``)."""
    joined = 2 * (model.hidden or 0) ** 2 * element
    return joined + _layer_bytes(model, quantization, model.predicting_layer, _PREDICTING, placement, element)


def _tower_bytes(model: Architecture, demand: Demand) -> float:
    """Towers are cut as the decoder is; the files' size counts them already."""
    if model.encoder is None or demand.language_only or model.stored_bytes is not None:
        return 0.0
    return model.encoder.weights * _EMBEDDED_IN_16_BITS / demand.tensor_parallel


def _padding(model: Architecture, demand: Demand) -> float:
    """By how much experts in MXFP4 grow, as a factor of all weights: nearly all of them are experts."""
    experts, quantization = model.experts, model.quantization
    if experts is None or quantization is None or quantization.method != "mxfp4":
        return 1.0
    grown = _rounded(experts.intermediate, _PADDED_WIDTH) / experts.intermediate
    if demand.experts_divided_by > 1 or not at_least(demand.version, 0, 12):
        cut = -(-experts.intermediate // demand.experts_divided_by)
        grown = _rounded(cut, _PADDED_HIDDEN) / cut * _rounded(model.hidden or 1, _PADDED_WIDTH) / (model.hidden or 1)
    share = _expert_share(model, quantization, demand.element_bytes)
    return 1 + share * (grown - 1)


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step


@lru_cache(maxsize=64)
def _expert_share(model: Architecture, quantization: Quantization, element: float) -> float:
    with_experts = sum(layer.feed in (Feed.EXPERTS, Feed.BOTH) for layer in model.kinds)
    if model.experts is None or quantization.format is None:
        return 0.0
    routed = _routed(model.experts, model.hidden or 0, 1).count * with_experts * quantization.format.weight_bytes
    return routed / _placed(model, quantization, _Placement(), element)


def _rotary_bytes(model: Architecture, element: float) -> float:
    """The table of sines and cosines, which every rank keeps."""
    if model.mla:
        return (model.max_positions or 0) * model.mla.rope * _MLA_ROTARY_BYTES
    return (model.max_positions or 0) * (model.full.width if model.full else 0) * element


@lru_cache(maxsize=256)
def _placed(model: Architecture, quantization: Quantization | None, placement: _Placement, element: float) -> float:
    """The fullest stage: its layers, and the embedding or the output head."""
    layers = model.kinds
    stage = -(-len(layers) // placement.pipeline)
    first = len(layers) - stage
    body = sum(
        _layer_bytes(model, quantization, layer, f"model.layers.{first + index}.", placement, element)
        for index, layer in enumerate(layers[first:])
    )
    embedding = (model.vocab or 0) * (model.hidden or 0) * element / placement.tensor
    per_layer = (model.vocab or 0) * model.per_layer_input * stage * element / placement.tensor
    return body + per_layer + embedding * (1 if model.tied_embeddings or placement.pipeline > 1 else 2)


def _layer_bytes(
    model: Architecture,
    quantization: Quantization | None,
    layer: Layer,
    name: str,
    placement: _Placement,
    element: float,
) -> float:
    modules = (*_mixer(model, layer, placement.tensor), *_feed_forward(model, layer, placement))
    return sum(
        module.count / module.divided_by * _module_bytes(quantization, name, module.names, element)
        for module in modules
    )


def _module_bytes(quantization: Quantization | None, layer: str, names: tuple[str, ...], element: float) -> float:
    stored = quantization.of_module(*(layer + name for name in names)) if quantization else None
    return stored.weight_bytes if stored else element


def _mixer(model: Architecture, layer: Layer, tensor: int) -> Iterator[_Module]:
    hidden = model.hidden or 0
    if layer.mixer in ATTENDING:
        heads = model.full if layer.mixer in (Mixer.FULL, Mixer.BOTH) else model.windowed
        if model.mla is not None:
            yield from _latent(model.mla, hidden, model.heads or 0, tensor)
        elif heads is not None:
            yield from _attention(heads, hidden, layer, tensor)
    if layer.mixer in (Mixer.STATE, Mixer.BOTH) and model.state is not None:
        yield _Module(model.state.names, model.state.weights, tensor)


def _attention(heads: Heads, hidden: int, layer: Layer, tensor: int) -> Iterator[_Module]:
    queries, keys = hidden * heads.queries * heads.width, hidden * heads.keys * heads.width
    values = hidden * heads.keys * heads.value_width if heads.values else 0
    yield _Module(("self_attn.q_proj", "mixer.q_proj"), heads.projections * queries, tensor)
    if layer.cached:
        yield _Module(("self_attn.k_proj", "mixer.k_proj"), keys + values, min(tensor, heads.keys))
    output = heads.queries * heads.value_width * hidden
    yield _Module(("self_attn.o_proj", "mixer.o_proj"), output, tensor)


def _latent(mla: Mla, hidden: int, heads: int, tensor: int) -> Iterator[_Module]:
    queries = heads * (mla.nope + mla.rope)
    if mla.q_rank:
        yield _Module(("self_attn.q_a_proj",), hidden * mla.q_rank)
        yield _Module(("self_attn.q_b_proj",), mla.q_rank * queries, tensor)
    else:
        yield _Module(("self_attn.q_proj",), hidden * queries, tensor)
    yield _Module(("self_attn.kv_a_proj_with_mqa",), hidden * (mla.kv_rank + mla.rope))
    yield _Module(("self_attn.kv_b_proj",), mla.kv_rank * heads * (mla.nope + mla.v), tensor)
    yield _Module(("self_attn.o_proj",), heads * mla.v * hidden, tensor)
    if mla.index:
        yield _Module(("self_attn.indexer.wq_b",), mla.index)


def _feed_forward(model: Architecture, layer: Layer, placement: _Placement) -> Iterator[_Module]:
    hidden, experts = model.hidden or 0, model.experts
    if layer.feed in (Feed.MLP, Feed.BOTH):
        width = layer.width or model.intermediate or 0
        names = ("mlp.up_proj", "mlp.gate_up_proj", "mixer.up_proj", "feed_forward.up_proj")
        yield _Module(names, model.matrices * hidden * width, placement.tensor)
    if layer.feed in (Feed.EXPERTS, Feed.BOTH) and experts is not None:
        yield _Module(("mlp.gate",), hidden * experts.count)
        shared = ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj", "mixer.shared_experts.up_proj")
        yield _Module(shared, experts.matrices * hidden * experts.shared_intermediate, placement.tensor)
        if experts.latent:
            yield _Module(("mixer.fc1_latent_proj",), 2 * hidden * experts.latent)
        yield _routed(experts, hidden, placement.experts)
    if model.per_layer_input:
        yield _Module(("per_layer_input_gate",), 3 * hidden * model.per_layer_input)


def _routed(experts: Experts, hidden: int, divided_by: int) -> _Module:
    names = ("mlp.experts.0.up_proj", "mlp.experts.0.gate_up_proj", "mixer.experts.0.up_proj")
    others = ("block_sparse_moe.experts.0.w1", "feed_forward.experts.0.up_proj", "mlp.experts")
    width = experts.matrices * (experts.latent or hidden) * experts.intermediate
    return _Module((*names, *others), width * experts.count, divided_by)
