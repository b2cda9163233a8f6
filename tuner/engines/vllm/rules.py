"""What vLLM refuses once it has read its command line: combinations, and placements that cannot be.

Each rule names the versions that raise, and where. They were read in the source of 0.26.0 and 0.32.0 and, for older
versions, in notes on their source. A rule that needs something unknown says nothing. Rules see settings as the
user gives them, and the demand that follows from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm import backends, kernels
from tuner.engines.vllm.memory.demand import Demand, whole
from tuner.engines.vllm.model.architecture import Architecture
from tuner.errors import Degraded, InfeasibleConfig, LaunchRejected
from tuner.space import Settings

_LENGTHS = ("hf_overrides", "rope_scaling", "rope_theta", "hf_config_path")
"""Flags, also of parts of them (``hf_overrides.rope_parameters.factor``), that may stretch the model's context."""


@dataclass(frozen=True, slots=True)
class PlannedLaunch:
    """One configuration with all that rules look at.

    Attributes:
        settings: As they are given.
        demand: What they ask for.
        model: The model; ``None`` where nothing is known of it.
        hardware: The GPUs.
    """

    settings: Settings
    demand: Demand
    model: Architecture | None
    hardware: Hardware

    def given(self, name: str) -> JsonValue:
        """A flag as it is given; ``None`` where it is not."""
        return self.settings.args.get(name)

    def number(self, name: str) -> int | None:
        """A flag that is a whole number."""
        return whole(self.given(name))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What vLLM would say, and what to do.

    Attributes:
        message: The sentence, with the values.
        fix: What to change.
        numbers: The values, by name.
    """

    message: str
    fix: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that vLLM refuses.

    Attributes:
        name: In a few words.
        check: What it refuses of a launch, or ``None``.
        since: The first version that refuses it.
        until: The first version that does not any more.
        cause: As its log would be read.
    """

    name: str
    check: Callable[[PlannedLaunch], Refusal | None]
    since: tuple[int, ...] = (0, 6)
    until: tuple[int, ...] = (99,)
    cause: Cause = Cause.BAD_FLAG

    def refuses(self, launch: PlannedLaunch) -> InfeasibleConfig | None:
        """The error of such a launch, or ``None``; a rule of some versions says nothing of an unknown one."""
        version = launch.demand.version
        always = self.since <= (0, 6) and self.until >= (99,)
        if not always and (version is None or not self.since <= version < self.until):
            return None
        refusal = self.check(launch)
        return None if refusal is None else self._error(refusal)

    def _error(self, refusal: Refusal) -> InfeasibleConfig:
        kind = Degraded if self.cause is Cause.V0_FALLBACK else LaunchRejected
        return kind(refusal.message, cause=self.cause.value, numbers=refusal.numbers, fix=refusal.fix)


def refused(launch: PlannedLaunch) -> InfeasibleConfig | None:
    """The first rule that a launch breaks, as the error that it would end in; ``None`` if it breaks none."""
    return next((error for rule in RULES if (error := rule.refuses(launch))), None)


def _positive(launch: PlannedLaunch) -> Refusal | None:
    """``config/scheduler.py``: ``Field(ge=1)``."""
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        value = launch.number(name)
        if value is not None and value < 1:
            return Refusal(f"{name} ({value}) should be greater than or equal to 1", f"raise {name}", {name: value})
    return None


def _share(launch: PlannedLaunch) -> Refusal | None:
    """``config/cache.py``: ``gpu_memory_utilization: float = Field(gt=0, le=1)``."""
    share = launch.demand.utilization
    if 0 < share <= 1:
        return None
    return Refusal(
        f"gpu_memory_utilization ({share:g}) should be greater than 0 and less than or equal to 1",
        "give the share of the GPU's memory, such as 0.9",
        {"gpu_memory_utilization": share},
    )


def _sequences_in_batch(launch: PlannedLaunch) -> Refusal | None:
    """``config/scheduler.py::verify_max_model_len`` (0.33:332)."""
    tokens, seqs = launch.demand.max_num_batched_tokens, launch.demand.max_num_seqs
    if tokens is None or seqs is None or tokens >= seqs:
        return None
    return Refusal(
        f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({seqs})",
        "raise max_num_batched_tokens, or lower max_num_seqs",
        {"max_num_batched_tokens": tokens, "max_num_seqs": seqs},
    )


