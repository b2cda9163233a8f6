"""vLLM's log names why it does not start or stopped; by single lines, by what else is known, and by order."""

import re
from importlib.resources import files

import pytest

from tuner.engines.causes import Cause, Evidence
from tuner.engines.vllm import diagnose, is_suspicious
from tuner.engines.vllm.signs import SIGNS

READY = "INFO:     Application startup complete."
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.52 GiB"
WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
STATS = "INFO 06-16 10:03:14 [loggers.py:87] Engine 000: Avg prompt throughput: 1254.4 tokens/s"

LINES = {
    Cause.CUDA_OOM: """
        torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.69 GiB total capacity)
        RuntimeError: CUDA error: out of memory
        RuntimeError: Triton Error [CUDA]: out of memory
        torch.AcceleratorError: CUDA error: out of memory
        cudaErrorMemoryAllocation: out of memory
        RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`
        torch.OutOfMemoryError: HIP out of memory. Tried to allocate 256.00 MiB. GPU 0 has a total capacity of 63.98 GiB
        Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:307 'out of memory'
        """,
    Cause.INSUFFICIENT_FREE_MEMORY: """
        ValueError: Free memory on device (0.49/79.32 GiB) on startup is less than desired GPU memory utilization (0.6, 4 GiB)
        ValueError: Free memory on device cuda:1 (19.77/22.05 GiB) on startup is less than desired GPU memory utilization
        AssertionError: Error in memory profiling. Initial used memory 0.3 GiB, currently used memory 0.1 GiB.
        """,
    Cause.NO_KV_CACHE: """
        ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`
        ValueError: Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token.
        """,
    Cause.CONTEXT_EXCEEDS_KV_CACHE: """
        ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that can be stored in KV cache (96)
        ValueError: To serve at least one request with the models's max seq len (131072), (4.11 GiB KV cache is needed, which is
        """,
    Cause.HOST_OOM: """
        OSError: [Errno 12] Cannot allocate memory
        ValueError: Too large swap space. 16.00 GiB out of the 15.60 GiB total CPU memory is allocated for the swap space.
        RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to
        ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).
        Fatal Python error: Bus error
        ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.
        Last State:     Terminated  Reason:       OOMKilled
        ChildProcessError: worker died (-9)
        Engine core proc died with exit code -9
        """,
    Cause.DISK_FULL: """
        OSError: [Errno 28] No space left on device
        safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, message: "No space left on device" })
        OSError: [Errno 122] Disk quota exceeded: '/cache/hub'
        """,
    Cause.UNSUPPORTED: """
        ValueError: Model architectures ['Foo'] are not supported for now. Supported architectures: dict_keys(['Bar'])
        ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has 7.5.
        RuntimeError: CUDA error: no kernel image is available for execution on the device
        ValueError: The quantization method gptq_marlin is not supported for the current GPU. Minimum capability: 80.
        RuntimeError: FlashAttention only supports Ampere GPUs or newer.
        ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(head_size=576, use_mla=True)
        ValueError: Unknown quantization method: foo. Must be one of ['awq', 'fp8']
        NotImplementedError: VLLM_USE_V1=1 is not supported with --preemption-mode.
        triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 114688, Hardware limit: 101376.
        ValueError: The checkpoint you are trying to load has model type `x` but Transformers does not recognize this architecture
        """,
    Cause.BAD_FLAG: """
        vllm serve: error: argument --max-num-seqs: invalid int value: 'many'
        vllm: error: argument --max-model-len: expected one argument
        api_server.py: error: argument --dtype: invalid choice: 'fp8' (choose from 'auto', 'half')
        vllm serve: error: the following arguments are required: model_tag
        vllm serve: error: ambiguous option: --max-num could match --max-num-seqs, --max-num-batched-tokens
        ValueError: max_num_batched_tokens (512) is smaller than max_model_len (32768). This effectively limits the maximum
        ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).
        ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (6).
        TypeError: EngineArgs.__init__() got an unexpected keyword argument 'foo'
        KeyError: 'invalid tool call parser: foo (chose from { hermes,mistral })'
        RuntimeError: CUDA error: invalid device ordinal
        """,
    Cause.MODEL_NOT_FOUND: """
        OSError: foo/bar is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'
        huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-0)
        Repository Not Found for url: https://huggingface.co/api/models/foo/bar.
        OSError: You are trying to access a gated repo.
        huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/m'
        OSError: Incorrect path_or_model_id: '/data/model'. Please provide either the path to a local folder
        RuntimeError: Cannot find any model weights with `/data/model`
        OSError: We couldn't connect to 'https://huggingface.co' to load this file
        safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer
        huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub
        """,
    Cause.DISTRIBUTED: """
        RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)
        torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, internal error
        torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to connect
        RuntimeError: [/opt/gloo/transport/tcp/pair.cc:525] Read error [10.0.0.7]:2: Connection reset by peer, gloo/
        ValueError: Current node has no GPU available. current_node_resource={'CPU': 8.0}
        """,
    Cause.DRIVER: """
        RuntimeError: The NVIDIA driver on your system is too old (found version 12020).
        RuntimeError: Found no NVIDIA driver on your system.
        RuntimeError: No CUDA GPUs are available
        ImportError: libcuda.so.1: cannot open shared object file: No such file or directory
        RuntimeError: Failed to infer device type
        docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].
        nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8
        Failed to initialize NVML: Driver/library version mismatch
        RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable
        RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment
        """,
    Cause.PORT_IN_USE: """
        OSError: [Errno 98] Address already in use
        ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use
        zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:45113')
        docker: Error response from daemon: driver failed programming: Bind for 0.0.0.0:8000 failed: port is already allocated.
        RuntimeError: The server socket has failed to listen on any local network address. code: -98, name: EADDRINUSE
        """,
    Cause.ENGINE_DIED: """
        RuntimeError: CUDA error: an illegal memory access was encountered
        RuntimeError: CUDA error: device-side assert triggered
        vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)
        vllm.engine.async_llm_engine.AsyncEngineDeadError: Background loop has errored already.
        CRITICAL 02-25 11:11:34 launcher.py:101] MQLLMEngine is already dead, terminating server process
        TimeoutError: RPC call to execute_model timed out.
        ERROR 11-22 09:51:30 [core_client.py:600] Engine core proc EngineCore_0 died unexpectedly, shutting down client.
        Fatal Python error: Segmentation fault
        """,
    Cause.V0_FALLBACK: """
        WARNING 06-23 07:50:15 [arg_utils.py:1642] ['Foo'] is not supported by the V1 Engine. Falling back to V0.
        INFO 06-23 07:50:21 [llm_engine.py:230] Initializing a V0 LLM engine (v0.9.1) with config: model='m'
        """,
    Cause.UNKNOWN: """
        INFO 06-23 07:50:21 [llm_engine.py:230] Initializing a V0 LLM engine (v0.7.3) with config: model='m'
        WARNING 05-20 [config.py:1] Possibly too large swap space. 4.00 GiB out of the 15 GiB total CPU memory
        INFO 03-14 10:00:00 [model_runner.py:1442] If out-of-memory error occurs during cudagraph capture, lower something
        WARNING 03-14 10:00:00 [cuda.py:1] FlashInfer is not supported on this GPU, falling back
        DEBUG 03-14 10:00:00 [__init__.py:1] CUDA platform is not available because: NVML Shared Library Not Found
        """,
}  # fmt: skip


