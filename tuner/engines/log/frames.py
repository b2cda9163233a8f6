"""Signs in the frames of a traceback: what it was about, where the exception itself is cut off.

Logs are posted in part, and a long traceback often ends before its last line. The calls that it went through still
tell what failed, less surely than any sentence does; hence their low ranks. An assertion says more than the
``AssertionError`` that it ends in, and ranks above that. Frames of torch, CUDA and the Hugging Face
hub are the same under vLLM and SGLang, and those of vLLM's workers were taken over by its descendants.
"""

from tuner.engines.causes import Cause
from tuner.engines.log import platform
from tuner.engines.log.signs import Rank, Sign

SIGNS: tuple[Sign, ...] = (
    Sign(
        Cause.DISTRIBUTED,
        Rank.CRASH,
        (
            r"NCCL_CHECK\(|\bself\.nccl\.nccl\w+\(|= PyNcclCommunicator\(|= TCPStore\(|_create_c10d_store\(",
            r"^\s+\S.*\b(?:ProcessGroup(?:Gloo|NCCL)|_new_process_group_helper|init_process_group|GroupCoordinator)\(",
            r"\b(?:init_model_parallel_group|initialize_model_parallel|ensure_model_parallel_initialized)\(",
            r"^\s+(?:\S.*)?\b(?:torch\.distributed|dist)\.(?:all_|barrier|broadcast|gather|reduce|send|recv)\w*\(",
            r"\binit_(?:worker_)?distributed_environment\(",
            r"^frame #\d+: c10d::(?:TCPStore|\w*::?\w*Socket|ProcessGroupNCCL::WorkNCCL::checkTimeout)",
        ),
        platform.FIX_COMMUNICATION,
        "torch.distributed, NCCL, gloo",
    ),
    Sign(
        Cause.DRIVER,
        Rank.CRASH,
        (r"torch\._C\._cuda_(?:init|setDevice|getDeviceCount)\(|^\s+pynvml\.nvml\w+\(|\bnvmlInit\w*\(",),
        platform.FIX_DRIVER,
        "torch, NVML",
    ),
    Sign(
        Cause.MODEL_NOT_FOUND,
        Rank.CRASH,
        (
            r"^(?:.* - )?\s+(?:hf_raise_for_status|_raise_on_head_call_error|validate_repo_id)\(",
            r"^\s+(?:\w+ = )?(?:get_hf_file_metadata|hf_hub_download|snapshot_download)\(",
        ),
        platform.FIX_MODEL,
        "huggingface_hub",
    ),
    Sign(
        Cause.INSUFFICIENT_FREE_MEMORY,
        Rank.CRASH,
        (r"= request_memory\(|, in request_memory$",),
        platform.FREE_THE_GPU,
        "vLLM 0.14-0.33",
    ),
    Sign(
        Cause.PORT_IN_USE,
        Rank.CRASH,
        (r"^\s+(?:sock|s|self\._?so?ck\w*)\.bind\(|= create_server_socket\(",),
        platform.OTHER_PORT,
        "Python's socket",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (
            r"_check_if_gpu_supports_dtype\(|check_if_supports_dtype\(|assert is_fa_version_supported\(",
            r"assert [\w.]+\.(?:shape|size\(\)) == loaded_weight\.(?:shape|size\(\))",
        ),
        platform.OTHER_HARDWARE,
        "vLLM 0.4-0.33: data types, FlashAttention, weights of another shape",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.FAMILY,
        (r"assert numerator % denominator == 0|\bensure_divisibility\(",),
        platform.FEWER_RANKS,
        "vLLM 0.4-0.33",
    ),
    Sign(
        Cause.ENGINE_DIED,
        Rank.CRASH,
        (r"^frame #\d+: c10::(?:cuda|hip)::c10_(?:cuda|hip)_check_implementation\(",),
        platform.LOOK_ABOVE,
        "torch",
        serving=True,
    ),
)
"""All of them; a sentence in the same log outranks most."""
