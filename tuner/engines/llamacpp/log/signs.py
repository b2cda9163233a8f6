"""What tuner reads in the log of llama.cpp's server.

llama.cpp gives neither levels nor exceptions that can be relied upon, so the signs are its own sentences. The HTTP
server listens before the model is loaded; ready is only what is said after it.
"""

import re

from tuner.engines.causes import Cause
from tuner.engines.log import platform
from tuner.engines.log.diagnosis import DiagnosticReader
from tuner.engines.log.reader import LogGrammar
from tuner.engines.log.signs import Rank, Sign

_OFFLOAD_LESS = "Offload fewer layers (--n-gpu-layers), lower --ctx-size or --parallel, or quantize the KV cache."
_NEVER = re.compile(r"(?!)")

WROTE = re.compile(
    r"\bllama[-_](?:server|model_loader|model_load|init|kv_cache|context|new_context)|\bggml_|\bgguf_init"
    r"|\bload_tensors:|\bprint_info: |\bllm_load_|\bsrv +\w+|\bslot +\w+: id|\bcommon_init_from_params\b|GGML_ASSERT"
    r"|\bcommon_\w*download\w*: |\bllama_(?:params_fit|decode|graph)\b|\| tid=\"\d+\"|\bollama\[|llama runner process"
    r"|couldn't bind (?:to|HTTP) server socket|\berror: (?:invalid|unknown) argument: |error while handling argument \""
)
"""A line that only llama.cpp writes."""

_SIGNS = (
    Sign(
        Cause.NO_KV_CACHE,
        Rank.EXACT,
        (r"failed to allocate (?:memory|buffer) for (?:the )?kv cache|llama_kv_cache\w*: failed to allocate",),
        _OFFLOAD_LESS,
    ),
    Sign(
        Cause.CUDA_OOM,
        Rank.KNOWN,
        (
            r"allocating (?P<tried_mib>[\d.]+) MiB on device \d+: (?:cuda|hip)Malloc failed: out of memory",
            r"(?:cuda|hip)Malloc failed: out of memory|(?:CUDA|HIP|ROCm) error: out of memory|ErrorOutOfDeviceMemory",
            r"(?:unable|failed) to allocate (?:CUDA|ROCm|HIP|Vulkan|SYCL|Metal)(?!_Host)\w* (?:\w+ )?buffer",
            r"kIOGPUCommandBufferCallbackErrorOutOfMemory|unable to allocate backend buffer",
        ),
        _OFFLOAD_LESS,
        serving=True,
    ),
    Sign(
        Cause.CUDA_OOM,
        Rank.FAMILY,
        (r"failed to allocate compute (?:\w+ )?buffers",),
        _OFFLOAD_LESS,
        serving=True,
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.KNOWN,
        (
            r"(?:unable|failed) to allocate (?:CPU|\w+_Host)\w* (?:\w+ )?buffer",
            r"ggml_backend_cpu_buffer_type_alloc_buffer: failed|ggml_aligned_malloc: insufficient memory",
        ),
        platform.MORE_HOST_MEMORY,
        serving=True,
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"(?<!CUDA )(?<!ROCm )(?<!HIP )(?<!MUSA )error: (?:invalid|unknown) argument",
            r"error while handling argument|^error: .* (?:requires|must be)\b",
        ),
        "Correct or drop the flag; `llama-server --help` lists what this build takes.",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"unknown (?:model architecture|\(?pre-?\)?tokenizer|pre-tokenizer type)|wrong shape|missing tensor",
            r"tensor '[^']*' (?:not found|is missing|has wrong|has invalid)|unknown tensor '",
            r"key not found in model|error loading model (?:hyperparameters|vocabulary)",
            r"wrong number of tensors|unsupported (?:model|quantization|ftype)|invalid ggml type",
        ),
        "Use a newer build of llama.cpp, or a GGUF file made for it.",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"V cache quantization requires flash_attn|n_seq_max must be <= (?P<most_slots>\d+)",
            r"llama_init_from_model: .*(?:requires|must be|not (?:supported|compatible))",
        ),
        "Correct the setting that the line names.",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (r"load_model: failed to load draft model",),
        "Correct model_draft, or leave it out.",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.KNOWN,
        (
            r"failed to open GGUF file|gguf_init\w*: (?:failed to open|invalid magic)|llama_open_file: failed to open",
            r"error loading model: .*(?:No such file|failed to (?:open|load model from)|invalid split)",
            r"failed to read magic|invalid magic|bad magic|not within the file bounds|unexpectedly reached end of file",
            r"failed to download model|error from HF API|common_\w*(?:hf|download)\w*: .*(?:failed|error|40[134])",
        ),
        platform.FIX_MODEL,
    ),
    Sign(
        Cause.PORT_IN_USE,
        Rank.EXACT,
        (r"couldn't bind (?:to|HTTP) server socket",),
        platform.OTHER_PORT,
    ),
    Sign(
        Cause.DRIVER,
        Rank.KNOWN,
        (r"ggml_cuda_init: failed to initialize (?:CUDA|ROCm)|no (?:CUDA|ROCm) devices found",),
        platform.FIX_DRIVER,
    ),
    Sign(
        Cause.ENGINE_DIED,
        Rank.CRASH,
        (
            r"GGML_ASSERT\(|ggml_abort|(?:CUDA|ROCm|HIP|SYCL|Vulkan) error(?!: out of memory)|ErrorDeviceLost",
            r"runner process (?:has terminated|no longer running)",
        ),
        platform.LOOK_ABOVE,
        serving=True,
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.WRAPPER,
        (r"(?:failed|unable) to (?:load model|create context)|exiting due to model loading error|error loading model",),
        platform.LOOK_ABOVE,
        serving=True,
    ),
    *platform.SIGNS,
)

READING = LogGrammar(
    signs=_SIGNS,
    traps=re.compile(r"common_fit_params: failed to fit|failed to mlock|no usable GPU found"),
    version=re.compile(r"^(?:build|version): (\d+ \(\w+\))"),
    start=re.compile(r"^build: \d+|^system_info: n_threads"),
    ready=re.compile(r"server is listening on http|starting the main loop|\bmodel loaded\b|all slots are idle"),
    serving=re.compile(
        r"server is listening on http|starting the main loop|\bmodel loaded\b|all slots are idle"
        r"|log_server_r\w+: (?:done )?request: \w+ /\S* \S+ \d{3}|print_timing"
        r"|\bslot +\w+(?:\(\))?: id +\d+ \| task +\d"
        r"|\blog_server_request\] .*status=\d{3}|\bprompt eval time ="
    ),
    started=_NEVER,
    told_to_stop=re.compile(r"[Rr]eceived (?:second )?interrupt|operator\(\): cleaning up before exit"),
    not_the_root=_NEVER,
)
"""How a llama.cpp server's log is read."""


def reader() -> DiagnosticReader:
    """Reads a llama.cpp log as it grows."""
    return DiagnosticReader(READING)
