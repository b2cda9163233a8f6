"""The start of a server as a script of events: pure, so that it can be read without being played."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner.sim import failure, messages
from tuner.sim.compile_cache import CompileCache
from tuner.sim.events import Bar, Compiled, Event, Log, Pause, Phase, Raw, Who
from tuner.sim.flags import Value
from tuner.sim.hardware import GIB
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.settings import Rejected, Settings, Site
from tuner.sim.wording import BROADCAST, compile_range, source

_LOGO = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)
ROUTES = (
    ("/openapi.json", "HEAD, GET"),
    ("/docs", "HEAD, GET"),
    ("/load", "GET"),
    ("/version", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
    ("/tokenize", "POST"),
    ("/detokenize", "POST"),
    ("/v1/models", "GET"),
    ("/ping", "GET"),
    ("/ping", "POST"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
)
MAX_BAR_STEPS = 20
AUTOTUNE_TIME = 1.6
"""Benchmarking candidates makes compiling a size longer."""
SILENCE_S = 60.0
"""After so long without a word from its workers the engine prints a reminder: also in healthy starts."""


def banner(site: Site, model: str, args: Mapping[str, Value]) -> Iterator[Event]:
    """What the API server prints as soon as it has read its command line."""
    version = site.version
    yield Phase("api")
    if version.family == "0.10":
        yield Log("api", source(version, "banner"), f"vLLM API server version {version.text}")
    else:
        for part in _LOGO:
            yield Log("api", source(version, "banner"), part.format(version=version.text, model=model))
    shown: dict[str, Value] = {"model_tag": model, "model": model}
    shown |= {key: value for key, value in args.items() if key != "model_tag"}
    yield Log("api", source(version, "arguments"), f"non-default args: {shown}")


def rejection(site: Site, rejected: Rejected, architecture: str | None) -> Iterator[Event]:
    """A configuration that vLLM refuses after importing itself."""
    yield Phase("config")
    yield Pause(site.hardware.startup.import_s)
    if architecture:
        yield Log("api", source(site.version, "architecture"), f"Resolved architecture: {architecture}")
    yield from failure.of_configuration(rejected)


@dataclass(frozen=True, slots=True)
class Launch:
    """All that decides a start's lines.

    Attributes:
        settings: What the engine runs with.
        outcome: Its memory, or why it cannot start.
        cache: Its place in the compile cache.
        host: Where the API will listen.
        port: Likewise.
        dev_mode: Whether the development routes are open.
    """

    settings: Settings
    outcome: MemoryPlan | StartupFailure
    cache: CompileCache
    host: str
    port: int
    dev_mode: bool = False


def script(launch: Launch) -> Iterator[Event]:
    """Everything from the resolved configuration until the API is about to answer, or until the start fails."""
    return _Script(launch).events()


class _Script:
    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.settings = launch.settings
        self.site = launch.settings.site
        self.version = launch.settings.site.version
        self.times = launch.settings.site.hardware.startup
        self.init_s = 0.0
        self.compile_s = 0.0
        self.failed = launch.outcome if isinstance(launch.outcome, StartupFailure) else None
        self.lead: Who = "worker" if self.settings.world_size > 1 else "engine"

    def events(self) -> Iterator[Event]:
        yield from self._config()
        yield from self._engine()
        if self._fails("free"):
            yield from self._failure()
            return
        yield from self._weights()
        if self._fails("weights") or self._fails("backend"):
            yield from self._failure()
            return
        yield from self._init()

    def _init(self) -> Iterator[Event]:
        """Profiling, KV cache and warm-up: what vLLM times as ``init engine``."""
        yield from self._compile()
        yield from self._profile()
        if self._fails("profile"):
            yield from self._failure()
            return
        yield from self._kv()
        if self.failed is not None and self.failed.stage in ("kv", "context", "dispatch"):
            yield from self._failure()
            return
        yield from self._graphs()
        if self.failed is not None:
            yield from self._failure()
            return
        yield from self._opening()

    def _fails(self, stage: str) -> bool:
        return self.failed is not None and self.failed.stage == stage

    def _failure(self) -> Iterator[Event]:
        assert self.failed is not None
        return failure.of_start(self.settings, self.failed)

    def _log(self, who: Who, key: str, text: str, level: str = "INFO", rank: int = 0) -> Log:
        return Log(who, source(self.version, key), text, level, rank)

    def _ranks(self, key: str, text: str, level: str = "INFO") -> Iterator[Event]:
        for rank in range(self.settings.world_size):
            yield self._log(self.lead, key, text, level, rank)

    def _timed(self, seconds: float) -> Pause:
        self.init_s += seconds
        return Pause(seconds)

    def _config(self) -> Iterator[Event]:
        settings = self.settings
        yield Phase("config")
        yield Pause(self.times.import_s)
        yield self._log("api", "architecture", f"Resolved architecture: {settings.model.architecture}")
        yield self._log("api", "max_len", f"Using max model len {settings.max_model_len}")
        if settings.v0:
            yield from self._v0_warning()
        elif settings.enable_chunked_prefill:
            text = f"Chunked prefill is enabled with max_num_batched_tokens={settings.max_num_batched_tokens}."
            yield self._log("api", "chunked", text)
        if settings.async_scheduling and self.version.at_least(0, 14):
            yield self._log("api", "async", "Asynchronous scheduling is enabled.")
        if settings.enforce_eager:
            yield from self._eager()

    def _v0_warning(self) -> Iterator[Event]:
        feature = self.settings.v0
        if feature == "VLLM_USE_V1=0":
            return
        text = (
            f"{feature} is not supported by the V1 Engine. Falling back to V0. We recommend to remove {feature} from "
            "your config in favor of the V1 Engine."
        )
        yield self._log("api", "fallback", text, "WARNING")

    def _eager(self) -> Iterator[Event]:
        text = {
            "0.10": "To see benefits of async output processing, enable CUDA graph. Since, enforce-eager is enabled, "
            "async output processor cannot be used",
            "0.15": "Enforce eager set, overriding optimization level to -O0",
            "0.26": "Enforce eager set, disabling torch.compile and CUDAGraphs. This is equivalent to setting "
            "-cc.mode=none -cc.cudagraph_mode=none",
        }[self.version.family]
        yield self._log("api", "eager", text, "WARNING")
        yield self._log("api", "cudagraph_off", "Cudagraph is disabled under eager mode")

    def _engine(self) -> Iterator[Event]:
        settings = self.settings
        yield Phase("engine")
        yield Pause(self.times.engine_s)
        if settings.v0:
            text = f"Initializing a V0 LLM engine (v{self.version.text}) with config: {describe(settings)}"
            yield self._log("engine", "v0", text)
        else:
            text = f"Initializing a V1 LLM engine (v{self.version.text}) with config: {describe(settings)}"
            yield self._log("engine", "core", text)
        if settings.omp_num_threads is None and settings.world_size > 1:
            text = (
                "Reducing Torch parallelism from 16 threads to 1 to avoid unnecessary CPU contention. Set "
                "OMP_NUM_THREADS in the external environment to tune this value as needed."
            )
            yield self._log("engine", "torch_threads", text, "WARNING")
        yield from self._distributed()

    def _distributed(self) -> Iterator[Event]:
        settings = self.settings
        yield Pause(self.times.distributed_s)
        world = settings.world_size
        for rank in range(world):
            text = (
                f"world_size={world} rank={rank} local_rank={rank} distributed_init_method=tcp://127.0.0.1:46733 "
                "backend=nccl"
            )
            yield self._log(self.lead, "world", text, rank=rank)
        if world > 1:
            yield self._log("worker", "nccl", "vLLM is using nccl==2.27.5")
            if self.site.hardware.link_gb_s < 100:
                yield from self._ranks("all_reduce", _NO_CUSTOM_ALL_REDUCE, "WARNING")
        yield from self._assignments()

    def _assignments(self) -> Iterator[Event]:
        settings = self.settings
        for rank in range(settings.world_size):
            tp, pp = rank % settings.tensor_parallel_size, rank // settings.tensor_parallel_size
            text = (
                f"rank {rank} in world size {settings.world_size} is assigned as DP rank 0, PP rank {pp}, "
                f"PCP rank 0, TP rank {tp}, EP rank {tp if settings.enable_expert_parallel else 0}"
            )
            yield self._log(self.lead, "ranks", text, rank=rank)

    def _weights(self) -> Iterator[Event]:
        settings = self.settings
        yield Phase("weights")
        yield self._log(self.lead, "load", f"Starting to load model {settings.model_name}...")
        if self._fails("backend"):
            return
        yield self._log(self.lead, "attention", self._attention())
        weights_gib = settings.model.weight_bytes(settings.tensor_parallel_size, settings.pipeline_parallel_size) / GIB
        total_gb = weights_gib * GIB * settings.world_size / 1e9
        seconds = 0.7 if settings.load_format == "dummy" else total_gb / self.times.load_gb_s
        if settings.load_format != "dummy":
            shards = max(2, round(total_gb / 4.6))
            yield Bar(self.lead, "Loading safetensors checkpoint shards", shards, seconds)
            yield from self._ranks("weights", f"Loading weights took {seconds:.2f} seconds")
        if self._fails("weights"):
            return
        wording = "{:.4f} GiB and" if self.version.family == "0.10" else "{:.2f} GiB memory and"
        yield from self._ranks(
            "loaded", f"Model loading took {wording.format(weights_gib)} {seconds + 1.13:.6f} seconds"
        )

    def _attention(self) -> str:
        settings = self.settings
        backends = settings.attention_backends
        if self.version.family == "0.10":
            name = "Triton MLA" if settings.use_mla else "Flash Attention"
            return f"Using {name} backend{'' if settings.v0 else ' on V1 engine'}."
        if settings.attention_backend:
            return f"Using AttentionBackendEnum.{settings.attention_backend} backend."
        return f"Using {backends[0]} attention backend out of potential backends: {list(backends)}."

    def _compile(self) -> Iterator[Event]:
        settings = self.settings
        yield Phase("compile")
        if settings.enforce_eager or settings.v0:
            return
        folder = self.launch.cache.folder
        dynamo_s = self.times.dynamo_s * (1.0 if settings.warm else 3.0)
        yield self._timed(dynamo_s)
        yield self._log(self.lead, "cache_dir", f"Using cache directory: {folder}/backbone for vLLM's torch.compile")
        yield self._log(self.lead, "dynamo", f"Dynamo bytecode transform time: {dynamo_s:.2f} s")
        yield from self._warm_compile(dynamo_s) if settings.warm else self._cold_compile(dynamo_s)

    def _warm_compile(self, dynamo_s: float) -> Iterator[Event]:
        seconds = 0.9 + 0.2 * len(self.settings.compile_sizes)
        yield self._timed(seconds)
        for size in (None, *self.settings.compile_sizes):
            name = compile_range(self.version, size, self.settings.max_num_batched_tokens)
            text = f"Directly load the compiled graph(s) for {name} from the cache, took {seconds:.3f} s"
            yield self._log(self.lead, "cache_hit", text)
        if self.version.family != "0.10":
            yield self._log(self.lead, "aot_loaded", f"Directly load AOT compilation from path {self._aot()}")
        yield self._compile_total(dynamo_s + seconds)

    def _cold_compile(self, dynamo_s: float) -> Iterator[Event]:
        total, reminded = dynamo_s, self.settings.world_size == 1
        for size in (None, *self.settings.compile_sizes):
            name = compile_range(self.version, size, self.settings.max_num_batched_tokens)
            seconds = self._compile_time(size)
            yield self._timed(seconds * 0.4)
            yield self._log(self.lead, "cache_graph", f"Cache the graph of {name} for later use")
            yield self._timed(seconds * 0.6)
            yield self._log(self.lead, "compiled", f"Compiling a graph for {name} takes {seconds:.2f} s")
            total += seconds
            if total > SILENCE_S and not reminded:
                reminded = True
                yield self._log("engine", "broadcast", BROADCAST)
        yield Compiled()
        if self.version.family != "0.10":
            yield self._log(self.lead, "aot_saved", f"saved AOT compiled function to {self._aot()}")
        yield self._compile_total(total)

    def _compile_time(self, size: int | None) -> float:
        seconds = self.times.compile_s if size is None else self.times.compile_size_s
        return seconds * (AUTOTUNE_TIME if size in self.settings.tuned_sizes else 1.0)

    def _aot(self) -> str:
        root = self.launch.cache.folder.parent.parent
        return f"{root}/torch_aot_compile/{self.launch.cache.key}/rank_0_0/model"

    def _compile_total(self, seconds: float) -> Log:
        self.compile_s = seconds
        verb = "took" if self.version.at_least(0, 20) else "takes"
        return self._log(self.lead, "compile_total", f"torch.compile {verb} {seconds:.2f} s in total")

    def _profile(self) -> Iterator[Event]:
        settings = self.settings
        yield Phase("profile")
        if settings.model.experts is not None:
            yield self._log(self.lead, "moe", *self._moe_kernels())
        yield self._timed(self.times.profile_s)
        if self._fails("profile") or settings.v0:
            return
        if self.version.at_least(0, 20) and not settings.enforce_eager:
            yield self._log(self.lead, "profiled", f"Initial profiling/warmup run took {self.times.profile_s:.2f} s")
            yield from self._profile_graphs()

    def _moe_kernels(self) -> tuple[str, str]:
        experts, device = self.settings.model.experts, self.site.hardware.device_name
        assert experts is not None
        width = experts.intermediate
        if not self.settings.enable_expert_parallel:
            width //= self.settings.tensor_parallel_size
        folder = "/opt/site/vllm/model_executor/layers/fused_moe/configs"
        path = f"{folder}/E={experts.count},N={width},device_name={device}.json"
        if "H100" in device or "H200" in device:
            return f"Using configuration from {path} for MoE layer.", "INFO"
        text = f"Using default MoE config. Performance might be sub-optimal! Config file not found at {path}"
        return text, "WARNING"

    def _profile_graphs(self) -> Iterator[Event]:
        piecewise, full = self.settings.graphs
        if not piecewise:
            return
        sizes = self.settings.capture_sizes
        yield self._timed(6.0)
        parts = [f"PIECEWISE={piecewise} (largest={sizes[-1]})"]
        if full:
            parts.append(f"FULL={full} (largest={sizes[full - 1]})")
        yield self._log(self.lead, "graph_profile", f"Profiling CUDA graph memory: {', '.join(parts)}")
        if isinstance(self.launch.outcome, MemoryPlan):
            text = f"Estimated CUDA graph memory: {self.launch.outcome.graph_estimate_gib:.2f} GiB total"
            yield self._log(self.lead, "graph_estimate", text)

    def _kv(self) -> Iterator[Event]:
        yield Phase("kv")
        outcome = self.launch.outcome
        kv_gib = outcome.plan_gib if isinstance(outcome, StartupFailure) else outcome.kv_gib
        if self.settings.v0:
            yield from self._v0_capacity()
            return
        if self.settings.kv_cache_memory_bytes is not None:
            yield from self._ranks("fixed_cache", _FIXED_CACHE.format(self.site.hardware.free_gib, kv_gib))
        elif kv_gib is not None:
            yield from self._ranks("available", f"Available KV cache memory: {kv_gib:.2f} GiB")
        if self.failed is not None and self.failed.stage in ("kv", "context"):
            return
        yield from self._equivalent()
        yield from self._capacity()

    def _equivalent(self) -> Iterator[Event]:
        outcome = self.launch.outcome
        if not isinstance(outcome, MemoryPlan) or not outcome.graph_estimate_gib:
            return
        share = outcome.graph_estimate_gib / self.site.hardware.total_gib
        current = self.settings.gpu_memory_utilization
        yield self._log(self.lead, "equivalent", _EQUIVALENT.format(current, current - share, current + share))

    def _capacity(self) -> Iterator[Event]:
        tokens, concurrency = self._tokens()
        yield self._log("engine", "capacity", f"GPU KV cache size: {tokens:,} tokens")
        length = self.settings.max_model_len
        text = f"Maximum concurrency for {length:,} tokens per request: {concurrency:.2f}x"
        yield self._log("engine", "concurrency", text)

    def _tokens(self) -> tuple[int, float]:
        """KV tokens and concurrency, also of a start that fails after it has printed them."""
        outcome = self.launch.outcome
        if isinstance(outcome, MemoryPlan):
            return outcome.kv_tokens, outcome.max_concurrency
        size = self.settings.block_size
        blocks = int((outcome.plan_gib or 0.0) * GIB // (self.settings.kv_token_bytes * size))
        return blocks * size, blocks * size / self.settings.max_model_len

    def _v0_capacity(self) -> Iterator[Event]:
        outcome, settings = self.launch.outcome, self.settings
        total, share = settings.site.hardware.total_gib, settings.gpu_memory_utilization
        head = f"the current vLLM instance can use total_gpu_memory ({total:.2f}GiB) x gpu_memory_utilization"
        yield Log("engine", "worker.py:295", f"Memory profiling takes {self.times.profile_s:.2f} seconds")
        yield Log("engine", "worker.py:295", f"{head} ({share:.2f}) = {total * share:.2f}GiB")
        if isinstance(outcome, StartupFailure):
            return
        text = (
            f"model weights take {outcome.weights_gib:.2f}GiB; non_torch_memory takes {outcome.non_torch_gib:.2f}GiB; "
            f"PyTorch activation peak memory takes {outcome.activation_gib:.2f}GiB; the rest of the memory reserved "
            f"for KV Cache is {outcome.kv_gib:.2f}GiB."
        )
        yield Log("engine", "worker.py:295", text)
        yield Log("engine", "executor_base.py:114", f"# cuda blocks: {outcome.num_blocks}, # CPU blocks: 4096")
        text = f"Maximum concurrency for {settings.max_model_len} tokens per request: {outcome.max_concurrency:.2f}x"
        yield Log("engine", "executor_base.py:119", text)

    def _graphs(self) -> Iterator[Event]:
        yield Phase("graphs")
        piecewise, full = self.settings.graphs
        if piecewise:
            yield from self._capture("mixed prefill-decode, PIECEWISE", piecewise)
            if self._fails("graphs"):
                return
            yield from self._capture("decode, FULL", full)
            yield from self._captured(piecewise + full)
        if self.failed is not None:
            return
        yield from self._usage()
        seconds = f"{self.init_s:.2f} {'s' if self.version.at_least(0, 20) else 'seconds'}"
        if self.version.at_least(0, 20) and not self.settings.enforce_eager:
            seconds += f" (compilation: {self.compile_s:.2f} s)"
        text = f"init engine (profile, create kv cache, warmup model) took {seconds}"
        yield Log("engine", "llm_engine.py:420", text) if self.settings.v0 else self._log("engine", "init", text)

    def _capture(self, kind: str, count: int) -> Iterator[Event]:
        if not count:
            return
        seconds = count * self.times.graph_ms * 1e-3
        self.init_s += seconds
        yield Bar(self.lead, f"Capturing CUDA graphs ({kind})", count, seconds)

    def _captured(self, count: int) -> Iterator[Event]:
        outcome = self.launch.outcome
        seconds = count * self.times.graph_ms * 1e-3
        gib = outcome.graph_gib if isinstance(outcome, MemoryPlan) else 0.0
        yield from self._ranks("captured", f"Graph capturing finished in {seconds:.0f} secs, took {gib:.2f} GiB")
        if isinstance(outcome, MemoryPlan) and outcome.graph_estimate_gib:
            difference = gib - outcome.graph_estimate_gib
            text = (
                f"CUDA graph pool memory: {gib:.2f} GiB (actual), {outcome.graph_estimate_gib:.2f} GiB (estimated), "
                f"difference: {difference:.2f} GiB ({difference / gib:.1%})."
            )
            yield self._log(self.lead, "graph_pool", text)

    def _usage(self) -> Iterator[Event]:
        outcome, hardware = self.launch.outcome, self.site.hardware
        if not isinstance(outcome, MemoryPlan) or self.settings.v0:
            return
        spare = outcome.requested_gib - outcome.weights_gib - outcome.activation_gib - outcome.non_torch_gib
        fitting = spare - outcome.graph_gib - 0.15
        full = fitting + hardware.free_gib - outcome.requested_gib
        text = _USAGE.format(
            free=hardware.free_gib,
            total=hardware.total_gib,
            share=self.settings.gpu_memory_utilization,
            plan=outcome,
            fitting=int(fitting * GIB),
            fitting_gib=fitting,
            full=int(full * GIB),
            full_gib=full,
        )
        yield from self._ranks("usage", text)
        if self.version.at_least(0, 26):
            text = "Kernel JIT monitor activated; monitored JIT compilations during inference will use mode=warn."
            yield self._log(self.lead, "jit_on", text)

    def _opening(self) -> Iterator[Event]:
        yield Phase("opening")
        yield Pause(1.0)
        yield self._log("api", "tasks", "Supported tasks: ['generate']")
        yield self._log("api", "sampling", _SAMPLING, "WARNING")
        where = f"http://{self.launch.host}:{self.launch.port}"
        server = "server on" if self.version.at_least(0, 20) else "API server 0 on"
        yield self._log("api", "starting", f"Starting vLLM {server} {where}")
        yield self._log("api", "routes", "Available routes are:")
        for path, methods in (*ROUTES, *self._further_routes()):
            yield self._log("api", "route", f"Route: {path}, Methods: {methods}")

    def _further_routes(self) -> Iterator[tuple[str, str]]:
        """Those that not every server has."""
        if messages.has_messages(self.version):
            yield messages.PATH, "POST"
        if messages.counts_tokens(self.version):
            yield messages.COUNT_PATH, "POST"
        if self.launch.dev_mode:
            yield from (("/server_info", "GET"), ("/reset_prefix_cache", "POST"))


def describe(settings: Settings) -> str:
    """The engine's configuration as its first line spells it out: the effective values."""
    compilation = {
        "mode": 0 if settings.enforce_eager else 3,
        "compile_sizes": list(settings.compile_sizes),
        "cudagraph_capture_sizes": list(settings.capture_sizes),
        "max_cudagraph_capture_size": max(settings.capture_sizes, default=0),
    }
    dtype = {"half": "float16", "float": "float32", "auto": "bfloat16"}.get(settings.dtype, settings.dtype)
    return (
        f"model='{settings.model_name}', speculative_config=None, tokenizer='{settings.model_name}', "
        f"skip_tokenizer_init=False, tokenizer_mode=auto, revision=None, trust_remote_code=False, "
        f"dtype=torch.{dtype}, max_seq_len={settings.max_model_len}, download_dir=None, "
        f"load_format={settings.load_format}, tensor_parallel_size={settings.tensor_parallel_size}, "
        f"pipeline_parallel_size={settings.pipeline_parallel_size}, "
        f"data_parallel_size={settings.data_parallel_size}, "
        f"disable_custom_all_reduce={settings.disable_custom_all_reduce}, "
        f"quantization={settings.model.quantization}, enforce_eager={settings.enforce_eager}, "
        f"kv_cache_dtype={settings.kv_cache_dtype}, device_config=cuda, seed=0, "
        f"served_model_name={settings.served_model_name[0]}, "
        f"enable_prefix_caching={settings.enable_prefix_caching}, "
        f"enable_chunked_prefill={settings.enable_chunked_prefill}, compilation_config={compilation}"
    )


