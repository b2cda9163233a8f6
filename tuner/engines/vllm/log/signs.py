"""The signs in a vLLM log, from 0.6 to 0.33: which line speaks for which cause.

vLLM's own sentences were read in its source: 0.6.3, 0.7.3, 0.8.5, 0.9.2, 0.10.2, 0.11.2, 0.15.0, 0.20.0, 0.26.0 and
0.33.0. What stands below vLLM is in ``platform_signs``, what only a traceback's frames tell in ``frame_signs``, what
rejects settings in ``configuration_signs``. A wrong case that is accepted: any ``NotImplementedError`` is unsupported.
"""

import re

from tuner.engines.causes import Cause
from tuner.engines.log import frames, platform
from tuner.engines.log.diagnosis import DiagnosticReader
from tuner.engines.log.lines import Level
from tuner.engines.log.reader import LogGrammar
from tuner.engines.log.signs import Rank, Sign
from tuner.engines.vllm.log import configuration

_SMALLER_CONTEXT = "Lower max_model_len to what fits, raise {share}, or use an fp8 KV cache."
_MORE_KV = "Raise {share}, lower max_num_batched_tokens or max_num_seqs, or spread over more GPUs."
_ASK_RAY = "Check `ray status`: the cluster must offer the GPUs that the parallel sizes ask for."
_FEWER_SEQUENCES = (
    "Set max_num_seqs to at most {mamba_blocks}: each sequence takes one block of the Mamba cache; or raise {share}."
)
_OTHER_BLOCK = "Let vLLM choose block_size, or take one that all attention backends of this model share."
_CHANGE_NAMED = "vLLM's own check refuses this combination: change the setting that the line is about."
_WAIT_LONGER = "Look at what the slowest worker does; raise VLLM_ENGINE_READY_TIMEOUT_S where loading is slow."
_DROP_FEATURE = "Drop the feature that the line names, or take an image without the V0 engine (0.11 on)."
_CHOOSE_TOGETHER = "Let vLLM choose attention backend, block size and KV data type, or pick ones that go together."

_OWN_FILES = r"/vllm(?:_\w+)?/(?!distributed/(?!kv_transfer))(?!.*(?:site|dist)-packages/)"

_NOT_SUPPORTED = (
    r"(?:\bnot (?:yet |currently )?(?:be )?(?:supported|implemented)\b|(?:does|do|did) not (?:yet |currently )?support"
    r"|\b[Uu]n-?supported\b|\bonly supports?\b|[Oo]nly supported"
    r"|requires? (?:a )?(?:GPU|compute capability|CUDA|Hopper|Blackwell|Ampere|sm_?\d+))"
)

