"""How vLLM lays out its KV cache: layers of one kind share blocks, kinds share a pool, and every block has one size.

Read in ``v1/core/kv_cache_utils.py`` and ``platforms/interface.py`` (0.32.0). A kind whose token takes less gets more
tokens into its block; a layer with a state takes a block for each request, and attention's blocks are made so long that
a state fits into one. Kinds are cut into groups of equally many layers. Seen: 567,978 tokens in 5.98 GiB for
Qwen3.6-35B-A3B with an eight-bit cache (0.24), and about 55,000 in 50 GiB for Gemma 4 31B (0.20).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuner.engines.vllm.memory.demand import Demand, at_least
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.model.parts import Heads, Mixer, Recurrence

GIB = float(1 << 30)
_MLA_STATE_ALIGNMENT = 128
"""Tokens to whose multiples a block is lengthened where a latent and a state share a pool."""
_PADDED_RATHER_THAN_SPLIT = 1.5
_ALIGNED_STATES = 2
"""Blocks of state that a request holds where prefixes are cached."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """How the KV cache is laid out.

    Attributes:
        block_bytes: One block of all layers that share it.
        token_bytes: What one token takes in all layers that keep it.
        block_tokens: Context tokens that one block stands for; a model with two kinds of layers needs several blocks
            for the same tokens.
        blocks_per_request: Blocks that one request of the full context length needs; ``None`` without a length.
        request_tokens: Tokens of such a request, where the engine counts its cache in requests (from 0.21 on).
    """

    block_bytes: float
    token_bytes: float
    block_tokens: float
    blocks_per_request: int | None
    request_tokens: int | None = None

    def tokens(self, kv_gib: float) -> int:
        """How many tokens the engine says that so much memory holds."""
        if self.request_tokens and self.blocks_per_request:
            return int(self.blocks(kv_gib) / self.blocks_per_request * self.request_tokens)
        return int(self.blocks(kv_gib) * self.block_tokens)

    def blocks(self, kv_gib: float) -> int:
        """How many whole blocks so much memory holds."""
        return max(0, int(kv_gib * GIB // self.block_bytes))

    @property
    def request_gib(self) -> float:
        """What one request of the full context length needs; 0 without a length."""
        return (self.blocks_per_request or 0) * self.block_bytes / GIB


@dataclass(frozen=True, slots=True)
class _Kind:
    """Layers that keep the same.

    Attributes:
        layers: How many.
        token_bytes: What one of them keeps of a token; 0 for a state.
        window: How many tokens it looks back, if not all.
        chunked: Whether that is within chunks.
    """

    layers: int
    token_bytes: float
    window: int | None = None
    chunked: bool = False


def cache_of(model: Architecture, demand: Demand, length: int) -> CacheLayout:
    """The layout for requests of so many tokens."""
    kinds = list(_kinds(model, demand))
    states, state_bytes = _states(model, demand)
    attention, block, page = _pages(model, demand, kinds, state_bytes if states else 0.0)
    group = _group([kind.layers for kind in kinds] + ([states] if states else []))
    groups = [-(-kind.layers // group) for kind in kinds]
    state_groups = -(-states // group)
    needed = sum(
        count * _blocks(kind, size, demand, length) for kind, count, size in zip(kinds, groups, attention, strict=True)
    )
    needed += state_groups * ((_ALIGNED_STATES if demand.prefix_caching else 1) + demand.drafted)
    return CacheLayout(
        block_bytes=page * group,
        token_bytes=sum(kind.layers * kind.token_bytes for kind in kinds),
        block_tokens=block / max(1, sum(groups) + state_groups),
        blocks_per_request=needed if demand.max_model_len else None,
        request_tokens=demand.max_model_len if at_least(demand.version, 0, 21) else None,
    )


def read_bytes(model: Architecture, demand: Demand, context: int) -> float:
    """What one step reads of the cache for a request of so many tokens, on one rank of the fullest stage."""
    kinds = _kinds(model, replace(demand, one_group=False))
    tokens = sum(kind.layers * _read_token_bytes(model, kind) * min(context, kind.window or context) for kind in kinds)
    states, state = _states(model, demand)
    return tokens + states * state


def _read_token_bytes(model: Architecture, kind: _Kind) -> float:
    """Sparse attention reads its index of every token, and the cache itself of few."""
    return model.mla.index_bytes if model.mla and model.mla.index else kind.token_bytes


def _kinds(model: Architecture, demand: Demand) -> Iterator[_Kind]:
    """The kinds of attention on the fullest stage."""
    stages, cached = demand.pipeline_parallel, [layer for layer in model.kinds if layer.cached]
    full = sum(layer.mixer in (Mixer.FULL, Mixer.BOTH) for layer in cached) + demand.predicting
    bounded = [layer.mixer for layer in cached if layer.mixer in (Mixer.WINDOWED, Mixer.CHUNKED)]
    if demand.one_group and full:
        full, bounded = full + len(bounded), []
    if full:
        yield _Kind(-(-full // stages), _token_bytes(model, model.full, demand))
    if bounded:
        token_bytes = _token_bytes(model, model.windowed, demand)
        yield _Kind(-(-len(bounded) // stages), token_bytes, model.window, bounded[0] is Mixer.CHUNKED)


def _token_bytes(model: Architecture, heads: Heads | None, demand: Demand) -> float:
    """KV cache of one token in one layer on one rank.

    MLA's latent is replicated on every rank (``v1/kv_cache_interface.py::MLAAttentionSpec``); heads are sharded,
    and replicated where there are fewer than ranks.
    """
    element, ranks = demand.kv_element_bytes or 0.0, demand.tensor_parallel
    if model.mla and demand.use_mla:
        return (model.mla.kv_rank + model.mla.rope) * element + model.mla.index_bytes
    if model.mla:
        return -(-(model.heads or 0) // ranks) * 2 * (model.mla.nope + model.mla.rope) * element
    if heads is None:
        return 0.0
    return max(1, heads.keys // ranks) * ((heads.width + heads.value_width) * element + 2 * demand.kv_scale_bytes)


def _states(model: Architecture, demand: Demand) -> tuple[int, float]:
    """Layers with a state on the fullest stage, and what one of them keeps for a request on one rank."""
    layers = sum(layer.mixer in (Mixer.STATE, Mixer.BOTH) for layer in model.kinds)
    if model.state is None or not layers:
        return 0, 0.0
    return -(-layers // demand.pipeline_parallel), state_bytes(model.state, demand)


def state_bytes(state: Recurrence, demand: Demand) -> float:
    """Both states; groups of Mamba's inputs are copied where ranks do not divide them."""
    ranks, element = demand.tensor_parallel, demand.element_bytes
    extra = state.shared / state.groups * (ranks - state.groups) if state.groups % ranks else 0.0
    recurrent = demand.state_bytes or state.recurrent_bytes or element
    conv = (state.conv + extra) * (state.kept + demand.drafted if state.kept else 0)
    return (conv * element + state.recurrent * recurrent) / ranks


