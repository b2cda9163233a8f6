"""Signs of what lies below an engine: torch, CUDA, NCCL, the Hugging Face hub and the operating system.

Every engine written in Python on torch fails in these words, whatever its own version; vLLM's and SGLang's tables both
start from here. The texts are those of the programs named, read in logs that people posted.
"""

from tuner.engines.causes import Cause
from tuner.engines.log.lines import Level
from tuner.engines.log.signs import Rank, Sign

LESS_GPU_MEMORY = "Lower {share}, max_num_seqs or max_num_batched_tokens, or spread over more GPUs."
FREE_THE_GPU = "End what else holds memory on the GPU{or_less}."
MORE_HOST_MEMORY = "Give the server more host memory (container limit, RAM, swap); load fewer processes at once."
MORE_SHM = "Give the container more shared memory: --shm-size or --ipc=host."
OTHER_HARDWARE = "This model, data type or kernel does not run on this GPU: choose another, or another image."
OTHER_IMAGE = "Use an image whose engine and transformers know this model."
FIX_MODEL = "Check the model's name or path, and the token and licence that it needs."
CHECK_NETWORK = "Check the network, or download the model beforehand and set HF_HUB_OFFLINE=1."
INCOMPLETE_MODEL = "The model's files are incomplete or damaged: download them again."
FIX_COMMUNICATION = "Run with NCCL_DEBUG=INFO; behind PCIe in containers try NCCL_P2P_DISABLE=1 and a larger /dev/shm."
FIX_DRIVER = "Make nvidia-smi work in the same container first; the driver must be as new as the image's CUDA."
OTHER_PORT = "Choose another port, or end what listens on it."
FREE_DISK = "Free space on the disk that holds the model and compile caches, or move them."
FEWER_RANKS = "Choose parallel sizes that divide the model's dimensions and do not exceed the visible GPUs."
ADD_COMPILER = (
    "Install the missing compiler that the line names (nvcc comes with a -devel image of CUDA; gcc, g++ and ninja with "
    "the distribution), or turn off what is compiled when the server starts."
)
MATCH_VERSIONS = (
    "What is installed was built for other versions of torch, CUDA or the C library: take the engine's own image, or "
    "install it anew in an environment of its own."
)
ADD_PACKAGE = (
    "Install {named} where the engine is installed (in its image or environment), take an image that has it, or go "
    "back to settings that do without it."
)
MAKE_WRITABLE = (
    "Let the server's user write to this folder, or move the caches: VLLM_CACHE_ROOT, HF_HOME, TRITON_CACHE_DIR, "
    "TORCHINDUCTOR_CACHE_DIR."
)
RAISE_PROBE = "A probe ended it before it was ready: give it more time (initialDelaySeconds, failureThreshold)."
KILLED = (
    "It was ended by SIGKILL: by the kernel if the host's memory ran out (look into dmesg), else by a probe or an "
    "orchestrator that gave it too little time."
)
TERMINATED = (
    "Somebody ended it by SIGTERM before it served: a probe, an orchestrator or a time limit; give it more time."
)
LOOK_ABOVE = "The engine died; what it said first, a traceback where there is one, is the reason."

_SHARE, _BYTES = "gpu_memory_utilization", "kv_cache_memory_bytes"


def advise(advice: str, *, fixed_cache: bool) -> str:
    """Advice with the setting filled in that decides how large the KV cache is.

    Args:
        advice: Of a sign; ``{share}`` stands for the setting, ``{or_less}`` for the advice to lower the share, which no
            size of the cache can stand in for.
        fixed_cache: Whether ``kv_cache_memory_bytes`` is set, next to which the share of the GPU decides nothing.
    """
    or_less = "" if fixed_cache else f", or lower {_SHARE}"
    return advice.replace("{share}", _BYTES if fixed_cache else _SHARE).replace("{or_less}", or_less)