_MEMORY = (
    Sign(
        Cause.CUDA_OOM,
        Rank.EXACT,
        (r"CUDA out of memory occurred when warming up (?:sampler|pooler)(?: .*?with (?P<dummy_requests>\d+) dummy)?",),
        "Lower max_num_seqs (the sampler's buffers are max_num_seqs x vocabulary) or {share}.",
        "0.7-0.33",
    ),
    Sign(
        Cause.CUDA_OOM,
        Rank.KNOWN,
        (r"This might be due to insufficient GPU memory",),
        "Lower max_model_len or the number of images per prompt.",
        "0.6-0.7",
    ),
    Sign(
        Cause.INSUFFICIENT_FREE_MEMORY,
        Rank.EXACT,
        (
            r"Free memory on device (?:\w+:\d+ )?\((?P<free_gib>[\d.]+)/(?P<total_gib>[\d.]+) GiB\) on startup\s+is "
            r"less than (?:desired|the engine's).*?\((?P<utilization>[\d.]+), (?P<desired_gib>[\d.]+) GiB\)",
        ),
        platform.FREE_THE_GPU,
        "0.9-0.33",
    ),
    Sign(
        Cause.INSUFFICIENT_FREE_MEMORY,
        Rank.KNOWN,
        (
            r"Free memory on device .{0,60}on startup\s+is less",
            r"is less than desired GPU memory utilization",
            r"[Aa]vailable memory on node \d+ \((?P<free_gib>[\d.]+)/(?P<total_gib>[\d.]+) GiB\) on "
            r"(?:kv cache allocation|startup) is less than",
        ),
        platform.FREE_THE_GPU,
        "0.9-0.33, cut or wrapped; the CPU backend",
    ),
    Sign(
        Cause.INSUFFICIENT_FREE_MEMORY,
        Rank.KNOWN,
        (r"Error in memory profiling\. Initial (?:free|used) memory (?P<initial_free_gib>[\d.]+)? ?",),
        "Another process changed its GPU memory while vLLM measured: end it, or start again.",
        "0.6-0.33",
        machine=True,
    ),
    Sign(
        Cause.NO_KV_CACHE,
        Rank.EXACT,
        (
            r"No available memory for the cache blocks|No usable cache memory left",
            r"Cannot auto-fit max_model_len: not enough GPU memory",
            r"The worker already uses (?P<used_gib>[\d.]+) GiB.*for the KV cache",
        ),
        _MORE_KV,
        "0.6-0.33",
    ),
    Sign(
        Cause.NO_KV_CACHE,
        Rank.EXACT,
        (
            r"max_num_seqs \((?P<max_num_seqs>[\d,]+)\) exceeds (?:the )?available Mamba cache blocks "
            r"\((?P<mamba_blocks>[\d,]+)\)",
        ),
        _FEWER_SEQUENCES,
        "0.18-0.33, hybrid models",
    ),
    Sign(
        Cause.NO_KV_CACHE,
        Rank.FAMILY,
        (r"Available KV cache memory: (?P<available_kv_gib>-[\d.]+) GiB|# (?:GPU|cuda|\w+) blocks: 0\b",),
        _MORE_KV,
        "0.6-0.33, before the error",
        level=Level.INFO,
    ),
    Sign(
        Cause.CONTEXT_EXCEEDS_KV_CACHE,
        Rank.EXACT,
        (
            r"To serve at least one request with the models?'s max seq len \((?P<max_model_len>[\d,]+)\)"
            r"(?:, \(?(?P<needed_kv_gib>[\d.]+) Gi?B KV cache is needed, which is larger than the available KV cache "
            r"memory \((?P<available_kv_gib>[\d.]+) Gi?B\))?"
            r"(?:.*estimated maximum model length is (?P<estimated_max_model_len>[\d,]+))?",
        ),
        _SMALLER_CONTEXT,
        "0.8-0.33",
    ),
    Sign(
        Cause.CONTEXT_EXCEEDS_KV_CACHE,
        Rank.EXACT,
        (
            r"max seq len \((?P<max_model_len>[\d,]+)\) is larger than the maximum number of tokens that can be stored "
            r"in KV cache \((?P<kv_tokens>[\d,]+)\)",
        ),
        _SMALLER_CONTEXT,
        "0.6-0.10, the V0 engine",
    ),
    Sign(
        Cause.CONTEXT_EXCEEDS_KV_CACHE,
        Rank.KNOWN,
        (
            r"To serve at least one request with the model",
            r"KV cache is needed, which is larger than the available KV cache",
            r"larger than the maximum number of tokens that can be stored in KV",
        ),
        _SMALLER_CONTEXT,
        "0.6-0.33, cut or wrapped",
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.EXACT,
        (r"Too large swap space",),
        "Lower swap_space, or give the host more memory.",
        "0.6-0.15",
    ),
)

