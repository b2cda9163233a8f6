"""What a configuration takes of a GPU's memory, or which allocation fails first: a pure function.

The accounting is vLLM's: a share of the card is requested; weights, the profiling run's peak, what torch does not
see and (from 0.20 on) an estimate of the CUDA graphs go off it; the rest becomes KV cache. Before 0.20 the graphs are
not counted, so that a start can still end at the sampler's warm-up. What is needed never falls with utilization,
sequences or batched tokens.

Fitted to: two real H100 runs (weights within 1 %, KV tokens within 3 %), the first user's two RTX 4090s (222K KV
tokens), and the report vllm#33920 (sampler warm-up with 256 sequences).
"""

import math
from dataclasses import dataclass
from typing import Literal

from tuner.sim.hardware import GIB
from tuner.sim.settings import Settings

Stage = Literal["free", "backend", "weights", "profile", "kv", "context", "dispatch", "graphs", "sampler"]

HIDDEN_COPIES = 4.4
"""Buffers of the residual stream's width that are alive together in a layer."""
HEAD_COPIES = 4.0
"""Buffers of queries, keys, values and output that are alive together in attention."""
MLA_WORKSPACE_TOKENS = 65536
"""Most tokens of context that MLA's prefill gathers at once."""
MOE_CHUNK_TOKENS = 16384
"""Before 0.20 the expert kernel takes longer batches in pieces (VLLM_FUSED_MOE_CHUNK_SIZE)."""
COLD_PEAK_GIB = 1.3
"""Peak of the compiler's own buffers when the compile cache is empty (syv-ai/qwen38-27b-rtx3090#75)."""
AUTOTUNE_PEAK_GIB = 0.4
"""What benchmarking kernel candidates adds to it."""
GRAPH_MIB, GRAPH_LAYER_MIB = 4.75, 0.19
"""One CUDA graph of a model 2,048 wide, and each layer in it (three H100 runs; vllm#48601 for a wider model)."""
GRAPH_TP_FACTOR = 1.1
"""Graphs with all-reduces are larger."""
GRAPH_ESTIMATE = 0.875
"""How much of the graphs' memory 0.20 and later foresee."""
SAMPLER_FRAGMENTS = 1.4
"""What the sampler's warm-up leaves reserved and unusable, as a multiple of what it needs (914 MiB in vllm#33920)."""
SPLIT_KV_WIDTH = 513
"""Numbers that TRITON_MLA keeps for one head and one split of the context."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a GPU holds once the server is up; GiB of the fullest GPU.

    Attributes:
        requested_gib: The share of the card that was asked for.
        weights_gib: Weights.
        activation_gib: Peak of the profiling run, sampler included.
        non_torch_gib: CUDA context, NCCL.
        graph_estimate_gib: What vLLM set aside for CUDA graphs; zero before 0.20.
        graph_gib: What the graphs really take.
        kv_gib: KV cache.
        num_blocks: Its blocks.
        kv_tokens: Its tokens.
        max_concurrency: How many requests of full length fit at once.
    """

    requested_gib: float
    weights_gib: float
    activation_gib: float
    non_torch_gib: float
    graph_estimate_gib: float
    graph_gib: float
    kv_gib: float
    num_blocks: int
    kv_tokens: int
    max_concurrency: float


@dataclass(frozen=True, slots=True)
class StartupFailure:
    """Why a start would end, as vLLM says it.

    Attributes:
        stage: Which part of the start fails.
        lines: What the traceback ends in.
        plan_gib: KV cache memory computed so far, where it got that far; vLLM prints it before it fails.
        allocation_gib: The allocation that failed, for out-of-memory failures.
    """

    stage: Stage
    lines: tuple[str, ...]
    plan_gib: float | None = None
    allocation_gib: float | None = None


def plan(settings: Settings) -> MemoryPlan | StartupFailure:
    """What fits, or which failure comes first."""
    terms = _Terms(settings)
    return terms.failure_before_kv() or _with_kv(settings, terms)


def forced(settings: Settings, stage: str) -> StartupFailure:
    """Running out of memory at a stage, whatever the settings.

    Args:
        settings: The engine's configuration.
        stage: ``weights``, ``profile``, ``kv``, ``graphs`` or ``sampler``.
    """
    terms = _Terms(settings)
    if stage == "kv":
        return StartupFailure("kv", (_NO_BLOCKS,), plan_gib=-0.42)
    if stage == "sampler":
        return _sampler_failure(settings, terms.free + 0.1, terms.free, terms.available)
    exact: Stage = "weights" if stage == "weights" else "profile" if stage == "profile" else "graphs"
    kv_gib = terms.available if stage == "graphs" else None
    return _out_of_memory(exact, settings, terms.free + 0.1, 0.25, terms.free, kv_gib)