_FIXED_CACHE = (
    "Initial free memory {:.2f} GiB, reserved {:.2f} GiB memory for KV Cache as specified by kv_cache_memory_bytes "
    "config and skipped memory profiling. This does not respect the gpu_memory_utilization config. Only use "
    "kv_cache_memory_bytes config when you want manual control of KV cache memory size. If OOM'ed, check the "
    "difference of initial free memory between the current run and the previous run where kv_cache_memory_bytes is "
    "suggested and update it correspondingly."
)
_NO_CUSTOM_ALL_REDUCE = (
    "Custom allreduce is disabled because your platform lacks GPU P2P capability or P2P test failed. To silence this "
    "warning, specify disable_custom_all_reduce=True explicitly."
)
_EQUIVALENT = (
    "CUDA graph memory profiling is enabled (default since v0.21.0). The current --gpu-memory-utilization={0:.4f} is "
    "equivalent to --gpu-memory-utilization={1:.4f} without CUDA graph memory profiling. To maintain the same "
    "effective KV cache size as before, increase --gpu-memory-utilization to {2:.4f}. To disable, set "
    "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0."
)
_USAGE = (
    "Free memory on device ({free:.2f}/{total:.2f} GiB) on startup. Desired GPU memory utilization is ({share:g}, "
    "{plan.requested_gib:.2f} GiB). Actual usage is {plan.weights_gib:.2f} GiB for weight, "
    "{plan.activation_gib:.2f} GiB for peak activation, {plan.non_torch_gib:.2f} GiB for non-torch memory, and "
    "{plan.graph_gib:.2f} GiB for CUDAGraph memory. Replace gpu_memory_utilization config with "
    "`--kv-cache-memory={fitting}` ({fitting_gib:.2f} GiB) to fit into requested memory, or `--kv-cache-memory={full}` "
    "({full_gib:.2f} GiB) to fully utilize gpu memory. Current kv cache memory in use is {plan.kv_gib:.2f} GiB."
)
_SAMPLING = (
    "Default vLLM sampling parameters have been overridden by the model's `generation_config.json`: `{'temperature': "
    "1.0}`. If this is not intended, please relaunch vLLM instance with `--generation-config vllm`."
)


def uvicorn_lines(pid: int) -> Raw:
    """What the HTTP server says when it is up."""
    return Raw(
        "api",
        f"INFO:     Started server process [{pid}]\nINFO:     Waiting for application startup.\n"
        "INFO:     Application startup complete.",
    )