_SUPPORT = (
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"Model architectures? .*\b(?:are|is) not supported",
            r"has no vLLM implementation and the Transformers implementation",
            r"The Transformers implementation of .* is not compatible with vLLM",
            r"Unknown RoPE scaling type",
        ),
        platform.OTHER_IMAGE,
        "0.6-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (r"^\s*KeyError: '",),
        platform.OTHER_IMAGE,
        "transformers' table of architectures",
        raised_in=r"transformers/models/auto/",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"[Bb]float16 is only supported on GPUs with compute capability|is not supported for the current GPU",
            r"'Quantization scheme is not supported for|GPUs with compute capability below \S+ are not supported",
            r"RuntimeError: Assertion error \(\S*/jit\w*/",
            r"No compiled cutlass_scaled_mm|FP8 KV cache not yet supported|Current platform does not support",
        ),
        platform.OTHER_HARDWARE,
        "0.6-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"No valid (?:\w+ )*backend found|[Ss]elected backend .*is not valid for this config",
            r"Invalid attention backend for|Head size \d+ is not supported",
            r"The selected backend, \S+ ?(?:does not support|is not MLA)",
        ),
        _CHOOSE_TOGETHER,
        "0.8-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"No common block size for (?P<block_size>\d+)(?:.*?MultipleOf\((?:base=)?(?P<block_multiple>\d+)\))?",
            r"[Bb]lock[ _]size (?P<refused_block_size>\d+)?.{0,40}"
            r"(?:must be|to be|is not) (?:a )?(?:multiple of|divisible by) (?P<wanted_multiple>\d+)",
        ),
        _OTHER_BLOCK,
        "0.8-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"is not supported for quantization method|Unknown quantization method|(?:min_thread|tile)_\w+ = \d+",
            r"does not match the quantization method specified|quantization is currently not supported",
            r"Cannot find the config file for \w+|Following weights were not initialized from checkpoint",
            r"Failed to find a kernel that can implement|Cannot find model module",
            r"Unknown gguf model_type|Failed to map GGUF parameters",
        ),
        "Choose a quantization and data type that this model's checkpoint and this GPU have.",
        "0.6-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.KNOWN,
        (rf"^\s*Value error, .*{_NOT_SUPPORTED}", r"Model architectures? .* failed to be inspected"),
        platform.OTHER_HARDWARE,
        "0.10-0.33, pydantic",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (rf"(?:^|[\s`'\"\]])[\w.]*(?:Error|Exception)(?:: |\(['\"]).*{_NOT_SUPPORTED}",),
        platform.OTHER_HARDWARE,
        "0.6-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (
            r"^\s*(?:KeyError: )?'[\w.]*\b(?:layers?\.|blocks\.|h\.)\d+\.[\w.]+'\s*$",
            r"There is no (?:module or )?parameter named|Attempted to load weight \(|Tried to load weights of size",
            r"The size of tensor \w \(\d+\) must match the size|mat1 and mat2 shapes cannot be multiplied",
            r"Unexpected (?:extra )?(?:weight|parameter)s?\b|shape mismatch between model and checkpoint",
        ),
        "The checkpoint's weights are not those that this image knows: use another image or another checkpoint.",
        "0.6-0.33",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (r"^\s*(?:ValueError|ImportError)\b",),
        "Choose a quantization and data type that this model's checkpoint and this GPU have.",
        "0.6-0.33",
        raised_in=r"vllm/model_executor/layers/quantization/",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (
            r"^\s*NotImplementedError\b|ValueError: .*(?:please install Ray|is not installed)",
            r"\w*Error: .*\b(?:not available|outdated|not installed)\b.*[Pp]lease (?:re)?(?:install|up(?:grade|date))",
            r"^\s*(?:Value error, |ImportError: )Please (?:install|upgrade)|ImportError: .*[Pp]lease install",
        ),
        "This image lacks what the setting or the model needs: choose another setting or image.",
        "0.6-0.33",
    ),
)

_CHECKS = (
    Sign(
        Cause.UNSUPPORTED,
        Rank.RAISED,
        (rf"^\s*(?:ValueError|NotImplementedError|AssertionError)\b{platform.NOT_THE_MACHINES}",),
        _CHANGE_NAMED,
        "0.6-0.33: a check of vLLM's own, in whichever process",
        raised_in=rf"^$|{_OWN_FILES}",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.BROKEN,
        (rf"^\s*{platform.BROKEN}{platform.NOT_THE_MACHINES}",),
        platform.REFUSED_THERE,
        "0.6-0.33: what its workers, their kernels and compilers raise",
        raised_in=rf"{_OWN_FILES}|{platform.BROKEN_IN}",
        said_by=r"^$|[Ww]orker|EngineCore|rank",
    ),
)

_RAY = (
    Sign(
        Cause.DISTRIBUTED,
        Rank.EXACT,
        (
            r"number of required \w+ exceeds the total|Cannot provide a placement group",
            r"Placement group bundle cannot have more than|is not included in a placement group",
            r"Current node has no GPU available|Ray does not allocate any GPUs|Not enough resources to allocate",
            r"Every node should have a unique IP address|Ray workers have not started",
            r"Could not find any running Ray instance|Version mismatch: The cluster was started with",
            r"No available node types can fulfill resource request|[Rr]egister worker (?:to|with) [Rr]aylet",
            r"Ray is trying to start at \S+, but is already running",
            r"Failed to connect to GCS|[Uu]nable to connect to (?:GCS|Ray)",
        ),
        _ASK_RAY,
        "0.6-0.33, Ray",
    ),
    Sign(
        Cause.DISTRIBUTED,
        Rank.FAMILY,
        (r"Waiting for creating a placement group of specs for \d{2,} seconds|cannot (?:currently )?be scheduled",),
        _ASK_RAY,
        "0.6-0.33, Ray, while it waits for GPUs",
        level=Level.INFO,
    ),
    Sign(
        Cause.DISTRIBUTED,
        Rank.PEER,
        (r"custom_all_reduce\.cuh:\d+ '(?!out of memory)|CUDART error|DP Coordinator process failed",),
        "Try --disable-custom-all-reduce.",
        "0.6-0.33",
        serving=True,
    ),
)