_ENGINES_OWN = r"(?:Vllm|Model|Cache|Parallel|Scheduler|Speculative|Compilation|Load|LoRA|Engine|Quant\w*)Config\b"
"""Configuration classes that are not a model's: what they lack is no matter of the image's age."""

NOT_THE_MACHINES = (
    r"(?!.*(?i:\btimed? ?out|timeout|connect|socket|network|\bpeer|broken pipe|temporarily|too many open|new thread"
    r"|/dev/shm|shared memory (?:object|file)|disk|permission denied|driver|initiali[sz]e CUDA|\bfork|\bkilled"
    r"|\bsignal|subprocess|child process|process(?:es)? (?:died|terminated|exited)|NOT_INITIALIZED|heartbeat|health"
    r"|\bbusy\b|\bNCCL|\bRay\b|EngineCore|cancelled|corrupt|truncated|checksum))"
)
"""Ahead of the words of an exception: none of them is about what a machine can lack."""
BROKEN = (
    r"(?:torch\._(?:dynamo|inductor)\.exc\.\w+|triton\.[\w.]*Error|(?:Value|Assertion|NotImplemented|Type|Attribute"
    r"|Index|Key|Lookup|ZeroDivision|Overflow|Runtime|Import)Error|Exception)\b(?![\w.])"
)
"""Exceptions in which the same configuration ends at every start, unless their words are about the machine."""
BROKEN_IN = (
    r"(?:site|dist)-packages/(?:torch/(?:_dynamo|_inductor|_functorch|_higher_order_ops|fx|nn|library|_ops|functional)\b"
    r"|triton/|flashinfer/|flash_attn|vllm_flash_attn/|deep_gemm/|sgl_kernel/|aiter/|xformers/)"
)
"""The files of kernels and compilers."""
REFUSED_BY_THE_GPU = (
    "The driver refuses what a kernel asks of this GPU, and would at every start: go back to settings that have run "
    "(attention backend, data types, CUDA graphs, all-reduce), or take another image."
)
SICK_GPU = (
    "The GPU itself is faulty: look into dmesg and `nvidia-smi -q` (Xid, ECC, row remapper), reset or reboot it, or "
    "leave it out."
)
REFUSED_THERE = (
    "The engine's code breaks on this combination, and would at every start: change what the line is about, or go back "
    "to settings that have run."
)

_EXIT_OF_SIGKILL = r"(?i:\bexit(?:ed|s)?[ _]?(?:with )?(?:return )?(?:code|status)?)['\"]? *[:=(]? *(?:-9|137)\b"
_NOT_OUT_OF_MEMORY = r"OOMKilled['\"]?: ?false|^\s*Reason: +Error\b"

_REFUSED_ALWAYS = (
    r"(?:invalid (?:argument|configuration argument|pitch argument|resource handle)|named symbol not found"
    r"|too many (?:resources requested for launch|blocks in cooperative launch)|device kernel image is invalid"
    r"|a PTX JIT compilation failed|PTX JIT compiler library not found"
    r"|operation (?:not permitted when stream is capturing|would make the legacy stream depend on))"
)
"""What CUDA calls a launch or an allocation that it refuses by what is asked, and not by the state of the GPU."""
_XID_OF_A_FAULTY_GPU = r"48|62|64|74|79|95|110|119|120|140|143"
"""Of the driver's numbers those that only a reset ends; of the others most (13, 31, 43, 45) are a program's."""