def words(text):
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("cause", "line"), [(cause, line) for cause, text in LINES.items() for line in words(text)])
def test_a_line_alone_names_its_cause(cause, line):
    assert diagnose(Evidence((line,))).cause is cause
    assert is_suspicious(line) or cause is Cause.UNKNOWN


@pytest.mark.parametrize("line", words(LINES[Cause.UNKNOWN]))
def test_what_only_sounds_like_a_failure_decides_nothing(line):
    assert diagnose(Evidence((line,))).line is None


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (
            "ValueError: Free memory on device cuda:0 (7.34/139.72 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 125.75 GiB). Decrease GPU memory utilization",
            {"free_gib": 7.34, "total_gib": 139.72, "utilization": 0.9, "desired_gib": 125.75},
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (4.11 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (4.0 GiB). Based on the available memory, the "
            "estimated maximum model length is 127776. Try increasing",
            {
                "max_model_len": 131072,
                "needed_kv_gib": 4.11,
                "available_kv_gib": 4.0,
                "estimated_max_model_len": 127776,
            },
        ),
        (
            "ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that can be stored "
            "in KV cache (2400). Try increasing",
            {"max_model_len": 8192, "kv_tokens": 2400},
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of "
            "23.52 GiB of which 512.00 MiB is free.",
            {"tried_mib": 1536, "total_gib": 23.52, "free_mib": 512},
        ),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", {
            "dummy_requests": 1024,
        }),
        (
            "  Value error, User-specified max_model_len (300000) is greater than the derived max_model_len "
            "(max_position_embeddings=202752 or model_max_length=None in model's config.json).",
            {"max_model_len": 300000, "derived_max_model_len": 202752},
        ),
        (
            "ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).",
            {"max_num_batched_tokens": 64, "max_num_seqs": 256},
        ),
        (
            "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (6).",
            {"heads": 40, "tensor_parallel_size": 6},
        ),
        ("ERROR [a] Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor.", {
            "exit_code": -11,
        }),
        ("RuntimeError: Insufficient space in /dev/shm: 160 MiB required, 64 MiB free.", {"needed_shm_mib": 160}),
    ],
)  # fmt: skip
def test_the_figures_in_a_line_are_read(line, numbers):
    assert diagnose(Evidence((line,))).numbers == numbers