_DEVICE = (
    Sign(
        Cause.DRIVER,
        Rank.EXACT,
        (
            r"Failed to infer device type|Device string must not be empty|NVML returned no GPU",
            r"CUDA_VISIBLE_DEVICES is set to empty string",
        ),
        platform.FIX_DRIVER,
        "0.6-0.33",
    ),
    Sign(
        Cause.DRIVER,
        Rank.FAMILY,
        (r"No platform detected, vLLM is running on UnspecifiedPlatform",),
        platform.FIX_DRIVER,
        "0.7-0.33",
        level=Level.INFO,
    ),
)

_DEATH = (
    Sign(
        Cause.ENGINE_DIED,
        Rank.CRASH,
        (
            r"Worker ?[Pp]roc \S+ died unexpectedly(?: \(exit code: (?P<exit_code>-?\d+)\))?",
            r"Engine core proc \S+ died unexpectedly",
            r"Worker \S+ pid \d+ died, exit code: (?P<worker_exit_code>(?!-15)-?\d+)|\bworker died\b",
            r"Actor(?:Died|Unavailable)Error(?!: The actor died because of an error)|RayActorError|WorkerCrashedError",
            r"A worker died or was killed|actor is dead because its worker process has died",
            r"Engine process (?:\S+ )?\(pid \d+\) died",
        ),
        platform.LOOK_ABOVE,
        "0.6-0.33, Ray",
        serving=True,
    ),
    Sign(
        Cause.ENGINE_DIED,
        Rank.AFTERMATH,
        (
            r"EngineDeadError|EngineGenerationError|[Bb]ackground loop (?:has errored|is not running|is stopped)",
            r"AsyncLLM output_handler failed|raise self\._format_exception\(outputs\)|engine_core\.run_busy_loop\(\)",
            r"await engine_core\.get_output_async\(\)|self\._process_engine_step\(\)|self\.step_fn\(\)",
            r"_log_task_completion|_raise_exception_on_finish|AsyncLLMEngine\._error_callback",
            r"self\.(?:run_engine_loop|engine_step|engine\.step_async)\(\)|llm_engine\.step\(\)",
            r"q\.get_nowait\(\) or await|\bexecute_model\(scheduler_output",
            r", in (?:run_engine_loop|engine_step|output_handler|run_busy_loop|_process_engine_step)$",
            r"EngineCore encountered an issue|MQEngineDeadError",
            r"[Dd]umping (?:input data|scheduler output)|EngineCore encountered a fatal error",
            r"MQLLMEngine is already dead|AsyncLLMEngine (?:is already dead|has failed)|[Ee]ngine is dead",
            r"Engine (?:loop|background task) (?:is not running|failed|has died)|Task finished unexpectedly",
            r"RPC call to \S+ timed out|Engine iteration timed out|execute_model timed out|^RuntimeError: cancelled",
            r"Executor failed\.|Request \S+ failed \(engine dead\)",
        ),
        platform.LOOK_ABOVE,
        "0.6-0.33",
        serving=True,
        level=Level.INFO,
    ),
    Sign(
        Cause.ENGINE_DIED,
        Rank.AFTERMATH,
        (r"^\s*TimeoutError\b",),
        platform.LOOK_ABOVE,
        "0.8-0.33: a worker that does not answer; only a step has a time limit",
        serving=True,
        raised_in=r"/shm_broadcast\.py$",
    ),
    Sign(
        Cause.STALLED,
        Rank.CRASH,
        (
            r"Timed out waiting for (?:engine core processes to start|engines? to send initial message)",
            r"[Tt]imed out waiting for (?:the )?(?:vLLM|server|model|engine)\b.{0,40}\b(?:start|ready|load)",
            r"did not become (?:healthy|ready) within|failed to (?:start|become ready) within",
            r"Did not receive response from front-end process|(?:MQLLMEngine|[Ss]erver) didn't reply within",
        ),
        _WAIT_LONGER,
        "0.6-0.33",
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.WRAPPER,
        (
            r"Engine core initialization failed|Engine process failed to start|Frontend process failed during engine",
            r"WorkerProc (?:initialization )?failed|WorkerProc hit an exception|got fatal signal from worker processes",
            r"EngineCore (?:failed to start|hit an exception)",
            r"engine core exited unexpectedly|Worker failed with error",
            r"Exception in worker \S+ while processing method|Error executing method",
        ),
        platform.LOOK_ABOVE,
        "0.6-0.33",
        serving=True,
        level=Level.WARNING,
    ),
)