_GPU_MEMORY = (
    Sign(
        Cause.CUDA_OOM,
        Rank.KNOWN,
        (
            r"Tried to allocate (?P<tried_mib>[\d.]+) (?P<tried_mib_unit>[KMG]iB)"
            r"(?:.*? total capacity of (?P<total_gib>[\d.]+) (?P<total_gib_unit>[KMG]iB))?"
            r"(?:.*? of which (?P<free_mib>[\d.]+) (?P<free_mib_unit>bytes|[KMG]iB) is free)?",
        ),
        LESS_GPU_MEMORY,
        "torch",
        serving=True,
    ),
    Sign(
        Cause.CUDA_OOM,
        Rank.KNOWN,
        (
            r"(?:CUDA|HIP|XPU|NPU) out of memory",
            r"(?<!exceptions\.)\bOutOfMemoryError\b(?!: (?:out of resource|Task was killed))",
            r"(?:CUDA|HIP)(?: driver)? [Ee]rror: out of memory",
            r"cudaErrorMemoryAllocation|hipErrorOutOfMemory|CUDA_ERROR_OUT_OF_MEMORY|OUT_OF_DEVICE_MEMORY",
            r"Triton Error \[(?:CUDA|HIP)\]: out of memory",
            r"Cuda (?:failure|error)[^']{0,80}'out of memory'",
            r"CU(?:BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED",
            r"Error out of memory at line",
            r"cupy\.\S*OutOfMemoryError|NVML_SUCCESS == r INTERNAL ASSERT FAILED",
            r"RESOURCE_EXHAUSTED: .*(?:[Aa]lloc|memory)|Ran out of memory in memory space hbm",
        ),
        LESS_GPU_MEMORY,
        "torch, Triton, NCCL, cuBLAS, CUDA, bitsandbytes, cupy, XLA",
        serving=True,
    ),
)

_HOST_MEMORY = (
    Sign(
        Cause.HOST_OOM,
        Rank.KNOWN,
        (
            r"\bOOM[- ]?[Kk]illed\b(?!\"?: false)",
            r"[Oo]ut of memory: Kill(?:ed)? process|\bKilled process \d+|invoked oom-killer|oom-kill:constraint",
            r"oom_reaper: reaped process|has been killed by the OOM killer|result 'oom-kill'",
            r"OutOfMemoryError: Task was killed due to the node running low on memory",
            r"due to memory pressure \(OOM\)|low on resource: memory|System memory low at node",
            r"exceeds the memory usage threshold|due to the lack of CPU swap space",
        ),
        MORE_HOST_MEMORY,
        "kernel, systemd, Kubernetes, Docker, Ray",
        serving=True,
        level=Level.DEBUG,
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.PEER,
        (
            _EXIT_OF_SIGKILL,
            r"Failed core proc\(s\): \{[^}]*: (?:-9|137)\b",
            r"\bdied (?:with (?:signal|<Signals\.) ?(?:9|SIGKILL)\b|\(-9\))",
            r"signal: killed|Signal 9 \(SIGKILL\)|was sent SIGKILL|code=killed, status=9/KILL",
            r"(?:terminated|killed|exited|died) (?:with|by|due to) (?:signal )?SIGKILL(?! by OOM)",
        ),
        MORE_HOST_MEMORY,
        "a process ended by SIGKILL, which is nearly always the kernel's memory killer",
        serving=True,
        unless=_NOT_OUT_OF_MEMORY,
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.PEER,
        (r"^(?:\S+: line \d+: +\d+ )?Killed\b|^\[\d+\] +\+? *\d+ killed\b",),
        MORE_HOST_MEMORY,
        "the shell, of a server that did not kill itself",
        serving=True,
        unless=r"[Gg]ot fatal signal from worker processes|Received sigquit from a child process",
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.KNOWN,
        (
            r"\[Errno 12\] Cannot allocate memory|: Cannot allocate memory(?: \(12\))?$|os error 12\b",
            r"std::bad_alloc",
            r"DefaultCPUAllocator: (?:can't allocate|not enough) memory",
            r"^(?:numpy\.\S+)?MemoryError\b|_ArrayMemoryError",
        ),
        MORE_HOST_MEMORY,
        "Python, torch, C++",
    ),
    Sign(
        Cause.HOST_OOM,
        Rank.KNOWN,
        (
            r"\b[Bb]us error\b|\bSIGBUS\b|insufficient shared memory \(shm\)",
            r"Insufficient space in /dev/shm: (?P<needed_shm_mib>\d+) MiB required",
            r"No space left on device: .*/(?:dev/shm|psm_)|unable to (?:write to|allocate shared|mmap).*</torch_",
        ),
        MORE_SHM,
        "torch, Python; vLLM 0.27-0.33",
        serving=True,
    ),
)

