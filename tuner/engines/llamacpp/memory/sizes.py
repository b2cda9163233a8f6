"""How much memory the weights, the KV cache and the batch's buffers take on the fullest device.

Weights are those of the file. The cache holds each token's keys and values in the format asked for. The buffer of the
computations holds the attention mask, and the largest of what attention, feed-forward network and output need for a
batch: fitted to what a build of August 2025 printed for 12 settings of two models, 0 to 11 % above it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tuner.engines.llamacpp.gguf import GgufModel
from tuner.engines.llamacpp.memory.demand import Demand

GIB = 1 << 30
_FLOAT = 4
_INPUTS = 20
"""Bytes of a token's own inputs: its number, place and sequence."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the fullest device holds, in GiB; ``None`` where it cannot be told.

    Attributes:
        weights_gib: Weights, mapped from their file or not.
        kv_gib: The KV cache.
        compute_gib: The buffers of a batch.
        mapped: Whether the weights are pages of their file, which the system may drop.
    """

    weights_gib: float
    kv_gib: float | None
    compute_gib: float
    mapped: bool

    @property
    def needed_gib(self) -> float | None:
        """What must be there at once."""
        weights = 0.0 if self.mapped else self.weights_gib
        return None if self.kv_gib is None else weights + self.kv_gib + self.compute_gib


def sizes(model: GgufModel, demand: Demand, gpus: int) -> Sizes | None:
    """What a server takes of the fullest device; ``None`` where where the layers lie cannot be told.

    Args:
        model: The model.
        demand: What is asked for.
        gpus: How many GPUs there are; 0 for a server on the host.
    """
    compute = _compute_bytes(model, demand) / GIB
    if gpus == 0:
        cache = _cache_bytes(model, demand, range(len(model.layers)))
        return Sizes(model.total_bytes / GIB, cache, compute, demand.mapped)
    if demand.offloaded is None:
        return None
    return max((_on_gpu(model, demand, part, compute) for part in _parts(model, demand, gpus)), key=_fullness)


def _fullness(one: Sizes) -> float:
    return one.weights_gib + (one.kv_gib or 0.0)


def _on_gpu(model: GgufModel, demand: Demand, part: range, compute_gib: float) -> Sizes:
    """What one GPU holds of these layers, the output being the last of all."""
    layers = [layer for layer in part if layer < len(model.layers)]
    output = model.output_bytes if len(model.layers) in part else 0
    weights = sum(model.layers[layer] for layer in layers) + output
    cache = _cache_bytes(model, demand, layers) if demand.cache_on_gpus else 0.0
    return Sizes(weights / GIB, cache, compute_gib, mapped=False)


def _parts(model: GgufModel, demand: Demand, gpus: int) -> Iterator[range]:
    """The layers of each GPU: the last ones of the model, divided in their order."""
    count = len(model.layers) + 1
    first = count - min(demand.offloaded or 0, count)
    if demand.split == "none":
        yield range(first, count)
        return
    shares = (demand.shares + (0.0,) * gpus)[:gpus] if demand.shares else (1.0,) * gpus
    bounds = [first + round((count - first) * sum(shares[:gpu]) / sum(shares)) for gpu in range(gpus + 1)]
    yield from (range(begin, end) for begin, end in pairwise(bounds))


def _cache_bytes(model: GgufModel, demand: Demand, layers: "range | list[int]") -> float | None:
    """GiB of the cache of these layers."""
    if demand.key_bytes is None or demand.value_bytes is None or model.unusual:
        return None
    token = sum(model.keys[layer] * demand.key_bytes + model.values[layer] * demand.value_bytes for layer in layers)
    return token * demand.context / GIB


def _compute_bytes(model: GgufModel, demand: Demand) -> float:
    cells = demand.ubatch * demand.slot_tokens
    if demand.flash is False:
        mask, attention = _FLOAT * cells, _FLOAT * (model.heads * cells + 5 * model.width * demand.ubatch)
    else:  # the mask is there once more in half precision
        mask, attention = (_FLOAT + 2) * cells, _FLOAT * 4 * model.width * demand.ubatch
    feed_forward = _FLOAT * (2 * model.feed_forward + model.width) * demand.ubatch
    output = _FLOAT * (model.vocabulary + model.width) * demand.ubatch
    return mask + _INPUTS * demand.ubatch + max(attention, feed_forward, output)
