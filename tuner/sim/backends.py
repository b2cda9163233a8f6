"""What vLLM finds out only in its workers: combinations that no attention backend or graph can run."""

from tuner.sim import memory
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.settings import Settings


def outcome(settings: Settings) -> MemoryPlan | StartupFailure:
    """The memory that a start ends up with, or the failure that comes first, of whatever kind."""
    planned = memory.plan(settings)
    if isinstance(planned, StartupFailure) and planned.stage == "free":
        return planned
    refused = _backend(settings)
    if refused is not None:
        return refused
    if isinstance(planned, StartupFailure) and planned.stage not in ("graphs", "sampler"):
        return planned
    return _compile_sizes(settings, planned) or planned


def _backend(settings: Settings) -> StartupFailure | None:
    if settings.attention_backend and settings.attention_backend not in settings.attention_backends:
        return StartupFailure("backend", (_not_valid(settings.attention_backend),))
    reasons = []
    if settings.block_size % 16:
        reasons.append("block_size not supported")
    if settings.kv_cache_dtype.startswith("fp8") and not _takes_fp8(settings):
        reasons.append("kv_cache_dtype not supported")
    if not reasons:
        return None
    return StartupFailure("backend", (_refusal(settings, ", ".join(reasons)),))


def _takes_fp8(settings: Settings) -> bool:
    if not settings.use_mla:
        return settings.site.hardware.capability >= (8, 9)
    return "FLASHMLA" in settings.site.hardware.mla_backends or settings.site.version.at_least(0, 20)


def _not_valid(name: str) -> str:
    return (
        f"ValueError: Selected backend AttentionBackendEnum.{name} is not valid for this configuration. "
        "Reason: ['compute capability not supported']"
    )


def _refusal(settings: Settings, reasons: str) -> str:
    if not settings.site.version.at_least(0, 11):
        return "NotImplementedError: TritonMLA V1 with FP8 KV cache not yet supported"
    mla = settings.model.mla
    size = mla.kv_rank + mla.rope if mla and settings.use_mla else settings.model.head_dim
    names = settings.attention_backends
    config = (
        f"AttentionSelectorConfig(head_size={size}, dtype=torch.float16, kv_cache_dtype={settings.kv_cache_dtype}, "
        f"block_size={settings.block_size}, use_mla={settings.use_mla}, has_sink=False, use_sparse=False)"
    )
    why = ", ".join(f"{name}: [{reasons}]" for name in names)
    return f"ValueError: No valid attention backend found for cuda with {config}. Reasons: {{{why}}}."


def _compile_sizes(settings: Settings, planned: MemoryPlan | StartupFailure) -> StartupFailure | None:
    """From 0.14 on a compiled size must be one that graphs do not pad."""
    if not settings.capture_sizes or not settings.site.version.at_least(0, 14):
        return None
    for size in settings.compile_sizes:
        padded = next((captured for captured in settings.capture_sizes if captured >= size), size)
        if padded != size:
            kv_gib = planned.kv_gib if isinstance(planned, MemoryPlan) else planned.plan_gib
            return StartupFailure("dispatch", (_padded(size, padded, settings),), plan_gib=kv_gib)
    return None


def _padded(size: int, padded: int, settings: Settings) -> str:
    return (
        f"ValueError: compile_sizes contains {size} which would be padded to {padded}. All compile_sizes must be "
        "values that won't be changed by cudagraph padding. Use values from cudagraph_capture_sizes: "
        f"{list(settings.capture_sizes)}"
    )