def test_the_root_cause_wins_over_the_lines_that_every_failure_ends_in():
    aftermath = ["ERROR 01-01 00:00:00 [core.py:1] EngineCore failed to start.", "RuntimeError: NCCL error: timeout"]
    found = diagnose(Evidence((*aftermath, OOM, WRAPPER)))
    assert (found.cause, found.line, found.line_number) == (Cause.CUDA_OOM, OOM, 3)


def test_a_wrapper_without_a_root_is_unknown_and_shows_itself():
    found = diagnose(Evidence((WRAPPER,)))
    assert (found.cause, found.line, found.confidence) == (Cause.UNKNOWN, WRAPPER, "guess")


def test_a_wrapper_around_an_exception_that_no_sign_knows_shows_the_exception():
    found = diagnose(Evidence(("AttributeError: 'tuple' object has no attribute 'ndim'", WRAPPER)))
    assert (found.cause, found.line_number) == (Cause.UNKNOWN, 1)


def test_the_same_wrapper_after_serving_means_that_the_engine_died():
    found = diagnose(Evidence((READY, "IndexError: out of range", "ERROR EngineCore encountered a fatal error.")))
    assert (found.cause, found.line_number) == (Cause.ENGINE_DIED, 2)


def test_memory_that_ran_out_while_serving_is_told_as_such():
    assert diagnose(Evidence((READY, STATS, OOM, "ERROR AsyncLLM output_handler failed."))).cause is Cause.CUDA_OOM


@pytest.mark.parametrize("line", ["ValueError: No available memory for the cache blocks.", "vllm: error: argument --x"])
def test_what_only_a_start_can_say_does_not_count_once_it_serves(line):
    assert diagnose(Evidence((READY, line), exit_code=0)).cause is Cause.HEALTHY


def test_what_was_said_before_it_became_ready_was_survived():
    assert diagnose(Evidence((OOM, READY))).cause is Cause.HEALTHY


def test_only_the_last_start_counts():
    start = "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.11.2"
    assert diagnose(Evidence((start, OOM, WRAPPER, start, READY))).cause is Cause.HEALTHY
    assert diagnose(Evidence((start, READY, start, OOM, WRAPPER))).cause is Cause.CUDA_OOM


def test_a_start_that_is_cut_off_is_told_by_the_one_before_unless_it_still_runs():
    start = "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.11.2"
    log = (start, OOM, WRAPPER, start)
    assert diagnose(Evidence(log)).cause is Cause.CUDA_OOM
    assert diagnose(Evidence(log, running=True)).cause is Cause.UNKNOWN


