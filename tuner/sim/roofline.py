"""How long one step of the engine takes, from the hardware's limits and what kernels and host make of them.

A step reads weights once (of the experts only those visited), reads the KV cache of its sequences, and computes; each
part takes the longer of its memory and its compute time, divided by the efficiency that is reached. Host work,
launches and all-reduces come on top. Efficiencies are at most one and a step is never shorter than ``floor_s``, so
nothing is faster than the hardware could be.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

from tuner.sim.hardware import GIB
from tuner.sim.settings import Settings

TUNED_GAIN = 1.6
"""What Inductor's autotuning gives the kernels of a compiled size (fitted: +30 % with five users)."""
DESCENT_SHARE = 0.25
"""The part of it that coordinate descent gives; the rest is max-autotune's."""
PADDING_SHARE = 0.1
"""How much of a padded sequence's experts is read besides those of real ones."""
DUMMY_SPREAD = 0.2
"""Dummy weights send all tokens to the same experts (docs/h200.md: 4 of 64 at any batch). This share of the distinct
ones of real weights is fitted to an H100's throughput: it stands for what larger batches cost besides reading."""
EXPERT_PARALLEL_DECODE = 1.03
EXPERT_PARALLEL_PREFILL = 0.95
"""Whole experts on each GPU: uneven work in small batches, better shaped work in large ones."""
ATOMIC_ADD_GAIN = 1.015
"""VLLM_MARLIN_USE_ATOMIC_ADD, in small batches of 4-bit weights."""
OTHER_BACKEND = 0.85
"""Attention of each backend against that of the one before it in vLLM's own order: a guess."""
REDUCED_PRECISION_GAIN = 1.004
"""Tensor cores for the few products in float32: the experts' router."""
SMALL_BATCH = 16
V0_SLOWDOWN = 1.17
"""The V0 engine's host work against V1's."""
PIPELINE_BUBBLE = 1.28
"""With several sequences under pipeline parallelism: micro-batches of unequal size leave stages idle."""
STAGE_HOP_MS = 0.5
"""Handing a step over to the next pipeline stage."""
DRAFT_COST = 0.14
"""What a step costs more for each speculative token."""
SINGLE_THREAD_MS = 0.25
"""Host work more with OMP_NUM_THREADS unset, which vLLM reduces to one thread."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """What one step has to do.

    Attributes:
        decodes: Sequences that generate one token.
        decode_context: Their cached tokens, summed.
        prefill_tokens: Prompt tokens computed.
        prefills: Sequences they belong to.
        prefill_pairs: Pairs of query and key among them, context included.
        prefill_context: Cached tokens that come before them, summed.
    """

    decodes: int = 0
    decode_context: float = 0.0
    prefill_tokens: int = 0
    prefills: int = 0
    prefill_pairs: float = 0.0
    prefill_context: int = 0

    @property
    def tokens(self) -> int:
        """All tokens of the batch."""
        return self.decodes + self.prefill_tokens


class Roofline:
    """Step times of one configuration.

    Args:
        settings: The engine's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        hardware, model, tp = settings.site.hardware, settings.model, settings.tensor_parallel_size
        self.settings = settings
        self.sizes = settings.capture_sizes
        self.tuned = settings.tuned_sizes
        self._bandwidth = hardware.bandwidth_gb_s * 1e9 * tp
        self._peak = hardware.peak_tflops * 1e12 * tp
        self._kv_bandwidth = hardware.bandwidth_gb_s * 1e9
        self._kv_bytes = model.kv_bytes(settings.kv_element_bytes, settings.use_mla, tp)
        self._experts = model.experts
        self._expert_bytes = model.routed_bytes / model.experts.count if model.experts else 0.0
        self._base_bytes = model.step_bytes(0.0)
        self._memory_efficiency = hardware.memory_efficiency * model.kernel_efficiency
        self._gain = self._tuned_gain()
        self._host_s = self._host()

    def step_s(self, shape: StepShape) -> float:
        """Duration of a step in seconds, without noise."""
        settings, hardware = self.settings, self.settings.site.hardware
        padded = self.padded(shape.tokens)
        graphed = padded > 0
        gpu = self._linear_s(shape, padded) + self._attention_s(shape)
        gpu += self._all_reduce_s(padded or shape.tokens)
        busy = gpu if graphed and not shape.prefills and settings.full_graphs else max(gpu, self._launch_s(graphed))
        step = self._host_s + hardware.host.sequence_us * 1e-6 * (shape.decodes + shape.prefills) + busy
        step *= 1.0 + DRAFT_COST * settings.speculative_tokens
        if settings.pipeline_parallel_size > 1 and shape.decodes + shape.prefills > 1:
            step *= PIPELINE_BUBBLE
        if settings.v0:
            step *= V0_SLOWDOWN
        return max(step, self.floor_s(shape))

    def floor_s(self, shape: StepShape) -> float:
        """What the step takes at the hardware's limits, were everything overlapped and every kernel perfect."""
        moved = self.weight_bytes(shape.tokens) / self._bandwidth + self._kv_read_bytes(shape) / self._kv_bandwidth
        return max(moved, (self._linear_flops(shape) + self._attention_flops(shape)) / self._peak)

    def padded(self, tokens: int) -> int:
        """The captured size that a batch is padded to; 0 where no graph fits."""
        index = bisect_left(self.sizes, tokens)
        return self.sizes[index] if index < len(self.sizes) else 0

    def weight_bytes(self, tokens: float) -> float:
        """Bytes of weights that a batch of ``tokens`` reads, all GPUs together, expecting uniform routing."""
        return self._base_bytes + self._expert_bytes * self._distinct(tokens)

    def _distinct(self, tokens: float) -> float:
        if self._experts is None:
            return 0.0
        missed = math.pow(1.0 - self._experts.active / self._experts.count, tokens)
        distinct = self._experts.count * (1.0 - missed)
        if self.settings.load_format == "dummy":
            return max(float(self._experts.active), distinct * DUMMY_SPREAD)
        return distinct

    def _linear_s(self, shape: StepShape, padded: int) -> float:
        tokens = shape.tokens
        size = padded or tokens
        memory = self.weight_bytes(tokens + PADDING_SHARE * (size - tokens)) / self._bandwidth
        memory *= 1.0 + self.settings.model.batch_slope * (min(size, SMALL_BATCH) - 1)
        memory /= self._memory_efficiency * self._small_batch_gain(size)
        compute = self._linear_flops(shape) / (self._peak * self.settings.site.hardware.compute_efficiency)
        if self.settings.enable_expert_parallel:
            memory *= EXPERT_PARALLEL_DECODE
            compute *= EXPERT_PARALLEL_PREFILL
        return max(memory, compute)

    def _small_batch_gain(self, size: int) -> float:
        gain = self._gain if size in self.tuned else 1.0
        if self.settings.reduced_precision:
            gain *= REDUCED_PRECISION_GAIN
        if self.settings.atomic_add and size <= SMALL_BATCH and self.settings.model.quantization:
            gain *= ATOMIC_ADD_GAIN
        return gain

    def _tuned_gain(self) -> float:
        share = (1.0 - DESCENT_SHARE) * self.settings.max_autotune
        return 1.0 + (TUNED_GAIN - 1.0) * (share + DESCENT_SHARE * self.settings.coordinate_descent_tuning)

    def _attention_s(self, shape: StepShape) -> float:
        efficiency = self.settings.site.hardware.attention_efficiency * self._backend_efficiency
        moved = self._kv_read_bytes(shape) / (self._kv_bandwidth * efficiency)
        compute_efficiency = self.settings.site.hardware.compute_efficiency
        return max(moved, self._attention_flops(shape) / (self._peak * compute_efficiency))

    @property
    def _backend_efficiency(self) -> float:
        """What the backend that was asked for reaches of what vLLM's own choice does."""
        asked, names = self.settings.attention_backend, self.settings.attention_backends
        return OTHER_BACKEND ** names.index(asked) if asked in names else 1.0

    def _kv_read_bytes(self, shape: StepShape) -> float:
        return (shape.decode_context + shape.prefill_context) * self._kv_bytes

    def _linear_flops(self, shape: StepShape) -> float:
        model = self.settings.model
        heads = (shape.decodes + shape.prefills) * 2.0 * model.head_params
        return shape.tokens * model.token_flops + heads

    def _attention_flops(self, shape: StepShape) -> float:
        model = self.settings.model
        context = shape.prefill_context * model.context_flops if self.settings.use_mla else 0.0
        return (shape.prefill_pairs + shape.decode_context) * model.pair_flops + context

    def _all_reduce_s(self, tokens: int) -> float:
        settings, hardware = self.settings, self.settings.site.hardware
        if settings.tensor_parallel_size == 1:
            return 0.0
        latency = hardware.all_reduce_us * 1e-6
        moved = tokens * settings.model.hidden * 2 / (hardware.link_gb_s * 1e9)
        return 2 * settings.model.layers * (latency + moved)

    def _launch_s(self, graphed: bool) -> float:
        """Time to launch a step's kernels where no full graph does it."""
        host, model = self.settings.site.hardware.host, self.settings.model
        compiled = not self.settings.enforce_eager
        per_layer = host.compiled_layer_ms if compiled else host.eager_layer_ms
        launches = per_layer * model.launch_factor * model.layers * 1e-3
        return launches * (1.0 if graphed or not compiled else 2.0)

    def _host(self) -> float:
        settings, host = self.settings, self.settings.site.hardware.host
        step = host.step_ms + STAGE_HOP_MS * (settings.pipeline_parallel_size - 1)
        if not settings.async_scheduling:
            step += host.synchronous_ms
        if settings.omp_num_threads in (None, 1):
            step += SINGLE_THREAD_MS
        return step * 1e-3


def kv_gib(settings: Settings, tokens: int) -> float:
    """KV cache of ``tokens`` tokens on the fullest GPU, in GiB."""
    return tokens * settings.kv_token_bytes / GIB


def frontend_s(settings: Settings, prompt_tokens: int) -> float:
    """Time from the client's request until the scheduler sees it."""
    host = settings.site.hardware.host
    return host.request_ms * 1e-3 + host.request_us_per_token * 1e-6 * prompt_tokens