_COMMUNICATION = (
    Sign(
        Cause.DISTRIBUTED,
        Rank.PEER,
        (
            r"\bNCCL_ERROR_\w+|failure detected by watchdog at work|gloo::EnforceNotMet",
            r"\bNCCL [Ee]rror\b|\bnccl(?:UnhandledCuda|System|Internal|Remote)Error\b|\bncclInvalidUsage\b",
            r"Dist(?:Backend|Network|Store)Error",
            r"Heartbeat monitor timed out|Connection closed by remote peer|HCCL .*(?:[Ee]rror|timed? ?out)",
            r"watchdog got stuck for \d+ seconds|collective operation timeout|NCCL communicator was aborted",
            r"Duplicate GPU detected|NIXL_ERR_\w+|UCX +ERROR|Call to ibv_\w+ failed|oneCCL: .*(?:error|fail)",
            r"[Gg]loo connectFullMesh failed|(?:Error|failed): \[.*gloo/|unsupported gloo device",
            r"RuntimeError: (?:Connection (?:closed|reset) by peer|Broken pipe|Socket Timeout)",
            r"Timed out initializing process group|wait timeout after \d+ms|Rendezvous(?:Timeout|Connection)Error",
            r"client socket has (?:timed out|failed to connect to any)",
            r"peer access is not supported between these two devices",
            r"DeepEP error|NVSHMEM.*(?:error|failed)|(?:Errno 99\]|ZMQError:) (?:Cannot assign requested|No such)",
        ),
        FIX_COMMUNICATION,
        "NCCL, HCCL, oneCCL, gloo, torch, zmq, NVSHMEM, NIXL",
        serving=True,
    ),
    Sign(
        Cause.DISTRIBUTED,
        Rank.CRASH,
        (r"NCCL WARN (?!.*(?:NET/|Failed to (?:open|find)|not found))",),
        FIX_COMMUNICATION,
        "NCCL",
    ),
    Sign(
        Cause.DISTRIBUTED,
        Rank.CRASH,
        (r"\[c10d\] waitForInput: .*timed out after \d+ms",),
        FIX_COMMUNICATION,
        "torch, as a warning: the reason of what follows",
        level=Level.WARNING,
    ),
)

_PORT = (
    Sign(
        Cause.PORT_IN_USE,
        Rank.KNOWN,
        (
            r"[Aa]ddress already in use|\bEADDRINUSE\b|Only one usage of each socket address",
            r"[Pp]ort \d+ is (?:already )?(?:in use|allocated|occupied)|[Pp]ort \d+ is not available",
            r"port is already allocated|error while attempting to bind on address",
        ),
        OTHER_PORT,
        "the operating system, uvicorn, zmq, Docker, torch",
        serving=True,
    ),
)