def _pages(
    model: Architecture, demand: Demand, kinds: Sequence[_Kind], state: float
) -> tuple[list[float], float, float]:
    """Tokens in a block of each kind, the least of them, and the bytes of a block in one layer."""
    if not kinds:
        return [], 1.0, state
    block = float(demand.block_size)
    if state and demand.use_mla and model.mla:
        block = max(block, _MLA_STATE_ALIGNMENT)
    if state:
        block *= -(-state // (block * kinds[0].token_bytes))
    page = max(block * max(kind.token_bytes for kind in kinds), state)
    sizes = [block * max(1, page // (block * kind.token_bytes)) if kind.token_bytes else block for kind in kinds]
    return sizes, min(sizes), page


def _group(counts: Sequence[int]) -> int:
    """Layers in a group: as many as the rarest kind has; of all, where they are nearly as many."""
    least, most = min(counts), max(counts)
    return most if most < _PADDED_RATHER_THAN_SPLIT * least else least


def _blocks(kind: _Kind, block: float, demand: Demand, length: int) -> int:
    """Blocks that one request needs in one group."""
    if kind.window is None:
        return int(-(-length // block))
    tokens = (demand.max_num_batched_tokens or 0) * demand.batches
    if kind.chunked:
        return int(-(-min(kind.window + tokens, length) // block))
    return int(-(-min(kind.window - 1 + tokens, length) // block)) + 1