class _Terms:
    """The terms of the accounting, in GiB."""

    def __init__(self, settings: Settings) -> None:
        hardware = settings.site.hardware
        self.settings = settings
        self.free = hardware.free_gib
        self.requested = hardware.total_gib * settings.gpu_memory_utilization
        self.weights = settings.model.weight_bytes(settings.tensor_parallel_size, settings.pipeline_parallel_size) / GIB
        self.weights *= 1.02 if settings.speculative_tokens else 1.0
        self.non_torch = hardware.non_torch_gib + (hardware.non_torch_tp_gib if settings.world_size > 1 else 0.0)
        self.activation = self._profile_peak()
        self.graphs = graph_gib(settings)
        self.counts_graphs = settings.site.version.at_least(0, 20)
        self.graph_estimate = GRAPH_ESTIMATE * self.graphs if self.counts_graphs else 0.0

    def _profile_peak(self) -> float:
        settings = self.settings
        peak = max(activation_gib(settings, settings.max_num_batched_tokens), sampler_gib(settings))
        if settings.warm or settings.enforce_eager or settings.v0:
            return peak
        return max(peak, COLD_PEAK_GIB + (AUTOTUNE_PEAK_GIB if settings.tuned_sizes else 0.0))

    @property
    def _idle(self) -> float:
        """What of the profiled peak is free again during warm-up: MLA's workspace, and the sampler's own share."""
        forward = activation_gib(self.settings, self.settings.max_num_batched_tokens)
        return mla_workspace_bytes(self.settings) / GIB + max(sampler_gib(self.settings) - forward, 0.0)

    @property
    def available(self) -> float:
        return self.requested - self.weights - self.activation - self.non_torch - self.graph_estimate

    def failure_before_kv(self) -> StartupFailure | None:
        fixed_cache = self.settings.kv_cache_memory_bytes is not None
        if self.requested > self.free and not fixed_cache:
            return StartupFailure("free", (_free_text(self.settings, self.free, self.requested),))
        used = self.non_torch + self.weights
        if used > self.free:
            return _out_of_memory("weights", self.settings, used, 0.25, self.free)
        if used + self.activation > self.free:
            return _out_of_memory("profile", self.settings, used + self.activation, self.activation / 2, self.free)
        if self.available <= 0 and not fixed_cache:
            return StartupFailure("kv", (_NO_BLOCKS,), plan_gib=self.available)
        return None

    def failure_after_kv(self, kv_gib: float) -> StartupFailure | None:
        """Before 0.20 graphs and sampler must fit next to what the profiled peak has set aside for the forward pass."""
        resident = self.weights + self.non_torch + kv_gib + self.activation - self._idle + self.graphs
        if self.counts_graphs:
            return None
        if resident > self.free:
            return _out_of_memory("graphs", self.settings, resident, 0.02, self.free, kv_gib)
        total = resident + sampler_gib(self.settings) * (1.0 + SAMPLER_FRAGMENTS)
        return _sampler_failure(self.settings, total, self.free, kv_gib) if total > self.free else None


