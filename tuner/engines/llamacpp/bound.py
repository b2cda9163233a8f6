"""How many tokens a second the GPUs' memory allows: each step reads all weights of a dense model, and the KV cache."""

from tuner.engines.hardware import Hardware
from tuner.engines.llamacpp.gguf import GgufModel
from tuner.engines.llamacpp.memory.demand import Demand


def tokens_per_s(
    model: GgufModel, demand: Demand, hardware: Hardware, users: int = 1, context: int = 0
) -> float | None:
    """What so many users get together at the most; ``None`` where part of the model is on the host, or not known.

    Layers on several GPUs are passed one after the other; only rows are read by all of them at once.
    """
    whole = demand.offloaded is not None and demand.offloaded > len(model.layers) and demand.cache_on_gpus
    if not hardware.gpus or not hardware.bandwidth_gb_s or not whole or model.mixture or model.unusual or demand.beyond:
        return None
    if demand.key_bytes is None or demand.value_bytes is None:
        return None
    token = sum(model.keys) * demand.key_bytes + sum(model.values) * demand.value_bytes
    moved = sum(model.layers) + model.output_bytes + users * context * token
    at_once = hardware.gpus if demand.split == "row" else 1
    return users * at_once * hardware.bandwidth_gb_s * 1e9 / moved