_FALLBACK = (
    Sign(
        Cause.V0_FALLBACK,
        Rank.EXACT,
        (r"[Ff]alling back to V0\b",),
        _DROP_FEATURE,
        "0.8-0.10",
        level=Level.INFO,
    ),
    Sign(
        Cause.V0_FALLBACK,
        Rank.KNOWN,
        (r"Initializing a V0 LLM engine \(v0\.(?:[89]|1\d)\.",),
        "This image chose the V0 engine: unset VLLM_USE_V1=0, or drop what V1 does not know.",
        "0.8-0.10; up to 0.7 V0 was the default",
        level=Level.INFO,
    ),
)

SIGNS: tuple[Sign, ...] = (
    *_MEMORY,
    *_SUPPORT,
    *_CHECKS,
    *_RAY,
    *_DEVICE,
    *_DEATH,
    *_FALLBACK,
    *platform.SIGNS,
    *frames.SIGNS,
    *configuration.SIGNS,
)
"""All of them; where two of one rank match a line, the first stands: configuration's shapes are the widest."""

_TRAPS = re.compile(
    "|".join(
        (
            r"for benchmark choice|Ignoring this choice|\[Autotuner\]|[Aa]utotuning",
            r", retrying \d+ of \d+|Error retrieving safetensors",
            r"ras/client_support\.cc|Found ulimit of|socket has failed to connect to .*errno: 97",
            r"destroy_process_group\(\) was not called|destroyEvent",
            r"(?:Readiness|Liveness|Startup) probe failed",
        )
    )
)
"""Lines that read like a failure and stand in healthy logs.

Autotuners try kernels that do not fit, the hub's client retries, torch asks IPv6 first. What vLLM says at INFO or
WARNING needs no trap: a sign counts from the level that it names, and that is usually an error.
"""

READING = LogGrammar(
    signs=SIGNS,
    traps=_TRAPS,
    version=re.compile(
        r"vLLM API server version v?(\d+\.\d+[\w.+-]*)|(?<!NCCL )\bversion +(\d+\.\d+\.\d+[\w.+-]*)\s*$"
        r"|LLM engine \(v(\d+\.\d+[\w.+-]*)\)|vLLM Version *: *v?(\d+\.\d+\.[\w.+-]*)|\bvllm==(\d+\.\d+[\w.+-]*)"
    ),
    start=re.compile(r"vLLM API server version|(?<![█▀▄ ])[█▀▄ ]{4,}version \d"),
    ready=re.compile(r"Application startup complete|Uvicorn running on"),
    serving=re.compile(
        r"Application startup complete|Uvicorn running on|Avg (?:prompt|generation) throughput"
        r'| - "(?:GET|POST|HEAD) /\S* HTTP/1\.[01]" (?!503)\d{3}|Processed prompts: +(?:\d\d|100)%'
        r"|\b(?:Added request \S+\.|Received request \S+: )"
    ),
    started=re.compile(
        r"init engine \(profile, create kv cache, warmup model\) took|Starting vLLM (?:API )?server|Route: /"
    ),
    told_to_stop=re.compile(
        r"API server: shutdown triggered|^Shutting down$|KeyboardInterrupt|^\^C|trigger received signal"
        r"|[Rr]eceived (?:SIGTERM|SIGINT|shutdown signal)|[Gg]racefully (?:stopping|shutting down)"
    ),
    not_the_root=re.compile(
        r"EngineDeadError|Engine core initialization failed|initialization failed due to an exception in a background"
        r"|Engine process failed to start|CalledProcessError|IncompleteReadError|HTTPException|RequestError"
    ),
    waiting=re.compile(r"No available (?:shared memory broadcast )?block found in \d+ second"),
    progress=re.compile(r"Avg generation throughput: (?!0\.0 )|\"POST /\S* HTTP/1\.[01]\" 200"),
    fixed_cache=re.compile(
        r"kv[_-]cache[_-]memory(?:[_-]bytes)?['\"]?(?:[:=] ?| )['\"]?[1-9]|as specified by kv_cache_memory"
    ),
)
"""How a vLLM log is read."""


def reader() -> DiagnosticReader:
    """Reads a vLLM log as it grows."""
    return DiagnosticReader(READING)