_DRIVER = (
    Sign(
        Cause.DRIVER,
        Rank.KNOWN,
        (
            r"NVIDIA driver on your system is too old|CUDA driver version is insufficient",
            r"Found no NVIDIA driver",
            r"No (?:CUDA|HIP) GPUs are available|no CUDA-capable device is detected|Torch not compiled with CUDA",
            r"system has unsupported display driver|system not yet initialized|CUDA unknown error",
            r"CUDA(?: driver)? error: (?:unknown error|initialization error|OS call failed)",
            r"CUDA(?: driver)? error: (?:MPS (?:client failed|server is not)|API call is not supported in the)",
            r"CUDA(?: driver error|\]): device not ready|Unexpected error from cudaGetDeviceCount",
            r"CUDA error: system driver mismatch",
            r"CUDA error: (?:CUDA-capable device\(s\) is/are busy|driver shutting down)",
            r"forward compatibility was attempted on non supported HW",
            r"provided PTX was compiled with an unsupported toolchain",
            r"cudaErrorInsufficientDriver|cudaErrorNoDevice",
            r"CUDA_ERROR_(?:NO_DEVICE|NOT_INITIALIZED|SYSTEM_DRIVER_MISMATCH)",
            r"Unable to determine the device handle for GPU",
            r"cudaError(?:SystemNotReady|DevicesUnavailable|InitializationError)|driver initialization failed",
            r"device >= 0 && device < num_gpus INTERNAL ASSERT FAILED",
            r"\b0 active drivers\b|[Uu]nable to open /dev/kfd",
        ),
        FIX_DRIVER,
        "torch, CUDA",
        serving=True,
    ),
    Sign(
        Cause.DRIVER,
        Rank.EXACT,
        (
            r"uncorrectable (?:ECC|NVLink) error|GPU (?:is lost|has fallen off the bus)",
            rf"\bXid\b.{{0,60}}?[:,] ?(?:{_XID_OF_A_FAULTY_GPU})\b",
        ),
        SICK_GPU,
        "CUDA, the kernel's driver",
        serving=True,
    ),
    Sign(
        Cause.DRIVER,
        Rank.FAMILY,
        (
            r"CUDA initialization: (?:The NVIDIA driver|Found no NVIDIA|CUDA unknown|Unexpected error)",
            r"The NVIDIA Driver was not detected",
        ),
        FIX_DRIVER,
        "torch and NVIDIA's images, as a warning: the reason of what follows",
        level=Level.WARNING,
    ),
    Sign(
        Cause.DRIVER,
        Rank.KNOWN,
        (
            r"could not select device driver|unknown or invalid runtime name: nvidia|failed to inject CDI devices",
            r"nvidia-container-(?:cli|runtime)\S*:? .*(?:error|unsatisfied|failed)|unsatisfied condition: cuda",
            r"Driver/library version mismatch|NVIDIA-SMI has failed|NVMLError_\w+|NVML Shared Library Not Found",
            r"Failed to initialize NVML|[Cc]an't initialize NVML|Can't find libcuda\.so|libcuda\.so cannot found",
            r"^(?!.*NCCL (?:INFO|WARN)).*"
            r"lib(?:cuda|cudart|nvidia-ml|cublas\w*|cudnn\w*|nvrtc)\.so\S*: cannot open shared object file",
        ),
        FIX_DRIVER,
        "Docker, NVIDIA container toolkit, NVML, the dynamic linker",
    ),
)

_DISK = (
    Sign(
        Cause.DISK_FULL,
        Rank.KNOWN,
        (
            r"(?i:^(?!.*(?:/dev/shm|nccl|psm_|</torch_)).*(?:no space left on device|errno 28\b|os error 28\b))",
            r"(?i:disk quota exceeded|\benospc\b|(?:not enough|insufficient) (?:free )?(?:disk space|space on the))",
            r"low on resource: ephemeral-storage|ephemeral local storage usage exceeds|\bDiskPressure\b",
        ),
        FREE_DISK,
        "the operating system",
        serving=True,
    ),
    Sign(
        Cause.DISK_FULL,
        Rank.CRASH,
        (r"Not enough free disk space to download",),
        FREE_DISK,
        "huggingface_hub",
        level=Level.WARNING,
    ),
)