def _with_kv(settings: Settings, terms: _Terms) -> MemoryPlan | StartupFailure:
    kv_gib = terms.available
    if settings.kv_cache_memory_bytes is not None:
        kv_gib = settings.kv_cache_memory_bytes / GIB
    page_bytes = settings.kv_token_bytes * settings.block_size
    blocks = settings.num_gpu_blocks_override or int(kv_gib * GIB // page_bytes)
    concurrency = blocks / -(-settings.max_model_len // settings.block_size)
    if concurrency < 1:
        return StartupFailure("context", (_context_text(settings, kv_gib, blocks),), plan_gib=kv_gib)
    failure = terms.failure_after_kv(kv_gib)
    if failure is not None:
        return failure
    return MemoryPlan(
        requested_gib=terms.requested,
        weights_gib=terms.weights,
        activation_gib=terms.activation,
        non_torch_gib=terms.non_torch,
        graph_estimate_gib=terms.graph_estimate,
        graph_gib=terms.graphs,
        kv_gib=kv_gib,
        num_blocks=blocks,
        kv_tokens=blocks * settings.block_size,
        max_concurrency=concurrency,
    )


def activation_gib(settings: Settings, tokens: int) -> float:
    """Peak of a forward pass over ``tokens`` tokens: the larger of its attention and its expert phase."""
    model, tp = settings.model, settings.tensor_parallel_size
    stream = HIDDEN_COPIES * tokens * model.hidden * 2
    heads = HEAD_COPIES * tokens * model.heads / tp * _head_width(settings) * 2
    attention = heads + mla_workspace_bytes(settings)
    return (stream + max(attention, _expert_bytes(settings, tokens)) + split_kv_bytes(settings)) / GIB


def _head_width(settings: Settings) -> int:
    mla = settings.model.mla
    return mla.nope + mla.rope if mla else settings.model.head_dim


def mla_workspace_bytes(settings: Settings) -> float:
    """What MLA's prefill gathers and up-projects of the cached context at once, in bytes; zero without MLA."""
    mla = settings.model.mla
    if mla is None or not settings.use_mla:
        return 0.0
    wanted = max(8 * settings.max_model_len, 4 * settings.max_num_seqs * settings.block_size)
    tokens = min(wanted, MLA_WORKSPACE_TOKENS)
    gathered = tokens * (mla.kv_rank + mla.rope) * 2
    projected = tokens * settings.model.heads / settings.tensor_parallel_size * (mla.nope + mla.v) * 2
    return gathered + projected


def split_kv_bytes(settings: Settings) -> float:
    """What TRITON_MLA reserves from 0.20 on for partial results over a split context, in bytes."""
    triton = settings.site.hardware.mla_backends[0] == "TRITON_MLA"
    if not settings.use_mla or not triton or not settings.site.version.at_least(0, 20):
        return 0.0
    splits = min(1 << (settings.max_model_len // 512 - 1).bit_length(), 256)
    heads = settings.model.heads / settings.tensor_parallel_size
    return settings.max_num_seqs * heads * splits * SPLIT_KV_WIDTH * 4


def _expert_bytes(settings: Settings, tokens: int) -> float:
    model, tp = settings.model, settings.tensor_parallel_size
    if model.experts is None:
        return tokens * 3 * model.intermediate / tp * 2
    width = model.experts.intermediate if settings.enable_expert_parallel else model.experts.intermediate / tp
    chunk = tokens if settings.site.version.at_least(0, 20) else min(tokens, MOE_CHUNK_TOKENS)
    visits = model.experts.active / (tp if settings.enable_expert_parallel else 1)
    return chunk * visits * (3 * width + model.hidden) * 2


def sampler_gib(settings: Settings) -> float:
    """The sampler's warm-up: logits, their sorted copy and 64-bit indices for every sequence."""
    return settings.max_num_seqs * settings.model.vocab * (4 + 4 + 8) / GIB


def graph_gib(settings: Settings) -> float:
    """What all CUDA graphs take together."""
    layers = -(-settings.model.layers // settings.pipeline_parallel_size)
    factor = GRAPH_TP_FACTOR if settings.tensor_parallel_size > 1 else 1.0
    one_mib = GRAPH_MIB * settings.model.hidden / 2048 + GRAPH_LAYER_MIB * layers
    return sum(settings.graphs) * one_mib * factor / 1024


_NO_BLOCKS = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
    "the engine."
)


def _free_text(settings: Settings, free: float, requested: float) -> str:
    device = " cuda:0" if settings.site.version.at_least(0, 14) else ""
    return (
        f"ValueError: Free memory on device{device} ({free:.2f}/{settings.site.hardware.total_gib:.2f} GiB) on startup "
        f"is less than desired GPU memory utilization ({settings.gpu_memory_utilization:g}, {requested:.2f} GiB). "
        "Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )


def _context_text(settings: Settings, kv_gib: float, blocks: int) -> str:
    needed = math.ceil(settings.max_model_len / settings.block_size) * settings.block_size * settings.kv_token_bytes
    models = "models's" if not settings.site.version.at_least(0, 26) else "model's"
    return (
        f"ValueError: To serve at least one request with the {models} max seq len ({settings.max_model_len}), "
        f"({needed / GIB:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({kv_gib:.2f} GiB). Based on the available memory, the estimated maximum model length is "
        f"{blocks * settings.block_size}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
        "initializing the engine."
    )


def _out_of_memory(
    stage: Stage, settings: Settings, wanted: float, allocation: float, free: float, kv_gib: float | None = None
) -> StartupFailure:
    left = min(max(free - wanted + allocation, 0.005), 0.6 * allocation)
    line = out_of_memory_line(settings, allocation, left)
    return StartupFailure(stage, (line,), plan_gib=kv_gib, allocation_gib=allocation)


def out_of_memory_line(settings: Settings, allocation_gib: float, left_gib: float) -> str:
    """Torch's own words for an allocation that failed.

    Args:
        settings: Whose GPU.
        allocation_gib: What was asked for.
        left_gib: What was free.
    """
    hardware = settings.site.hardware
    used = hardware.free_gib - left_gib
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {_amount(allocation_gib)}. GPU 0 has a total "
        f"capacity of {hardware.total_gib:.2f} GiB of which {_amount(left_gib)} is free. Including non-PyTorch memory, "
        f"this process has {used:.2f} GiB memory in use. Of the allocated memory {used * 0.9:.2f} GiB is allocated by "
        "PyTorch, with 52.00 MiB allocated in private pools (e.g., CUDA Graphs), and 914.00 MiB is reserved by PyTorch "
        "but unallocated. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
    )


def _sampler_failure(settings: Settings, total: float, free: float, kv_gib: float) -> StartupFailure:
    sort_gib = math.ceil(settings.max_num_seqs * settings.model.vocab * 8 / (1 << 21)) * 2 / 1024
    line = out_of_memory_line(settings, sort_gib, min(max(free - total + sort_gib, 0.02), sort_gib * 0.7))
    advice = (
        f"RuntimeError: CUDA out of memory occurred when warming up sampler with {settings.max_num_seqs} dummy "
        "requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
    )
    return StartupFailure("sampler", (line, advice), plan_gib=kv_gib, allocation_gib=sort_gib)


def _amount(gib: float) -> str:
    return f"{gib:.2f} GiB" if gib >= 1 else f"{gib * 1024:.2f} MiB"