def _whole_prompts(launch: PlannedLaunch) -> Refusal | None:
    """Without chunked prefill a batch must hold the longest prompt (``config/scheduler.py``)."""
    tokens, length = launch.number("max_num_batched_tokens"), launch.demand.max_model_len
    if launch.demand.chunked_prefill or tokens is None or length is None or tokens >= length:
        return None
    return Refusal(
        f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({length}) without chunked prefill",
        "leave chunked prefill on, or raise max_num_batched_tokens to max_model_len",
        {"max_num_batched_tokens": tokens, "max_model_len": length},
    )


def _long_prefill(launch: PlannedLaunch) -> Refusal | None:
    threshold, length = launch.number("long_prefill_token_threshold"), launch.demand.max_model_len
    if threshold is None or length is None or threshold <= length:
        return None
    return Refusal(
        f"long_prefill_token_threshold ({threshold}) cannot be greater than the max_model_len ({length})",
        "lower long_prefill_token_threshold",
        {"long_prefill_token_threshold": threshold, "max_model_len": length},
    )


def _active_sequences(launch: PlannedLaunch) -> Refusal | None:
    active, seqs = launch.number("max_num_active_seqs"), launch.demand.max_num_seqs
    if active is None or seqs is None or active <= seqs:
        return None
    return Refusal(
        f"max_num_active_seqs ({active}) cannot be greater than max_num_seqs ({seqs})",
        "lower max_num_active_seqs",
        {"max_num_active_seqs": active, "max_num_seqs": seqs},
    )


def _derived_length(launch: PlannedLaunch) -> Refusal | None:
    """``config/model.py::_get_and_verify_max_len``."""
    asked, derived = launch.number("max_model_len"), launch.model.max_positions if launch.model else None
    allowed = launch.settings.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1" or _stretches(launch)
    if asked is None or derived is None or asked <= derived or allowed:
        return None
    return Refusal(
        f"User-specified max_model_len ({asked}) is greater than the derived max_model_len ({derived})",
        "lower max_model_len to the derived one",
        {"max_model_len": asked, "derived_max_model_len": derived},
    )


def _stretches(launch: PlannedLaunch) -> bool:
    """Whether the model's own length may be another: by its rotary scaling, or by its configuration's fields."""
    return any(name.split(".")[0] in _LENGTHS and launch.given(name) for name in launch.settings.args)


def _block_size(launch: PlannedLaunch) -> Refusal | None:
    """``triton_mla.py::supports_block_size``; other backends refuse as well, but leave the block to a slower one."""
    size = launch.number("block_size")
    if size is None or size % 16 == 0 or not (_uses_mla(launch) and launch.demand.triton_mla):
        return None
    fix = "choose a multiple of 16, or leave block_size to vLLM"
    return Refusal(f"No valid attention backend found for block_size {size}", fix, {"block_size": size})


def _backend(launch: PlannedLaunch) -> Refusal | None:
    """``platforms/cuda.py::get_attn_backend_cls``: a backend that is named is checked, and no other is taken."""
    name, model, card = backends.asked(launch.settings), launch.model, launch.hardware.capability
    if name is None or model is None:
        return None
    attention = backends.attention_of(model, launch.demand, card, launch.number("block_size"))
    why = backends.obstacle(name, attention)
    if why is None:
        return None
    others = ", ".join(backends.runnable(attention)) if card else ""
    return Refusal(
        f"Selected backend {name} is not valid for this configuration. Reason: [{why}]",
        f"leave the backend to vLLM{others and f', or choose one of {others}'}",
    )


def _tuned_kernels(launch: PlannedLaunch) -> Refusal | None:
    """A file that is not there is passed over: the server would be measured as if it had been."""
    folder = launch.settings.env.get(kernels.VARIABLE)
    file = kernels.kernel_file(launch.model, launch.demand, launch.hardware.device_name)
    if not folder or file is None or not Path(folder).is_dir() or file.is_in(Path(folder)):
        return None
    return Refusal(
        f"{folder} has no {file.name}: nothing in it is for these experts on this card, so that it would do nothing",
        f"leave {kernels.VARIABLE} out, or tune these kernels (vLLM's benchmarks/kernels/benchmark_moe.py)",
    )


def _uses_mla(launch: PlannedLaunch) -> bool:
    return launch.model is not None and launch.model.mla is not None and launch.demand.use_mla