_MODEL = (
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.EXACT,
        (
            r"is not a local folder and is not a valid model identifier|[Ii]ncorrect path_or_model_id",
            r"Repository Not Found|(?:Repository|Revision|Entry)NotFoundError|The request model: .* does not exist",
            r"HFValidationError|Repo id must (?:be in the (?:form|from)|use alphanumeric)",
            r"does not appear to have (?:a file|files) named|Error no file named|No model weights found in",
            r"No adapter found for|Cannot find any (?:safetensors )?model weights|Cannot find adapter config file",
            r"Weight files referenced in index but missing|GGUF files not found in|Unrecognised GGUF reference",
            r"Could not detect config format|No supported config format found",
            r"(?:non-existent path|path does not exist).*HF Hub repo id",
            r"No such file or directory: '[^']*(?:\.safetensors|\.gguf|config\.json|tokenizer[^']*|/models?/[^']*)'",
            r"Can't load (?:the configuration|tokenizer|config|the model|image processor) (?:of|for) '",
            r"\b[Nn]o (?:\w+ ){0,2}(?:files?|\w+\.json|weights) (?:was |were )?found in (?:the )?(?:directory|folder)",
            r"NoCredentialsError|NoSuchBucket|NotExistError: Model not found",
            r"HeadObject operation: (?:Not Found|Forbidden)",
            r"Invalid repository ID or local directory|is not within the file bounds|corrupted or incomplete",
        ),
        FIX_MODEL,
        "huggingface_hub, modelscope, transformers, vLLM",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.EXACT,
        (
            r"GatedRepoError|[Cc]annot access gated repo|access a gated repo|is gated\. You must",
            r"Access to model \S+ is restricted|is awaiting a review from the repo authors",
        ),
        FIX_MODEL,
        "huggingface_hub",
        level=Level.INFO,
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.KNOWN,
        (
            r"\b(?:401|403|404) Client Error|Client error '40[134]|HfHubHTTPError",
            r"Invalid (?:user token|credentials|username or password)",
            r"LocalEntryNotFoundError|OfflineModeIsEnabled|We couldn't connect to '?https?://|offline mode is enabled",
            r"outgoing traffic has been disabled|cannot find the (?:requested|appropriate) (?:files|snapshot)",
        ),
        FIX_MODEL,
        "huggingface_hub, transformers",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.KNOWN,
        (
            r"Error while deserializing header|MetadataIncompleteBuffer|HeaderTooLarge",
            r"It looks like the config file at .* is not (?:a )?valid JSON",
            r"InvalidHeader(?:Deserialization|Length)|PytorchStreamReader failed reading zip|invalid load key, 'v'",
        ),
        INCOMPLETE_MODEL,
        "safetensors, torch",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.FAMILY,
        (
            r"Max retries exceeded with url|HTTPSConnectionPool|Failed to resolve 'hugging|CAS service error",
            r"HarmonyError: error downloading",
            r"Temporary failure in name resolution|Name or service not known",
        ),
        CHECK_NETWORK,
        "requests, httpx, huggingface_hub",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.FAMILY,
        (r"\bhuggingface_hub\.(?:errors|utils[\w.]*)\.\w+",),
        FIX_MODEL,
        "huggingface_hub",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.FAMILY,
        (r"^\s*[\w.]*(?:Error|Exception)\b",),
        FIX_MODEL,
        "huggingface_hub, transformers",
        raised_in=r"huggingface_hub/|transformers/utils/hub\.py",
    ),
)

