"""What a llama.cpp server refuses although it takes each flag, and which requests it refuses every time."""

from collections.abc import Iterator

from tuner.engines.causes import Cause
from tuner.engines.foresight import RefusedRequest
from tuner.engines.llamacpp.commandline import canonical
from tuner.engines.llamacpp.memory.demand import flash_of, whole
from tuner.errors import LaunchRejected
from tuner.load.workload import Workload
from tuner.space import Settings

_UNQUANTIZED = (None, "f32", "f16", "bf16")


def refused(settings: Settings, flash_by_default: bool | None) -> LaunchRejected | None:
    """Why these settings cannot start together.

    Args:
        settings: The configuration.
        flash_by_default: Whether this build uses flash attention unless told; ``None`` if it decides by itself.
    """
    args = canonical(settings.args)
    if args.get("cache_type_v") not in _UNQUANTIZED and flash_of(args, flash_by_default) is False:
        message = f"cache_type_v={args['cache_type_v']} needs flash attention"
        line = "V cache quantization requires flash_attn"
        return LaunchRejected(message, cause=Cause.UNSUPPORTED.value, line=line, fix="switch flash_attn on")
    if args.get("parallel") == 0:
        fix = "ask for one or more"
        return LaunchRejected("parallel=0 leaves no slot", cause=Cause.BAD_FLAG.value, line="--parallel 0", fix=fix)
    return None


def refused_requests(workload: Workload, settings: Settings, trained: int | None) -> Iterator[RefusedRequest]:
    """A request longer than a slot: the context is divided among them.

    Args:
        workload: What is sent.
        settings: The configuration.
        trained: The model's own context; ``None`` where it is not known.
    """
    args = canonical(settings.args)
    context, slots = whole(args.get("ctx_size"), 4096) or trained, max(1, whole(args.get("parallel"), 1))
    prompt, output = workload.longest
    if context is None or args.get("kv_unified") is True or prompt + output <= context // slots:
        return
    yield RefusedRequest(
        f"{prompt} prompt + {output} output tokens exceed the {context // slots} tokens of a slot "
        f"(ctx_size {context} among {slots})",
        "workload.prompt_tokens",
        "raise ctx_size, or lower parallel or workload.prompt_tokens",
        ("ctx_size", "parallel"),
    )
