"""GPUs and the hosts they sit in, as far as they decide memory and speed.

Physical limits (memory, bandwidth, peak) are the vendor's. The rest is what one site measured there: how much of the
limits its kernels reach and what its host adds to each step, so that the same engine gives that site's figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

GIB = float(1 << 30)


@dataclass(frozen=True, slots=True)
class HostTimes:
    """What the host adds to the GPU's work.

    Attributes:
        step_ms: Scheduling, input preparation and sampling, each step.
        sequence_us: More of the same for each sequence in the batch.
        synchronous_ms: What a step costs more when scheduling does not overlap the GPU's work.
        eager_layer_ms: Launching one layer's kernels one by one.
        compiled_layer_ms: Launching one compiled layer outside a full CUDA graph.
        request_ms: Parsing, templating and the way through proxies, each request before it is scheduled.
        request_us_per_token: Tokenizing and hashing, each prompt token.
    """

    step_ms: float
    sequence_us: float
    synchronous_ms: float
    eager_layer_ms: float
    compiled_layer_ms: float
    request_ms: float
    request_us_per_token: float


@dataclass(frozen=True, slots=True)
class StartupTimes:
    """How long the parts of a start take, in seconds on the real machine.

    Attributes:
        import_s: Importing torch and vLLM and resolving the model's config.
        engine_s: Starting the engine's own process.
        distributed_s: Joining the workers, each start.
        load_gb_s: Reading weights from disk, all ranks together, in 1e9 bytes a second.
        dynamo_s: Tracing the model, warm or cold; cold takes three times as long.
        compile_s: Compiling the general graph when the cache has none.
        compile_size_s: Compiling one more size, likewise.
        profile_s: The profiling run.
        graph_ms: Capturing one CUDA graph.
        jit_cold_s: The first request's wait for just-in-time compilation, with nothing cached.
        jit_warm_s: The same with a filled cache.
    """

    import_s: float
    engine_s: float
    distributed_s: float
    load_gb_s: float
    dynamo_s: float
    compile_s: float
    compile_size_s: float
    profile_s: float
    graph_ms: float
    jit_cold_s: float
    jit_warm_s: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU of a site.

    Attributes:
        name: The preset's name.
        device_name: As vLLM writes it in file names.
        total_gib: Memory as torch sees it.
        free_gib: Memory free when a server starts.
        bandwidth_gb_s: Memory bandwidth, 1e9 bytes a second.
        peak_tflops: Dense half-precision peak, 1e12 operations a second: nothing is ever faster.
        capability: Compute capability.
        mla_backends: MLA attention backends that run on it, best first.
        attention_backends: The other attention backends, best first.
        memory_efficiency: Share of the bandwidth that reading weights reaches with untuned kernels.
        compute_efficiency: Share of the peak that prefill reaches.
        attention_efficiency: Share of bandwidth and peak that attention reaches.
        all_reduce_us: Latency of one all-reduce between its GPUs.
        link_gb_s: Bandwidth between its GPUs.
        non_torch_gib: CUDA context and libraries.
        non_torch_tp_gib: What NCCL adds when several GPUs work together.
        host: What the host adds.
        startup: How long a start takes.
    """

    name: str
    device_name: str
    total_gib: float
    free_gib: float
    bandwidth_gb_s: float
    peak_tflops: float
    capability: tuple[int, int]
    mla_backends: tuple[str, ...]
    attention_backends: tuple[str, ...]
    memory_efficiency: float
    compute_efficiency: float
    attention_efficiency: float
    all_reduce_us: float
    link_gb_s: float
    non_torch_gib: float
    non_torch_tp_gib: float
    host: HostTimes
    startup: StartupTimes


# The first user's site: WSL2, PCIe without peer-to-peer. Total and free memory as vLLM printed them there; the times
# and efficiencies are fitted to the table of measurements in tests/sim/test_calibration.py.
RTX4090 = Hardware(
    name="rtx4090",
    device_name="NVIDIA_GeForce_RTX_4090",
    total_gib=23.99,
    free_gib=22.26,
    bandwidth_gb_s=1008.0,
    peak_tflops=330.3,
    capability=(8, 9),
    mla_backends=("TRITON_MLA",),
    attention_backends=("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"),
    memory_efficiency=0.225,
    compute_efficiency=0.42,
    attention_efficiency=0.45,
    all_reduce_us=72.0,
    link_gb_s=12.0,
    non_torch_gib=0.25,
    non_torch_tp_gib=0.13,
    host=HostTimes(
        step_ms=5.2,
        sequence_us=12.0,
        synchronous_ms=1.5,
        eager_layer_ms=1.35,
        compiled_layer_ms=0.11,
        request_ms=172.0,
        request_us_per_token=8.1,
    ),
    startup=StartupTimes(
        import_s=14.0,
        engine_s=11.0,
        distributed_s=4.0,
        load_gb_s=0.85,
        dynamo_s=4.0,
        compile_s=26.0,
        compile_size_s=14.0,
        profile_s=7.0,
        graph_ms=330.0,
        jit_cold_s=10.5,
        jit_warm_s=1.2,
    ),
)

# Native Linux, as in the report vllm#33920.
RTX4090_LINUX = replace(RTX4090, name="rtx4090-linux", total_gib=23.52, free_gib=23.10)

# One H100 80GB of the runs in ../shared/engine-logs: slow host, fast card.
H100 = Hardware(
    name="h100",
    device_name="NVIDIA_H100_80GB_HBM3",
    total_gib=79.18,
    free_gib=78.66,
    bandwidth_gb_s=3350.0,
    peak_tflops=989.0,
    capability=(9, 0),
    mla_backends=("FLASH_ATTN_MLA", "FLASHMLA", "TRITON_MLA"),
    attention_backends=("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"),
    memory_efficiency=0.66,
    compute_efficiency=0.19,
    attention_efficiency=0.55,
    all_reduce_us=14.0,
    link_gb_s=450.0,
    non_torch_gib=0.24,
    non_torch_tp_gib=0.36,
    host=HostTimes(
        step_ms=1.3,
        sequence_us=8.0,
        synchronous_ms=1.2,
        eager_layer_ms=2.7,
        compiled_layer_ms=0.10,
        request_ms=12.0,
        request_us_per_token=2.0,
    ),
    startup=StartupTimes(
        import_s=28.0,
        engine_s=26.0,
        distributed_s=3.0,
        load_gb_s=4.0,
        dynamo_s=1.9,
        compile_s=20.0,
        compile_size_s=11.0,
        profile_s=8.0,
        graph_ms=560.0,
        jit_cold_s=3.2,
        jit_warm_s=3.1,
    ),
)

H200 = replace(
    H100,
    name="h200",
    device_name="NVIDIA_H200",
    total_gib=139.81,
    free_gib=139.26,
    bandwidth_gb_s=4800.0,
)

L40S = replace(
    RTX4090_LINUX,
    name="l40s",
    device_name="NVIDIA_L40S",
    total_gib=44.39,
    free_gib=43.90,
    bandwidth_gb_s=864.0,
    peak_tflops=362.0,
)

PRESETS: Mapping[str, Hardware] = {preset.name: preset for preset in (RTX4090, RTX4090_LINUX, H100, H200, L40S)}