_HARDWARE = (
    Sign(
        Cause.UNSUPPORTED,
        Rank.KNOWN,
        (
            r"no kernel image is available for execution|cudaErrorNoKernelImageForDevice|hipErrorNoBinaryForGpu",
            r"(?:CUDA|HIP|ROCm) error: (?:operation not supported|[Ii]nvalid device function)",
            r"cudaErrorUnsupportedPtxVersion|requires \.target sm_|not supported on \.target|ptxas fatal",
            r"is not defined for option 'gpu-name'|Unsupported gpu architecture|LLVM ERROR: Cannot select",
            r"\b[Nn]o kernel for sm_?\d+|Found .* which is too old to be supported by",
            r"not supported in this architecture|kernel `\w+` is for sm\d+|No (?:suitable kernel|kernel found for)\b",
            r"only supports Ampere GPUs or newer|UVA is not available|PassManager::run failed|AclNN_Parameter_Error",
        ),
        OTHER_HARDWARE,
        "CUDA, Triton, FlashAttention",
        serving=True,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.KNOWN,
        (
            r"out of resource: shared memory, Required: (?P<required_bytes>\d+), Hardware limit: (?P<limit_bytes>\d+)",
            r"triton\.runtime\.errors\.OutOfResources",
        ),
        OTHER_HARDWARE,
        "Triton",
        serving=True,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (
            rf"(?:(?:CUDA|HIP|ROCm)(?: driver)? [Ee]rror|Triton Error \[\w+\]): {_REFUSED_ALWAYS}",
            r"cudaError(?:InvalidValue|InvalidConfiguration|LaunchOutOfResources|CooperativeLaunchTooLarge)\b",
            r"cudaError(?:InvalidKernelImage|SymbolNotFound|StreamCaptureUnsupported)\b|CUBLAS_STATUS_ARCH_MISMATCH",
            r"CUDA_ERROR_(?:INVALID_(?:VALUE|IMAGE|PTX)|LAUNCH_OUT_OF_RESOURCES|NOT_FOUND)\b",
        ),
        REFUSED_BY_THE_GPU,
        "CUDA, HIP: refused before anything ran, whatever the GPU's state; in start-up, so that no request is to blame",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.CRASH,
        (r"with CUDA capability sm_\d+ is not compatible with the current PyTorch",),
        OTHER_HARDWARE,
        "torch",
        level=Level.WARNING,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (
            r"but Transformers does not recognize this architecture|Unrecognized configuration class",
            r"Unrecognized model in .*Should have a `model_type`|Tokenizer class \S+ does not exist",
        ),
        OTHER_IMAGE,
        "transformers",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (rf"^\s*AttributeError: '(?!{_ENGINES_OWN})\w+Config' object has no attribute",),
        OTHER_IMAGE,
        "a model's configuration, of another version than the engine expects",
    ),
)

_CRASHES = (
    Sign(
        Cause.ENGINE_DIED,
        Rank.CRASH,
        (
            r"an illegal memory access was encountered|device-side assert|unspecified launch failure",
            r"misaligned address|(?:(?:CUDA|HIP)(?: driver)? error|Triton Error \[\w+\]): (?!out of memory)|\bXid\b",
            r"CUBLAS_STATUS_(?!ALLOC_FAILED|NOT_SUPPORTED)\w+",
            r"Fatal Python error|[Ss]egmentation fault|Segfault encountered|\bSIGSEGV\b(?! or)|\bSIGABRT\b|core dumped",
            r"terminate called after throwing|terminating (?:due to|with) uncaught|double free or corruption",
            r"^(?:free|malloc|realloc|munmap_chunk)\(\): |^corrupted (?:size|double)",
            r"\[(?:HIP|CUDA) error\]|fail to call (?:hip|cu)\w+",
            r"HSA_STATUS_ERROR|HW Exception by GPU|\.(?:cu|h|c|cpp|cc):\d+: .*Assertion [`'].*[`'] failed",
            r"Memory access fault by GPU|(?i:\b(?:exit|return) ?(?:code|status)):? *(?:-(?:[4-8]|11)|13[2-69])\b",
        ),
        LOOK_ABOVE,
        "CUDA, Python, the operating system",
        serving=True,
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.KNOWN,
        (r"CUDA error: invalid device ordinal",),
        "Fewer GPUs are visible than the parallel sizes ask for.",
        "CUDA",
    ),
)

_MISSING = (
    r"ModuleNotFoundError: No module named '(?!transformers_modules)(?P<named>\w+)",
    r"^\S*python[\d.]*: (?:Error while finding module specification for|No module named) '?(?P<named>\w+)",
    r"PackageNotFoundError: No package metadata was found for (?P<named>[\w.-]+)",
    r"^\s*(?:ImportError|OSError): (?P<named>lib[\w+.-]+?\.so[\d.]*): cannot open shared object file",
)
"""What the engine or a model's code lacks, by its name."""

