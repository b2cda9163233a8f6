"""How many tokens a second the GPUs' memory allows: each step reads the weights that it visits, and the KV cache."""

from dataclasses import replace

from tuner.engines.vllm.memory.cache import read_bytes
from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.memory.weights import weight_bytes
from tuner.engines.vllm.model.architecture import Architecture


def tokens_per_s(
    model: Architecture | None, demand: Demand, bandwidth_gb_s: float | None, users: int = 1, context: int = 0
) -> float | None:
    """What so many users get together at the most; ``None`` where model or memory is not known.

    The row of the embedding and all computing are left out, and stages of a pipeline are passed one after the other, so
    that nothing real is faster. Tokens are held to be routed evenly; where many visit the same experts, less is read.

    Args:
        model: The model.
        demand: What its server is asked for.
        bandwidth_gb_s: Memory bandwidth of one GPU.
        users: Who generate at once, spread evenly over the replicas.
        context: Tokens of each that are in the KV cache.
    """
    if model is None or bandwidth_gb_s is None or _unknown(model, demand):
        return None
    share = max(1.0, users / demand.data_parallel)
    whole = replace(demand, pipeline_parallel=1, predicting=0)
    cached = share * read_bytes(model, whole, context) / demand.pipeline_parallel if context else 0.0
    moved = _visited_bytes(model, whole, users) + cached
    return users * bandwidth_gb_s * 1e9 / moved


def _unknown(model: Architecture, demand: Demand) -> bool:
    """Drafted tokens come several in a step; what else is asked for may change what is read."""
    formats = model.quantization is None or model.quantization.format is not None
    cache = demand.kv_element_bytes is not None
    return bool(model.missing or demand.beyond or demand.drafted or not formats or not cache)


def _visited_bytes(model: Architecture, demand: Demand, tokens: float) -> float:
    """Weights that a step of so many tokens reads on one GPU."""
    experts = model.experts and replace(model.experts, count=_distinct(model, tokens))
    visited = replace(model, experts=experts, encoder=None, max_positions=0, stored_bytes=None)
    moved = weight_bytes(visited, demand)
    if not model.tied_embeddings:
        moved -= (model.vocab or 0) * (model.hidden or 0) * demand.element_bytes / demand.tensor_parallel
    return moved


def _distinct(model: Architecture, tokens: float) -> int:
    """Experts of a layer that are visited by any of some tokens."""
    experts = model.experts
    assert experts is not None
    missed = (1 - experts.active / experts.count) ** tokens
    return max(experts.active, int(experts.count * (1 - missed)))
