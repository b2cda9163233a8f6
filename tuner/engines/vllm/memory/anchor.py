"""A prediction from a start's own lines, for models that no formula is known for.

What a start of the same placement and formats left for its KV cache tells what all else took; another share of the GPU
changes the cache alone. Such a prediction rules nothing out.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.cache import GIB
from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.memory.sizes import MemoryEstimate, Shortage, StartStage


@dataclass
class Anchors:
    """The starts that tell how much was left."""

    _starts: list[tuple[Demand, StartupFacts]] = field(default_factory=list)

    def learn(self, demand: Demand, facts: StartupFacts) -> None:
        """Note a start, if it says what it asked for and what was left."""
        if facts.kv_cache_gib is not None and facts.requested_gib and demand.kv_cache_memory_bytes is None:
            self._starts.append((demand, facts))

    def terms(self, demand: Demand, hardware: Hardware) -> MemoryEstimate | None:
        """What the nearest start tells of this demand; ``None`` where none is of the same placement and formats."""
        like = [start for start in self._starts if _fixed(start[0]) == _fixed(demand)]
        if not like or hardware.total_gib is None:
            return None
        nearest, facts = min(reversed(like), key=lambda start: _distance(start[0], demand))
        requested = hardware.total_gib * demand.utilization
        overhead = (facts.requested_gib or 0.0) - (facts.kv_cache_gib or 0.0)
        fixed = demand.kv_cache_memory_bytes
        return _terms(facts, requested, fixed / GIB if fixed else requested - overhead, _comparable(nearest, demand))


def _fixed(demand: Demand) -> Hashable:
    """What must be the same for a start to tell anything."""
    placement = (demand.tensor_parallel, demand.pipeline_parallel, demand.experts_divided_by)
    return *placement, demand.kv_cache_dtype, demand.element_bytes, demand.eager, demand.language_only, demand.beyond


def _distance(one: Demand, other: Demand) -> tuple[int, int]:
    """How far two batches are apart: tokens first, then sequences."""
    tokens = abs((one.max_num_batched_tokens or 0) - (other.max_num_batched_tokens or 0))
    return tokens, abs((one.max_num_seqs or 0) - (other.max_num_seqs or 0))


def _comparable(one: Demand, other: Demand) -> bool:
    """Whether the same memory holds as many tokens: engines count them by requests of the full context."""
    return (one.max_model_len, one.prefix_caching) == (other.max_model_len, other.prefix_caching)


def _terms(facts: StartupFacts, requested: float, kv: float, comparable: bool) -> MemoryEstimate:
    token_bytes = (facts.kv_cache_gib or 0.0) * GIB / facts.kv_tokens if facts.kv_tokens and comparable else 0.0
    tokens = int(max(0.0, kv) * GIB / token_bytes) if token_bytes else None
    none_left = Shortage(StartStage.CACHE, Cause.NO_KV_CACHE, "KV cache", 0.0, kv) if kv <= 0 else None
    return MemoryEstimate(
        requested_gib=requested,
        weights_gib=facts.weights_gib or 0.0,
        activation_gib=facts.peak_activation_gib or 0.0,
        peak="an earlier start's",
        non_torch_gib=facts.non_torch_gib or 0.0,
        graph_estimate_gib=0.0,
        graph_gib=facts.graph_gib or 0.0,
        sampler_gib=0.0,
        kv_token_bytes=token_bytes,
        kv_gib=kv,
        kv_tokens=tokens,
        max_concurrency=None,
        request_gib=0.0,
        shortage=none_left,
    )