_ENVIRONMENT = (
    Sign(
        Cause.UNKNOWN,
        Rank.KNOWN,
        (
            r"(?:nvcc|ptxas|gcc|g\+\+|clang(?:\+\+)?|cc|c\+\+|ninja|cicc|hipcc)['\"]?: (?:command )?not found",
            r"Failed to find C compiler|No working C(?:\+\+)? compiler found|Could not find (?:`?nvcc|CUDA compiler)",
            r"(?:No such file or directory|not found|Cannot find|[Cc]ould not find)[^A-Za-z]{1,6}(?:/\S*/)?"
            r"(?:nvcc|ptxas|gcc|g\+\+|clang(?:\+\+)?|ninja|cicc|hipcc)\b",
            r"Ninja is required to load C\+\+ extensions|CUDA_HOME environment variable is not set|InvalidCxxCompiler",
            r"fatal error: (?:Python|cuda\w*|nv\w+|cublas\w*|curand\w*)[\w/]*\.h: No such file",
        ),
        ADD_COMPILER,
        "the shell, Triton, torch.inductor, FlashInfer",
        lasting=True,
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.KNOWN,
        (
            r"undefined symbol: |version [`'](?:GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found",
            r"'_OpNamespace' '\w+' object has no attribute|operator \w+::\w+ does not exist",
            r"were compiled with different CUDA (?:major )?versions|No module named '\w+\._\w*C\w*'",
        ),
        MATCH_VERSIONS,
        "the dynamic linker, torch, torchvision",
        lasting=True,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (r"^\s*ImportError: cannot import name '",),
        MATCH_VERSIONS,
        "Python: packages that do not go together",
    ),
    *(
        Sign(
            Cause.UNSUPPORTED,
            Rank.FAMILY,
            (missing,),
            ADD_PACKAGE,
            "Python, the dynamic linker: it is missing at every start",
        )
        for missing in _MISSING
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.KNOWN,
        (
            r"(?:PermissionError: )?\[Errno 13\] Permission denied: '(?!/dev/(?:nvidia|kfd|dri))",
            r"\[Errno 30\] Read-only file system|(?:Permission denied|Read-only file system) \(os error (?:13|30)\)",
            r"(?:cache|CACHE)\S* (?:directory |folder |dir )?.{0,60}(?:is not writable|cannot be written)",
            r"PermissionError at /\S+ when downloading",
        ),
        MAKE_WRITABLE,
        "the operating system",
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.KNOWN,
        (r"failed (?:liveness|startup) probe, will be (?:restarted|killed)",),
        RAISE_PROBE,
        "Kubernetes",
        serving=True,
        level=Level.DEBUG,
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.CRASH,
        (r"^KeyboardInterrupt: terminated",),
        TERMINATED,
        "uvloop, of SIGTERM: a server that did not serve yet",
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.PEER,
        (r"(?i:\bexit(?:ed|s)?[ _]?(?:with )?(?:return )?(?:code|status)?)['\"]? *[:=(]? *(?:-15|143)\b",),
        TERMINATED,
        "Docker, Kubernetes, the shell: a server that did not serve yet",
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.PEER,
        (_EXIT_OF_SIGKILL,),
        KILLED,
        "Docker, Kubernetes: not the kernel's memory killer, which they would name",
        serving=True,
        after=_NOT_OUT_OF_MEMORY,
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.AFTERMATH,
        (r"ninja: build stopped: subcommand failed|Error building extension '|Ninja build failed",),
        "Building a kernel failed: the compiler's own lines above say why.",
        "torch, FlashInfer",
    ),
)

SIGNS: tuple[Sign, ...] = (
    *_ENVIRONMENT,
    *_GPU_MEMORY,
    *_HOST_MEMORY,
    *_COMMUNICATION,
    *_PORT,
    *_DRIVER,
    *_DISK,
    *_MODEL,
    *_HARDWARE,
    *_CRASHES,
)
"""All of them, in no particular order: ranks decide."""
