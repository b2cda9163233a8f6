"""What a vLLM server takes of each GPU's memory: the formulas, one for each term.

vLLM's own accounting (``v1/worker/gpu_worker.py::determine_available_memory``): a share of the card is requested;
weights, the peak of a profiling run, what torch does not see and, from 0.20 on, an estimate of the CUDA graphs go off
it; the rest becomes KV cache. What the formulas count was read in vLLM's source (0.26.0 and 0.32.0, and notes on it for
older versions); each says where. All sizes are GiB of the fullest GPU.

Nothing here is fitted but four constants, which stand at the top with the logs that they come from. What a machine's
own starts say replaces them: see ``calibration``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.cache import GIB, CacheLayout, cache_of
from tuner.engines.vllm.memory.demand import Demand, at_least
from tuner.engines.vllm.memory.weights import weight_bytes
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.model.parts import Feed, Mixer

MIB = float(1 << 20)

NON_TORCH_GIB = 0.25
"""What CUDA's libraries take after the engine's first look at its memory (0.23 to 0.25 in three H100 runs)."""
NON_TORCH_RANK_GIB = 0.12
"""What each further rank adds to it: 0.6 GiB with four H100s (0.26, vllm#48601), 0.36 with two 4090s (a user's log)."""
LINKED_GIB, LINKED_UNTIL = 1.85, (0, 26)
"""What ranks behind NVLink take besides, up to that version: 2.1 GiB in all on H100s with 0.19, whatever their number.
NCCL and the custom all-reduce allocate it during the profiling run; other cards talk through the host."""
LINKED_CAPABILITIES = ((8, 0), (9, 0), (10, 0), (10, 3))
GRAPH_MIB, GRAPH_LAYER_MIB = 4.9, 0.186
"""One captured CUDA graph, and each layer in it (three H100 runs: 9 and 30 graphs of 12 layers, 30 of 47)."""
ESTIMATE_MIB, ESTIMATE_GRAPH_MIB, ESTIMATE_LAYER_MIB = 61.0, 2.3, 0.177
"""vLLM's estimate of all graphs: the first captures, each further graph, each layer in it (the same runs)."""
COMPILER_GIB = 1.3
"""Peak of the compiler's own buffers, where nothing was compiled before (1.29 GiB for Qwen3-8B on an H200, 1.34 in
syv-ai/qwen38-27b-rtx3090#75)."""
FRAGMENTS, FRAGMENTS_GIB = 1.1, 1.6
"""What a sampler that sorts leaves reserved and unusable after its warm-up, as a multiple of its buffers (914 MiB in
vllm#33920), and the most of it: starts with 5.6 GiB of buffers came up in less room than twice that."""

PREFILL_TOKENS = 64 * 1024
"""Most tokens of context that MLA's chunked prefill gathers at once (``determine_chunked_prefill_workspace_size``)."""
EXPERT_CHUNK_TOKENS = 16 * 1024
"""Before 0.20 longer batches go through the experts in pieces (``VLLM_FUSED_MOE_CHUNK_SIZE``)."""
WORK_PER_SPLIT = 512
"""Tokens of context in one split of TRITON_MLA's decoding (``triton_mla.py::_compute_num_kv_splits``)."""
SPLITS_PER_MULTIPROCESSOR = 2
SORTED_BYTES = 4 + 8
"""A sorted logit and its 64-bit index."""
SORTING_BYTES = 4 + 8 + 8
"""What sorting rows takes while it does: both once more, and the order that it began with (5.64 GiB of peak with 1,024
sequences and 151,936 tokens of vocabulary)."""


class Part(StrEnum):
    """What the profiling run allocates next to the weights."""

    TOKENS = "activations of a batch"
    EXPERTS = "the experts' workspace"
    PREFILL = "the MLA prefill's up-projection"
    SHARED = "the shared experts' intermediate"
    MLP = "the MLP's intermediate"
    LOGITS = "the sampler's buffers"
    STATE = "the states' intermediate"
    TOWER = "the tower's activations"
    IMAGES = "encoded images"
    SPLIT_KV = "TRITON_MLA's split-KV workspace"
    OTHER = "other buffers"
    COMPILER = "the compiler's buffers"
    TUNING = "the tuning of compiled sizes"


class Peak(StrEnum):
    """The moments at which the profiling run may reach its peak."""

    ATTENTION = "attention"
    EXPERTS = "experts"
    MLP = "MLP"
    SAMPLER = "sampler"
    STATE = "state"
    TOWER = "tower"
    COMPILER = "compilation"


_ALWAYS = (Part.IMAGES, Part.SPLIT_KV, Part.OTHER)
PEAKS: Mapping[Peak, tuple[Part, ...]] = {
    Peak.ATTENTION: (Part.TOKENS, Part.EXPERTS, Part.PREFILL, *_ALWAYS),
    Peak.EXPERTS: (Part.SHARED, Part.EXPERTS, *_ALWAYS),
    Peak.MLP: (Part.MLP, *_ALWAYS),
    Peak.SAMPLER: (Part.LOGITS, Part.EXPERTS, *_ALWAYS),
    Peak.STATE: (Part.STATE, Part.EXPERTS, *_ALWAYS),
    Peak.TOWER: (Part.TOWER, *_ALWAYS),
    Peak.COMPILER: (Part.COMPILER, Part.TUNING),
}
"""What is allocated together. The experts' workspace stays once it was there (``v1/worker/workspace.py``)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the formulas give for one demand, in GiB.

    Attributes:
        weights_gib: Weights.
        parts_gib: What the profiling run of a compiled model allocates; as far as is known, neither ``SPLIT_KV`` nor
            ``OTHER``.
        non_torch_gib: CUDA libraries, NCCL.
        graph_estimate_gib: What vLLM sets aside for CUDA graphs; 0 where it does not.
        graph_gib: What the graphs really take.
        kept_gib: What of the profiling run's peak stays allocated: the experts' workspace.
        split_kv_gib: What TRITON_MLA keeps for partial results over a split context, in the same workspace.
        gather_gib: What MLA's prefill gathers of the cached context.
        warm_up_gib: What the sampler's warm-up needs next to the KV cache.
        cache: The KV cache's layout.
    """

    weights_gib: float
    parts_gib: Mapping[Part, float]
    non_torch_gib: float
    graph_estimate_gib: float
    graph_gib: float
    kept_gib: float
    split_kv_gib: float
    gather_gib: float
    warm_up_gib: float
    cache: CacheLayout

    @property
    def peak(self) -> Peak:
        """The moment of the profiling run that takes most."""
        return max(PEAKS, key=self.peak_gib)

    @property
    def activation_gib(self) -> float:
        """The profiling run's peak, next to the weights."""
        return self.peak_gib(self.peak)

    def peak_gib(self, peak: Peak) -> float:
        """What is allocated at one moment of the profiling run."""
        return sum(self.parts_gib[part] for part in PEAKS[peak])

    @property
    def overhead_gib(self) -> float:
        """All that goes off the requested memory before the KV cache."""
        return self.weights_gib + self.activation_gib + self.non_torch_gib + self.graph_estimate_gib

    @property
    def resident_gib(self) -> float:
        """All that stays allocated next to the KV cache when the graphs have been captured."""
        workspace = max(self.kept_gib, self.split_kv_gib)
        return self.weights_gib + self.non_torch_gib + workspace + self.gather_gib + self.graph_gib


def sizes_of(model: Architecture, demand: Demand, hardware: Hardware) -> Sizes | None:
    """What the formulas give; ``None`` where something that they need is not known (``unknown`` says what)."""
    if unknown(model, demand):
        return None
    return _Formulas(model, demand, hardware).sizes()


def unknown(model: Architecture, demand: Demand) -> tuple[str, ...]:
    """What keeps memory from being predicted; empty when it can be."""
    absent = [name for name in ("max_num_seqs", "max_num_batched_tokens") if getattr(demand, name) is None]
    if demand.kv_element_bytes is None:
        absent.append(f"the size of {demand.kv_cache_dtype}")
    return (*model.missing, *absent, *demand.beyond)


class _Formulas:
    """The formulas of one demand, in bytes; every field that they need is known."""

    def __init__(self, model: Architecture, demand: Demand, hardware: Hardware) -> None:
        self.model = model
        self.demand = demand
        self.hardware = hardware
        self.hidden = _known(model.hidden)
        assert model.full is not None
        self.heads = -(-model.full.queries // demand.tensor_parallel)
        self.kv_heads = max(1, model.full.keys // demand.tensor_parallel)
        self.full = model.full
        self.seqs = _known(demand.max_num_seqs)
        self.tokens = _known(demand.max_num_batched_tokens)
        self.length = demand.max_model_len or _known(model.max_positions)
        self.layers = -(-_known(model.layers) // demand.pipeline_parallel)
        self.mla = model.mla if demand.use_mla else None
        self.element = demand.element_bytes

    def sizes(self) -> Sizes:
        return Sizes(
            weights_gib=weight_bytes(self.model, self.demand) / GIB,
            parts_gib={
                **dict.fromkeys(Part, 0.0),
                Part.TOKENS: self.activations() / GIB,
                Part.EXPERTS: self.expert_workspace() / GIB,
                Part.PREFILL: self.prefill_projection() / GIB,
                Part.SHARED: self.shared_experts() / GIB,
                Part.MLP: self.mlp() / GIB,
                Part.LOGITS: (self.profiled_logits() + self.tokens * self.hidden * self.element) / GIB,
                Part.STATE: self.states() / GIB,
                Part.TOWER: self.tower() / GIB,
                Part.IMAGES: self.encoded() / GIB,
            },
            non_torch_gib=self.non_torch_gib(),
            graph_estimate_gib=self.graph_estimate() / GIB if self.demand.graphs_counted else 0.0,
            graph_gib=self.demand.graphs * (GRAPH_MIB + GRAPH_LAYER_MIB * self.layers) * MIB / GIB,
            kept_gib=self.expert_workspace() / GIB,
            split_kv_gib=self.split_kv() / GIB,
            gather_gib=self.gathered() / GIB,
            warm_up_gib=self.warm_up_gib(),
            cache=cache_of(self.model, self.demand, self.length),
        )

    def non_torch_gib(self) -> float:
        """CUDA's libraries, and what ranks need to talk to each other."""
        further = self.demand.world_size - 1
        known = self.hardware.linked
        usual = self.hardware.capability in LINKED_CAPABILITIES
        linked = self.demand.tensor_parallel > 1 and (usual if known is None else known)
        linked = linked and not at_least(self.demand.version, *LINKED_UNTIL)
        return NON_TORCH_GIB + (LINKED_GIB if linked else NON_TORCH_RANK_GIB * further)

    @property
    def eager_copies(self) -> int:
        """Compiled layers work in place where eager ones make a copy of the stream (seen on an H200)."""
        return 1 if self.demand.eager else 0

    def activations(self) -> float:
        """What a layer's attention keeps of a batch: residual stream and its copy, queries, keys, values, output.

        ``models/deepseek_v2.py`` and ``models/qwen3.py``: with MLA keys and values are one latent; without, queries,
        keys and values stand twice, projected and normed.
        """
        if self.mla:
            heads = self.heads * (self.mla.nope + self.mla.rope + self.mla.v) + self.mla.kv_rank + self.mla.rope
        else:
            heads = (3 * (self.heads + self.kv_heads) + (self.full.projections - 1) * self.heads) * self.full.width
        return self.tokens * ((2 + self.eager_copies) * self.hidden + heads) * self.element

    def expert_workspace(self) -> float:
        """Both workspaces of the fused experts (``fused_moe/experts/triton_moe.py`` and ``marlin_moe.py``).

        ``workspace_shapes``: tokens × experts a token × max(width, hidden), and the same with twice the width. Under
        expert parallelism a rank's experts are whole, and every rank still provides for all tokens.
        """
        experts = self.model.experts
        if experts is None:
            return 0.0
        cut = 1 if self.demand.expert_parallel else self.demand.experts_divided_by
        width, hidden = -(-experts.intermediate // cut), experts.latent or self.hidden
        chunked = not at_least(self.demand.version, 0, 20)
        tokens = min(self.tokens, EXPERT_CHUNK_TOKENS) if chunked else self.tokens
        up = (experts.matrices - 1) * width
        return tokens * experts.active * (max(width, hidden) + max(up, hidden)) * self.element

    def prefill_tokens(self) -> int:
        """Tokens of cached context that MLA's chunked prefill takes at once."""
        return min(max(8 * self.length, 4 * self.seqs * self.demand.block_size), PREFILL_TOKENS)

    def prefill_projection(self) -> float:
        """The worst case of ``kv_b_proj``'s output, which the profiling run simulates (``mla_attention.py``)."""
        if self.mla is None:
            return 0.0
        return self.prefill_tokens() * self.heads * (self.mla.nope + self.mla.v) * self.element

    def gathered(self) -> float:
        """The cached context that such a prefill gathers; allocated after the profiling run, and counted nowhere."""
        if self.mla is None:
            return 0.0
        return self.prefill_tokens() * (self.mla.kv_rank + self.mla.rope) * self.element

    def mlp(self) -> float:
        """An ordinary MLP: input, residual and output, gate and up together, and their product."""
        widths = [layer.width or self.model.intermediate or 0 for layer in self.model.kinds if layer.feed in _MLPS]
        if not widths:
            return 0.0
        width = max(widths) / self.demand.tensor_parallel
        return self.tokens * ((3 + self.eager_copies) * self.hidden + self.model.matrices * width) * self.element

    def states(self) -> float:
        """A layer with a state: the stream and its copy, what goes into the convolution, and its parts in a row."""
        if self.model.state is None or not any(layer.mixer in _STATES for layer in self.model.kinds):
            return 0.0
        width = self.model.state.weights / self.hidden / self.demand.tensor_parallel
        return self.tokens * ((2 + self.eager_copies) * self.hidden + 2 * width) * self.element

    def encoded_tokens(self) -> int:
        """Tokens of images in the profiling run: as many as a batch holds, or one of the largest (``profile_run``)."""
        encoder = self.model.encoder
        if encoder is None or self.demand.language_only or not self.demand.profiles_towers:
            return 0
        image = min(encoder.tokens, self.length)
        if not image:
            return self.tokens
        film = image * max(1, min(encoder.frames, self.length // image)) if self.demand.films else image
        return film * max(1, min(self.tokens // film, self.seqs))

    def encoded(self) -> float:
        """What of them waits for the decoder, all of the run long."""
        outputs = self.model.encoder.outputs if self.model.encoder else 0
        return self.encoded_tokens() * outputs * self.hidden * self.element

    def tower(self) -> float:
        """A layer of the tower over all their patches: the stream and its copy, and its attention's or MLP's parts.

        The patches themselves stay, as float32 and in the model's format.
        """
        encoder = self.model.encoder
        if encoder is None:
            return 0.0
        inner = max(4 * encoder.hidden, 2 * encoder.intermediate) / self.demand.tensor_parallel
        patch = (2 * encoder.hidden + inner + encoder.pixels) * self.element + encoder.pixels * 4
        return self.encoded_tokens() * encoder.merged * patch

    def shared_experts(self) -> float:
        """What an expert layer keeps next to the workspace: input, residual, output, and the shared experts' MLP."""
        if self.model.experts is None:
            return 0.0
        width = self.model.experts.shared_intermediate / self.demand.tensor_parallel
        return self.tokens * ((3 + self.eager_copies) * self.hidden + 3 * width) * self.element

    def logits(self) -> float:
        """The sampler's buffers for every sequence (``v1/sample/ops/topk_topp_sampler.py``).

        The caller's logits, their float32 copy, and: with sorting (up to 0.16), what comes of it and what it needs;
        from 0.17 on, where a Triton kernel replaced sorting (vllm#33538), probabilities and noise, and a row of logits
        for each of the kernel's programs.
        """
        vocab = _known(self.model.vocab)
        if self.sorts:
            return self.seqs * vocab * (self.element + 4 + SORTED_BYTES + SORTING_BYTES)
        programs = min(self.hardware.multiprocessors or self.seqs, 1 << (self.seqs - 1).bit_length())
        return self.seqs * vocab * (self.element + 4 + 4 + 4) + programs * vocab * 4

    @property
    def sorts(self) -> bool:
        """Whether the sampler sorts."""
        return not at_least(self.demand.version, 0, 17)

    def warm_up_gib(self) -> float:
        """The sampler's buffers once more, next to the KV cache, and what sorting leaves in pieces."""
        buffers = self.logits() / GIB
        return buffers + min(FRAGMENTS * buffers, FRAGMENTS_GIB) if self.sorts else buffers

    def profiled_logits(self) -> float:
        """What of it the profiling run sees: the second runner's samples without top-k and top-p."""
        if self.demand.v2_runner:
            return self.seqs * _known(self.model.vocab) * self.element
        return self.logits()

    def split_kv(self) -> float:
        """TRITON_MLA's partial results (``triton_mla.py::_reserve_attn_logits_workspace``, from 0.20 on).

        Sequences × heads × splits × (latent + 1) float32 numbers; the splits are those of the longest context, at most
        two for each multiprocessor. It is reserved after the profiling run, in the same workspace as the experts', and
        counted nowhere: seen on an H200, where 2.5 GiB of it left the KV cache as large as without.
        """
        if self.mla is None or not self.demand.triton_mla or not at_least(self.demand.version, 0, 20):
            return 0.0
        splits = 1 << (max(1, self.length // WORK_PER_SPLIT) - 1).bit_length()
        if self.hardware.multiprocessors:
            splits = min(splits, SPLITS_PER_MULTIPROCESSOR * self.hardware.multiprocessors)
        return self.seqs * self.heads * splits * (self.mla.kv_rank + 1) * 4.0

    def graph_estimate(self) -> float:
        """``gpu_model_runner.py::profile_cudagraph_memory``: the first capture, and so much for each further one."""
        if not self.demand.graphs:
            return 0.0
        return (ESTIMATE_MIB + self.demand.graphs * (ESTIMATE_GRAPH_MIB + ESTIMATE_LAYER_MIB * self.layers)) * MIB


_MLPS = (Feed.MLP, Feed.BOTH)
_STATES = (Mixer.STATE, Mixer.BOTH)


def _known(value: int | None) -> int:
    """A field whose absence ``unknown`` would have reported."""
    assert value is not None
    return value


class StartStage(StrEnum):
    """When in a start memory is taken, in order."""

    REQUEST = "request"
    WEIGHTS = "weights"
    PROFILING = "profiling"
    CACHE = "cache"
    WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class Shortage:
    """The allocation that would fail first.

    Attributes:
        stage: When.
        cause: As the engine's log would have it.
        allocation: What could not be allocated, in words.
        needed_gib: What is needed in all up to there.
        available_gib: What there is.
    """

    stage: StartStage
    cause: Cause
    allocation: str
    needed_gib: float
    available_gib: float


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What one server would take of its fullest GPU, and what would fail first. GiB, where the name says no other.

    Attributes:
        requested_gib: The share of the GPU that is asked for; ``None`` where its memory is not known.
        weights_gib: Weights.
        activation_gib: Peak of the profiling run next to them.
        peak: Where that is reached.
        non_torch_gib: CUDA libraries, NCCL.
        graph_estimate_gib: What is set aside for CUDA graphs.
        graph_gib: What they take.
        sampler_gib: The sampler's buffers, for every sequence.
        kv_token_bytes: KV cache of one token, in bytes.
        kv_gib: What is left for the KV cache; ``None`` where ``requested_gib`` is.
        kv_tokens: Tokens it holds.
        max_concurrency: How many requests of full length fit at once.
        request_gib: KV cache of one such request.
        shortage: What would fail first; ``None`` if nothing does.
    """

    requested_gib: float | None
    weights_gib: float
    activation_gib: float
    peak: str
    non_torch_gib: float
    graph_estimate_gib: float
    graph_gib: float
    sampler_gib: float
    kv_token_bytes: float
    kv_gib: float | None
    kv_tokens: int | None
    max_concurrency: float | None
    request_gib: float
    shortage: Shortage | None


def account(sizes: Sizes, demand: Demand, hardware: Hardware) -> MemoryEstimate:
    """VLLM's accounting of these sizes on this hardware."""
    requested = None if hardware.total_gib is None else hardware.total_gib * demand.utilization
    kv = kv_gib(sizes, demand, hardware)
    blocks = None if kv is None else sizes.cache.blocks(kv)
    per_request = sizes.cache.blocks_per_request
    return MemoryEstimate(
        requested_gib=requested,
        weights_gib=sizes.weights_gib,
        activation_gib=sizes.activation_gib,
        peak=sizes.peak.value,
        non_torch_gib=sizes.non_torch_gib,
        graph_estimate_gib=sizes.graph_estimate_gib,
        graph_gib=sizes.graph_gib,
        sampler_gib=sizes.parts_gib[Part.LOGITS],
        kv_token_bytes=sizes.cache.token_bytes,
        kv_gib=kv,
        kv_tokens=None if kv is None else sizes.cache.tokens(kv),
        max_concurrency=blocks / per_request if blocks is not None and per_request else None,
        request_gib=sizes.cache.request_gib,
        shortage=free_shortage(demand, hardware) or _shortage(sizes, hardware.free_gib, kv),
    )


def free_shortage(demand: Demand, hardware: Hardware) -> Shortage | None:
    """The first thing that a worker checks (``v1/worker/utils.py::request_memory``); needs no model."""
    total, free = hardware.least_total_gib, hardware.free_gib
    if total is None or free is None or total * demand.utilization <= free:
        return None
    wanted = total * demand.utilization
    return Shortage(StartStage.REQUEST, Cause.INSUFFICIENT_FREE_MEMORY, "the share of the GPU", wanted, free)


def kv_gib(sizes: Sizes, demand: Demand, hardware: Hardware) -> float | None:
    """What is left for the KV cache; ``None`` where the GPU's memory is not known."""
    if demand.kv_cache_memory_bytes is not None:
        return demand.kv_cache_memory_bytes / GIB
    return None if hardware.total_gib is None else hardware.total_gib * demand.utilization - sizes.overhead_gib


def _shortage(sizes: Sizes, free: float | None, kv: float | None) -> Shortage | None:
    """In the order in which a start allocates: weights, profiling run, KV cache, graphs, the sampler's warm-up."""
    loaded = sizes.weights_gib + sizes.non_torch_gib
    if free is not None and loaded > free:
        return Shortage(StartStage.WEIGHTS, Cause.CUDA_OOM, "weights", loaded, free)
    if free is not None and loaded + sizes.activation_gib > free:
        peak = loaded + sizes.activation_gib
        return Shortage(StartStage.PROFILING, Cause.CUDA_OOM, f"{sizes.peak} in the profiling run", peak, free)
    if kv is not None and (found := _cache_shortage(sizes, kv)):
        return found
    return None if kv is None or free is None else _late_shortage(sizes, free, kv)


def _cache_shortage(sizes: Sizes, kv: float) -> Shortage | None:
    if kv <= 0:
        return Shortage(StartStage.CACHE, Cause.NO_KV_CACHE, "KV cache", sizes.cache.request_gib, kv)
    if sizes.cache.blocks(kv) < (sizes.cache.blocks_per_request or 0):
        what = "KV cache for one request of the full context"
        return Shortage(StartStage.CACHE, Cause.CONTEXT_EXCEEDS_KV_CACHE, what, sizes.cache.request_gib, kv)
    return None


def _late_shortage(sizes: Sizes, free: float, kv: float) -> Shortage | None:
    """What comes after the KV cache must find room next to it."""
    resident = sizes.resident_gib + kv
    if resident > free:
        split = sizes.split_kv_gib > max(sizes.graph_gib, sizes.kept_gib)
        what = "TRITON_MLA's split-KV workspace" if split else "CUDA graphs"
        return Shortage(StartStage.WARM_UP, Cause.CUDA_OOM, what, resident, free)
    if resident + sizes.warm_up_gib > free:
        needed = resident + sizes.warm_up_gib
        return Shortage(StartStage.WARM_UP, Cause.CUDA_OOM, "the sampler's warm-up", needed, free)
    return None