def _fp8_mla_old(launch: PlannedLaunch) -> Refusal | None:
    """Before 0.20 TRITON_MLA, the only MLA backend outside Hopper and data-centre Blackwell, has no FP8 cache."""
    if not (_uses_mla(launch) and launch.demand.triton_mla and launch.demand.kv_cache_dtype.startswith("fp8")):
        return None
    return Refusal(
        "TritonMLA V1 with FP8 KV cache not yet supported",
        "use kv_cache_dtype auto, or an image with vLLM 0.20 or newer",
    )


def _fp8_mla_pre_ada(launch: PlannedLaunch) -> Refusal | None:
    """``triton_mla.py``: native FP8 needs 8.9."""
    capability = launch.hardware.capability
    fp8 = launch.demand.kv_cache_dtype.startswith("fp8")
    if not (_uses_mla(launch) and launch.demand.triton_mla and fp8) or capability is None or capability >= (8, 9):
        return None
    said = ".".join(map(str, capability))
    return Refusal(
        f"FP8 KV cache is not supported by the Triton MLA backend on compute capability {said}: it requires 8.9",
        "use kv_cache_dtype auto",
    )


def _nvfp4_mla(launch: PlannedLaunch) -> Refusal | None:
    if not _uses_mla(launch) or launch.demand.kv_cache_dtype not in ("nvfp4", "nvfp4_4over6"):
        return None
    return Refusal("nvfp4 KV cache is not supported with MLA", "use kv_cache_dtype auto or fp8")


def _drafts_in_stages(launch: PlannedLaunch) -> Refusal | None:
    """Workers of one stage send the next one token a request (vllm#57755: so up to 0.29; vllm#14117, vllm#49355)."""
    if not launch.demand.drafted or launch.demand.pipeline_parallel == 1:
        return None
    return Refusal(
        f"speculative decoding does not start with pipeline_parallel_size {launch.demand.pipeline_parallel}",
        "use one stage, or no speculative_config",
    )


def _bfloat16(launch: PlannedLaunch) -> Refusal | None:
    """``platforms/cuda.py::check_if_supports_dtype``."""
    capability = launch.hardware.capability
    if launch.given("dtype") != "bfloat16" or capability is None or capability >= (8, 0):
        return None
    said = ".".join(map(str, capability))
    message = f"Bfloat16 is only supported on GPUs with compute capability of at least 8.0; this one has {said}"
    return Refusal(message, "use dtype half")


def _compile_sizes(launch: PlannedLaunch) -> Refusal | None:
    """``v1/cudagraph_dispatcher.py``: graphs must not pad a size that is compiled on its own."""
    captured = launch.demand.capture_sizes
    if not captured:
        return None
    for size in launch.demand.compile_sizes:
        padded = next((each for each in captured if each >= size), size)
        if padded != size:
            return Refusal(
                f"compile_sizes contains {size} which would be padded to {padded}",
                "use sizes with a CUDA graph of their own: " + ", ".join(map(str, captured[:8])) + ", …",
                {"compile_size": size, "padded_to": padded},
            )
    return None


def _largest_capture(launch: PlannedLaunch) -> Refusal | None:
    """``config/vllm.py::_set_cudagraph_sizes``: only where both are given."""
    largest, given = launch.number("max_cudagraph_capture_size"), launch.given("cudagraph_capture_sizes")
    sizes = launch.demand.capture_sizes
    if largest is None or not given or not sizes or sizes[-1] == largest:
        return None
    return Refusal(
        f"customized max_cudagraph_capture_size(={largest}) should be consistent with the max value of "
        f"cudagraph_capture_sizes(={sizes[-1]})",
        "give one of the two",
        {"max_cudagraph_capture_size": largest, "largest_capture_size": sizes[-1]},
    )


def _heads(launch: PlannedLaunch) -> Refusal | None:
    """``config/model.py::verify_with_parallel_config``."""
    heads, ranks = launch.model.heads if launch.model else None, launch.demand.tensor_parallel
    if heads is None or heads % ranks == 0:
        return None
    possible = [n for n in range(1, heads + 1) if heads % n == 0]
    return Refusal(
        f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({ranks})",
        f"choose a tensor parallel size of {_or(possible[:6])}, or pipeline parallelism",
        {"heads": heads, "tensor_parallel_size": ranks},
    )