def test_what_follows_an_order_to_stop_is_not_why_it_stopped():
    stop = "INFO 01-01 00:00:00 [launcher.py:1] API server: shutdown triggered"
    log = (READY, stop, "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.")
    assert diagnose(Evidence(log, exit_code=-15)).cause is Cause.HEALTHY


def test_a_family_of_words_decides_only_when_the_server_has_ended():
    line = "NotImplementedError"
    assert diagnose(Evidence((line,), running=True)).cause is Cause.UNKNOWN
    assert diagnose(Evidence((line,))).cause is Cause.UNSUPPORTED


def test_an_exception_alone_decides_nothing_while_the_server_runs():
    assert diagnose(Evidence(("ValueError: odd",), running=True)).line is None
    assert diagnose(Evidence(("ValueError: odd",))).line == "ValueError: odd"


def test_stalled_is_only_what_a_deadline_says():
    log = (STATS.replace("Avg", "avg"), "No available shared memory broadcast block found in 60 seconds.")
    assert diagnose(Evidence(log)).cause is Cause.UNKNOWN
    found = diagnose(Evidence(log, stalled_phase="loading weights"))
    assert (found.cause, found.line_number) == (Cause.STALLED, 2)
    assert "loading weights" in found.advice


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [(137, Cause.HOST_OOM), (-9, Cause.HOST_OOM), (-11, Cause.ENGINE_DIED), (1, Cause.UNKNOWN), (None, Cause.UNKNOWN)],
)
def test_a_silent_end_is_told_by_its_exit_code(exit_code, cause):
    found = diagnose(Evidence(("INFO 01-01 00:00:00 [a.py:1] loading",), exit_code=exit_code))
    assert (found.cause, found.line) == (cause, None)
    assert found.confidence != "certain"


def test_the_container_engines_word_for_an_oom_kill_needs_no_line():
    assert diagnose(Evidence((OOM,), oom_killed=True)).cause is Cause.HOST_OOM


def test_a_server_that_served_and_was_killed_did_not_end_well():
    assert diagnose(Evidence((READY,), exit_code=-9)).cause is Cause.HOST_OOM
    assert diagnose(Evidence((READY,), exit_code=0)).cause is Cause.HEALTHY


def test_a_kill_by_the_server_itself_is_no_shortage_of_memory():
    fatal = "CRITICAL 05-07 19:18:17 [core_client.py:359] Got fatal signal from worker processes, shutting down."
    assert diagnose(Evidence((fatal, "Killed"))).cause is Cause.UNKNOWN
    assert diagnose(Evidence(("Killed",))).cause is Cause.HOST_OOM


def test_a_probe_that_fails_while_the_server_loads_is_no_network_error():
    probe = "Warning Unhealthy pod/x Readiness probe failed: Get /health: Max retries exceeded with url: /health"
    assert diagnose(Evidence((probe,))).cause is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("INFO 08-01 06:01:10 [utils.py:287] vLLM API server version 0.10.2", "0.10.2"),
        ("INFO 11-01 03:00:00 api_server.py:528] vLLM API server version 0.6.3.post1", "0.6.3.post1"),
        ("INFO 08-01 06:00:00 [utils.py:345]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.26.0", "0.26.0"),
        ("INFO 07-17 00:07:07 [core.py:69] Initializing a V1 LLM engine (v0.9.2) with config: model='m'", "0.9.2"),
        ("hello", None),
    ],
)
def test_the_version_is_read_where_the_log_names_it(line, version):
    assert diagnose(Evidence((line,))).engine_version == version


def test_every_sign_gives_advice_that_one_can_follow():
    assert all(sign.advice.endswith(".") and len(sign.advice) > 20 for sign in SIGNS)


def test_every_figure_has_a_unit_in_its_name_or_is_a_plain_number():
    names = {name for sign in SIGNS for name in sign.regex.groupindex}
    assert {name.removesuffix("_unit") for name in names if name.endswith("_unit")} <= names
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in names)


def test_a_long_log_is_read_in_a_moment(log):
    lines = log("vllm-0.26.0-h100-A_cold.log") * 20
    assert diagnose(Evidence(tuple(lines))).cause is Cause.HEALTHY


def test_the_table_of_flags_ships_with_the_package():
    assert (files("tuner.engines.vllm") / "flags.json").is_file()
