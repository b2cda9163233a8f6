"""What a model's weights take on one rank: every module with its own number format, replicated or cut.

Which modules tensor parallelism cuts was read in vLLM's models (``deepseek_v2.py``, ``glm4_moe_lite.py``,
``qwen3.py``, ``qwen3_moe.py``, 0.32.0): all but the latent's down-projections and the routers. Checked against real
starts of GLM-4.7-Flash's architecture: 14.40 GiB here, 14.41 there (12 layers); 55.82 and 55.83 (47 layers).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.model.architecture import Architecture, Experts

_MLA_ROTARY_BYTES = 4.0
"""Latent attention keeps its table in float32, others in the model's own format (seen in starts of 0.26.0)."""


@dataclass(frozen=True, slots=True)
class _Module:
    """One linear layer.

    Attributes:
        name: Inside its layer, as the checkpoint has it.
        count: Its weights.
        divided_by: Ranks that share it.
    """

    name: str
    count: int
    divided_by: int = 1


def weight_bytes(model: Architecture, demand: Demand) -> float:
    """GPU memory of the weights on the fullest GPU.

    Where the checkpoint is on this disk, its size counts, and the formulas only say how much of it a rank gets.
    """
    placed = _placed(
        model, demand.tensor_parallel, demand.pipeline_parallel, demand.experts_divided_by, demand.element_bytes
    )
    rotary = _rotary_bytes(model, demand.element_bytes)
    if model.stored_bytes is None:
        return placed + rotary
    return model.stored_bytes * placed / _placed(model, 1, 1, 1, demand.element_bytes) + rotary


def _rotary_bytes(model: Architecture, element: float) -> float:
    """The table of sines and cosines, which every rank keeps."""
    if model.mla:
        return (model.max_positions or 0) * model.mla.rope * _MLA_ROTARY_BYTES
    return (model.max_positions or 0) * (model.head_dim or 0) * element


@lru_cache(maxsize=256)
def _placed(model: Architecture, tensor: int, pipeline: int, experts: int, element: float) -> float:
    """The fullest stage: its layers, and the embedding or the output head."""
    layers = model.layers or 0
    stage = -(-layers // pipeline)
    last = range(layers - stage, layers)
    body = sum(_layer_bytes(model, layer, tensor, experts, element) for layer in last)
    embedding = (model.vocab or 0) * (model.hidden or 0) * element / tensor
    return body + embedding * (1 if model.tied_embeddings or pipeline > 1 else 2)


def _layer_bytes(model: Architecture, layer: int, tensor: int, experts: int, element: float) -> float:
    return sum(
        module.count / module.divided_by * _weight_bytes(model, f"model.layers.{layer}.{module.name}", element)
        for module in (*_attention(model, tensor), *_feed_forward(model, layer, tensor, experts))
    )


def _weight_bytes(model: Architecture, name: str, element: float) -> float:
    quantization = model.quantization
    if quantization is None or quantization.weight_bytes is None or not quantization.covers(name):
        return element
    return quantization.weight_bytes


def _attention(model: Architecture, tensor: int) -> Iterator[_Module]:
    hidden, heads = model.hidden or 0, model.heads or 0
    if model.mla is None:
        width, kv_heads = model.head_dim or 0, model.kv_heads or 0
        yield _Module("self_attn.q_proj", hidden * heads * width, tensor)
        yield _Module("self_attn.k_proj", 2 * hidden * kv_heads * width, min(tensor, kv_heads))
        yield _Module("self_attn.o_proj", hidden * heads * width, tensor)
        return
    mla = model.mla
    queries = heads * (mla.nope + mla.rope)
    if mla.q_rank:
        yield _Module("self_attn.q_a_proj", hidden * mla.q_rank)
        yield _Module("self_attn.q_b_proj", mla.q_rank * queries, tensor)
    else:
        yield _Module("self_attn.q_proj", hidden * queries, tensor)
    yield _Module("self_attn.kv_a_proj_with_mqa", hidden * (mla.kv_rank + mla.rope))
    yield _Module("self_attn.kv_b_proj", mla.kv_rank * heads * (mla.nope + mla.v), tensor)
    yield _Module("self_attn.o_proj", heads * mla.v * hidden, tensor)


def _feed_forward(model: Architecture, layer: int, tensor: int, divided_by: int) -> Iterator[_Module]:
    hidden, experts = model.hidden or 0, model.experts
    if experts is None or layer < experts.dense_layers:
        yield _Module("mlp.up_proj", 3 * hidden * (model.intermediate or 0), tensor)
        return
    yield _Module("mlp.gate", hidden * experts.count)
    yield _Module("mlp.shared_experts.up_proj", 3 * hidden * experts.shared_intermediate, tensor)
    yield _routed(experts, hidden, divided_by)


def _routed(experts: Experts, hidden: int, divided_by: int) -> _Module:
    return _Module("mlp.experts.0.up_proj", 3 * hidden * experts.intermediate * experts.count, divided_by)