def _kv_heads(launch: PlannedLaunch) -> Refusal | None:
    """The models' own assertion: key and value heads are cut evenly, or replicated evenly (``models/qwen3.py``)."""
    if launch.model is None or launch.model.mla or launch.model.kv_heads is None:
        return None
    heads, ranks = launch.model.kv_heads, launch.demand.tensor_parallel
    if max(heads, ranks) % min(heads, ranks) == 0:
        return None
    return Refusal(
        f"{heads} key and value heads can be neither cut nor replicated evenly by tensor parallel size {ranks}",
        f"choose a tensor parallel size that divides {heads}, or a multiple of it",
        {"kv_heads": heads, "tensor_parallel_size": ranks},
    )


def _widths(launch: PlannedLaunch) -> Refusal | None:
    """``distributed/utils.py::divide``, and kernels that need whole groups, or blocks, of weights on each rank."""
    for module, name, width, ranks in _cut_widths(launch):
        group = _group(launch, module)
        if width % ranks == 0 and (ranks == 1 or (width // ranks) % group == 0):
            continue
        flat = ranks > launch.demand.tensor_parallel
        return Refusal(
            f"the {name} ({width}) is not divisible by {'tensor × data' if flat else 'tensor'} parallel size ({ranks})"
            + (f" in groups of {group}" if width % ranks == 0 else ""),
            "set enable_expert_parallel" if flat else "choose another tensor parallel size, or pipeline parallelism",
            {"width": width, "ranks" if flat else "tensor_parallel_size": ranks},
        )
    return None


def _cut_widths(launch: PlannedLaunch) -> list[tuple[str, str, int, int]]:
    """Module, name and width of what is cut, and among how many ranks: experts are, among those of all replicas."""
    model, ranks = launch.model, launch.demand.tensor_parallel
    if model is None:
        return []
    found = []
    if model.intermediate and model.has_mlp:
        found.append(("model.layers.0.mlp.up_proj", "intermediate size", model.intermediate, ranks))
    padded = model.quantization is not None and model.quantization.method == "mxfp4"  # ``gpt_oss.py`` rounds up
    if model.experts and not launch.demand.expert_parallel and not padded:
        width, all_ranks = model.experts.intermediate, launch.demand.experts_divided_by
        found.append(("model.layers.9.mlp.experts.0.up_proj", "experts' intermediate size", width, all_ranks))
    return found


def _group(launch: PlannedLaunch, module: str) -> int:
    """How many neighbouring weights must stay together on a rank: those that share a scale.

    In 4-bit formats as far as kernels need it, in FP8 whole blocks (``fp8.py::create_weights``).
    """
    quantization = launch.model.quantization if launch.model else None
    stored = quantization.of_module(module) if quantization else None
    if stored is None or (stored.block is None and stored.bits != 4):
        return 1
    return stored.block or min(stored.group or 1, 64)


def _stages(launch: PlannedLaunch) -> Refusal | None:
    layers, stages = launch.model.layers if launch.model else None, launch.demand.pipeline_parallel
    if layers is None or stages <= layers:
        return None
    message = f"{layers} layers cannot be divided among pipeline parallel size {stages}"
    return Refusal(message, "lower pipeline_parallel_size", {"layers": layers, "pipeline_parallel_size": stages})


def _gpus(launch: PlannedLaunch) -> Refusal | None:
    """``config/parallel.py``: one node's GPUs, unless Ray or several nodes are asked for."""
    elsewhere = launch.given("distributed_executor_backend") == "ray" or (launch.number("nnodes") or 1) > 1
    wanted, there = launch.demand.world_size * launch.demand.data_parallel, launch.hardware.gpus
    if elsewhere or not there or wanted <= there:
        return None
    return Refusal(
        f"World size ({wanted}) is larger than the number of available GPUs ({there}) in this node",
        "lower the parallel sizes, or give the study more hardware.gpus",
        {"world_size": wanted, "gpus": there},
    )


def _experts(launch: PlannedLaunch) -> Refusal | None:
    """``config/model.py::_verify_with_expert_parallelism``."""
    if not launch.demand.expert_parallel or launch.model is None or launch.model.experts or launch.model.missing:
        return None
    message = "Number of experts in the model must be greater than 0 when expert parallelism is enabled"
    return Refusal(message, "drop enable_expert_parallel: this model has no experts")


def _balancing(launch: PlannedLaunch) -> Refusal | None:
    """``config/parallel.py``."""
    if launch.given("enable_eplb") is not True or launch.demand.expert_parallel:
        return None
    return Refusal("enable_expert_parallel must be True to use EPLB", "set enable_expert_parallel, or drop enable_eplb")


def _context_parallel(launch: PlannedLaunch) -> Refusal | None:
    """``config/parallel.py``."""
    parts, ranks = launch.number("decode_context_parallel_size") or 1, launch.demand.tensor_parallel
    if parts < 1 or ranks % parts == 0:
        return None
    return Refusal(
        f"tp_size={ranks} must be divisible by dcp_size={parts}",
        "choose a decode_context_parallel_size that divides tensor_parallel_size",
        {"tensor_parallel_size": ranks, "decode_context_parallel_size": parts},
    )


def _tool_parser(launch: PlannedLaunch) -> Refusal | None:
    """``entrypoints/openai/cli_args.py::validate_parsed_serve_args``."""
    if launch.given("enable_auto_tool_choice") is not True or launch.given("tool_call_parser"):
        return None
    return Refusal("--enable-auto-tool-choice requires --tool-call-parser", "set tool_call_parser")


_V0_FEATURES = {
    "enable_chunked_prefill": "--enable-chunked-prefill",
    "num_scheduler_steps": "--num-scheduler-steps",
    "preemption_mode": "--preemption-mode",
    "disable_async_output_proc": "--disable-async-output-proc",
    "scheduler_delay_factor": "--scheduler-delay-factor",
    "enable_prompt_embeds": "--enable-prompt-embeds",
}


def _v0(launch: PlannedLaunch) -> Refusal | None:
    """``engine/arg_utils.py::_raise_or_fallback`` (0.8.5 to 0.10.2); chunked prefill: a user saw it fall back."""
    feature = next((flag for name, flag in _V0_FEATURES.items() if launch.given(name) not in (None, False, 0, 1)), None)
    if launch.given("enable_chunked_prefill") is True:
        feature = _V0_FEATURES["enable_chunked_prefill"]
    if feature is None:
        return None
    message = f"{feature} is not supported by the V1 Engine: this version falls back to V0, which is slower"
    return Refusal(message, f"drop {feature}")


def _or(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


RULES: tuple[Rule, ...] = (
    Rule("positive sizes", _positive),
    Rule("share of the GPU", _share),
    Rule("sequences fit into a batch", _sequences_in_batch),
    Rule("prompts fit into a batch", _whole_prompts),
    Rule("long prefill threshold", _long_prefill),
    Rule("active sequences", _active_sequences, since=(0, 33)),
    Rule("context of the model", _derived_length),
    Rule("heads of the model", _heads),
    Rule("key and value heads", _kv_heads),
    Rule("widths of the model", _widths),
    Rule("layers of the model", _stages),
    Rule("GPUs of this host", _gpus),
    Rule("experts of the model", _experts),
    Rule("expert balancing", _balancing, since=(0, 9)),
    Rule("context parallelism", _context_parallel, since=(0, 10)),
    Rule("tool parser", _tool_parser),
    Rule("largest graph", _largest_capture, since=(0, 11)),
    Rule("compiled sizes", _compile_sizes, since=(0, 14)),
    Rule("block size", _block_size, since=(0, 20), cause=Cause.UNSUPPORTED),
    Rule("tuned kernels", _tuned_kernels, cause=Cause.UNSUPPORTED),
    Rule("the attention backend", _backend, since=(0, 11), cause=Cause.UNSUPPORTED),
    Rule("FP8 cache with MLA", _fp8_mla_old, until=(0, 20), cause=Cause.UNSUPPORTED),
    Rule("FP8 cache with MLA before Ada", _fp8_mla_pre_ada, since=(0, 20), cause=Cause.UNSUPPORTED),
    Rule("NVFP4 cache with MLA", _nvfp4_mla, cause=Cause.UNSUPPORTED),
    Rule("drafts in stages", _drafts_in_stages, until=(0, 30), cause=Cause.UNSUPPORTED),
    Rule("bfloat16", _bfloat16, cause=Cause.UNSUPPORTED),
    Rule("the V0 engine", _v0, since=(0, 8), until=(0, 11), cause=Cause.V0_FALLBACK),
)
"""In vLLM's own order: configuration first, then what its workers find out."""
