"""What may be tried of vLLM for one model on one machine, each setting with its reason, or the reason why not.

A setting is proposed where this version has it and it can act: no expert parallelism without experts, no setting of
4-bit kernels without 4-bit weights. Ranges end where the memory model says that a start would fail.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from tuner.engines.foresight import MemoryModel, Question
from tuner.engines.vllm import backends, kernels
from tuner.engines.vllm.hints import HINTS
from tuner.engines.vllm.memory.demand import Demand, at_least, demand_of, release, whole
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.rules import PlannedLaunch, refused
from tuner.space import Choice, Range, SearchSpace, Settings

_STEP = 0.01
_IDLE_GIB = 0.6
"""What a driver and a context hold of a card that nobody uses: 0.5 GiB on an H100 and an RTX 4090."""
_SHARES = (80, 97)
"""Shares of the GPU's memory that are worth trying, in steps."""
_FEWEST_TOKENS, _MOST_TOKENS, _MOST_SEQS = 1024, 65536, 1024
_SMALL_STEP = 16
"""Up to so many users steps are small enough for graphs and kernels of each size."""
_LARGER = (32, 64, 128, 256, 512)
_FOUR_BITS = 4
_AUTOTUNED_SINCE = (0, 11)
_COMPILED_SINCE = (0, 14)
_PRECISION_SINCE = (0, 15)
_GRAPH_MODES_SINCE = (0, 11)
_OVERLAP = ((0, 10), (0, 14))
"""Versions in which the next step may be prepared while one runs, and is not unless asked for."""
_EIGHT_BIT_FLOATS = (8, 9)
"""From this card on an 8-bit floating point is the hardware's own."""
_UNCHECKED = "it may change answers, and this study does not check them (quality=none or study.confirm=0)"
_GUESSED: JsonValue = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
_PREDICTED: tuple[JsonValue, ...] = tuple({"method": "mtp", "num_speculative_tokens": depth} for depth in (1, 3))
_FREE_BLOCKS = ((9, 0), (10, 0), (10, 3))
"""Cards whose MLA backends take one size of block only."""

Proposed = Range | Choice | str
"""A parameter, or the sentence that says why it is left out."""


@dataclass(frozen=True, slots=True)
class LeverContext:
    """What a setting is judged by.

    Attributes:
        model: The model; ``None`` where nothing is known of it.
        question: The deployment, the GPUs, the version, the workload.
        memory: What starts are predicted to take.
        flags: The long flags of this version.
        layouts: The numbers of ranks that may share a layer, or that there may be of replicas, by flag.
    """

    model: Architecture | None
    question: Question
    memory: MemoryModel
    flags: frozenset[str]
    layouts: Mapping[str, tuple[int, ...]]

    @property
    def demand(self) -> Demand:
        """What the deployment asks for, with the defaults of this version."""
        return demand_of(self.question.deployed, self.question.hardware, release(self.question.version), self.model)

    @property
    def graphs(self) -> tuple[int, ...]:
        """Sizes of small steps: powers of two up to the users; empty where steps are large."""
        users = _covering(self.question.workload.users)
        return tuple(1 << power for power in range(users.bit_length())) if users <= _SMALL_STEP else ()

    def since(self, *numbers: int) -> bool:
        """Whether the version is not older."""
        return at_least(release(self.question.version), *numbers)

    def fits(self, **args: JsonValue) -> bool:
        """Whether the deployment with these flags is predicted to start."""
        return self.memory.fits(self.question.deployed.merged(Settings(args)))

    def refusal(self, **args: JsonValue) -> str | None:
        """What vLLM would say of the deployment with these flags; ``None`` if nothing is known against it."""
        settings, hardware = self.question.deployed.merged(Settings(args)), self.question.hardware
        demand = demand_of(settings, hardware, release(self.question.version), self.model)
        error = refused(PlannedLaunch(settings, demand, self.model, hardware))
        return None if error is None else error.message

    @property
    def four_bits(self) -> bool:
        """Whether the weights are stored in four bits."""
        stored = self.model.quantization.format if self.model and self.model.quantization else None
        return stored is not None and stored.bits == _FOUR_BITS


@dataclass(frozen=True, slots=True)
class Lever:
    """One setting.

    Attributes:
        name: Its parameter's name.
        propose: Its values, or why it cannot act.
        flag: The flag that it needs; empty for a variable.
    """

    name: str
    propose: Callable[[LeverContext], Proposed]
    flag: str = ""


def space_of(case: LeverContext) -> SearchSpace:
    """All settings that exist and can act; where there is no GPU only those of the scheduler."""
    params: dict[str, Range | Choice] = {}
    remarks: list[str] = [*_unread(case)]
    for lever in LEVERS if case.question.hardware.gpus else LEVERS[:2]:
        risky = lever.name in HINTS.lossy and not case.question.answers_checked
        found = _UNCHECKED if risky else lever.propose(case)
        if not isinstance(found, str) and lever.flag and lever.flag not in case.flags:
            found = f"this vLLM has no {lever.flag}"
        if isinstance(found, str):
            remarks.append(f"{lever.name} is left out: {found}")
        else:
            params[lever.name] = _with_deployed(lever.name, found, case.question.deployed)
    return SearchSpace(params=params, rules=_rules(case, params), remarks=tuple(remarks))


def _unread(case: LeverContext) -> Iterator[str]:
    model, hardware = case.model, case.question.hardware
    if model is None:
        yield "neither this disk nor the hub tells what the model is: only what needs no knowledge of it is tried"
    elif model.missing:
        yield f"memory is not predicted ({', '.join(model.missing)}): ranges are the usual ones"
    if hardware.gpus and hardware.total_gib is None:
        yield "the memory of the GPUs is not known (hardware.gpu.total_gib): ranges are the usual ones"
    if not hardware.gpus:
        yield "without a GPU only the scheduler's settings are tried"


def _with_deployed(name: str, parameter: Range | Choice, deployed: Settings) -> Range | Choice:
    """What is deployed must be among the choices."""
    variable = parameter.env or (name if name.isupper() else None)
    value = deployed.env.get(variable) if variable else deployed.args.get(parameter.flag or name)
    if value is None or isinstance(parameter, Range) or parameter.accepts(value):
        return parameter
    if isinstance(value, str) and any(str(choice) == value for choice in parameter.choices):
        return parameter
    readable = value in ("0", "1") and name.isupper()
    return parameter if readable else parameter.model_copy(update={"choices": (*parameter.choices, value)})


def _rules(case: LeverContext, params: Mapping[str, Range | Choice]) -> dict[str, str]:
    rules = {}
    if {"max_num_batched_tokens", "max_num_seqs"} <= params.keys():
        rules["tokens_cover_sequences"] = "max_num_batched_tokens >= max_num_seqs"
    if {"speculative_config", "pipeline_parallel_size"} <= params.keys():
        # drafts across stages do not start, or corrupt what is answered (vllm#57755, vllm#49355)
        rules["drafts_in_one_stage"] = "speculative_config == null or pipeline_parallel_size == 1"
    return rules


def _tokens(case: LeverContext) -> Proposed:
    default = case.demand.max_num_batched_tokens
    high = _highest(_FEWEST_TOKENS, _MOST_TOKENS, lambda tokens: case.fits(max_num_batched_tokens=tokens))
    if not case.question.hardware.gpus:
        high = 4096
    why = "tokens in a step: more serve prompts sooner, fewer hold back running answers less"
    return Range(low=min(_FEWEST_TOKENS, high), high=high, scale="pow2", default=default, why=why)


def _sequences(case: LeverContext) -> Proposed:
    users, default = case.question.workload.users, case.demand.max_num_seqs
    high = _highest(_SMALL_STEP, _MOST_SEQS, lambda seqs: case.fits(max_num_seqs=seqs))
    if not case.question.hardware.gpus:
        high = 64
    low = min(_covering(users // 2 + 1), high)
    why = f"requests in a step: below {users} users wait, above it graphs and memory for more are kept ready"
    return Range(low=low, high=max(low, high), scale="pow2", default=default, why=why)


def _share(case: LeverContext) -> Proposed:
    total = case.question.hardware.total_gib
    most = _SHARES[1] if total is None else min(_SHARES[1], int(100 * (1 - _IDLE_GIB / total)))
    shares = [percent / 100 for percent in range(_SHARES[0], max(most, _SHARES[0]) + 1)]
    fitting = [share for share in shares if case.fits(gpu_memory_utilization=share)] or shares
    usual = case.demand.utilization
    low, high = min(fitting[0], usual), max(fitting[-1], usual)
    why = "what of the GPU's memory becomes KV cache; it decides what fits more than how fast it is"
    return Range(low=low, high=high, step=_STEP, default=usual, why=why)


def _blocks(case: LeverContext) -> Proposed:
    model, capability = case.model, case.question.hardware.capability
    if model is None:
        return "backends differ in the blocks that they take"
    if model.state is not None:
        return "vLLM lengthens blocks until a state fits"
    if model.mla is not None and (capability is None or capability in _FREE_BLOCKS):
        return "MLA backends of this card take one size only"
    why = "tokens in a block of the KV cache: bytes a token do not depend on it, so expect next to nothing"
    return Choice(choices=(16, 32, 64), default=16, why=why)


def _backends(case: LeverContext) -> Proposed:
    model, card, flagged = case.model, case.question.hardware.capability, "--attention-backend" in case.flags
    if not flagged and not backends.has_variable(release(case.question.version)):
        return "this vLLM has no --attention-backend"
    if model is None or card is None:
        return "nobody knows the model's attention, or the card's compute capability"
    if backends.named_elsewhere(case.question.deployed):
        return "the deployment's attention_config excludes it"
    found = backends.runnable(
        backends.attention_of(model, case.demand, card, whole(case.question.deployed.args.get("block_size")))
    )
    if len(found) < 2:
        return f"no other than {found[0]} runs here" if found else "sparse attention has backends of its own"
    why = f"kernels of attention: left unset, vLLM takes {found[0]}"
    return Choice(env=None if flagged else backends.VARIABLE, choices=(None, *found[1:]), why=why)


def _graph_mode(case: LeverContext) -> Proposed:
    if not case.since(*_GRAPH_MODES_SINCE):
        return "not tried before vLLM 0.11"
    if case.demand.eager:
        return "the deployment runs without graphs"
    why = "which steps are one CUDA graph: unset, all that can be; fewer start sooner and leave room for KV cache"
    flag = "compilation_config.cudagraph_mode"
    return Choice(flag=flag, choices=(None, "FULL_DECODE_ONLY", "PIECEWISE"), why=why)


def _captured(case: LeverContext) -> Proposed:
    sizes = case.graphs
    if not sizes:
        return f"steps of {case.question.workload.users} users are large"
    every = [*range(1, sizes[-1] + 1)]
    larger = [size for size in (16, *_LARGER) if size > sizes[-1]]
    why = "sizes with a CUDA graph: a step is padded to the next one"
    flag = "compilation_config.cudagraph_capture_sizes"
    return Choice(flag=flag, choices=(None, every, [*every, *larger]), why=why)


def _compiled(case: LeverContext) -> Proposed:
    sizes = case.graphs
    if not sizes:
        return f"steps of {case.question.workload.users} users are large"
    if not case.since(*_COMPILED_SINCE):
        return "not tried before vLLM 0.14"
    choices = dict.fromkeys(map(tuple, ([sizes[-1]], sizes)))
    why = "sizes that Inductor compiles and tunes on their own; each makes the start longer"
    flag = "compilation_config.compile_sizes"
    return Choice(flag=flag, choices=(None, *([*each] for each in choices)), why=why)


def _tuned(what: str) -> Callable[[LeverContext], Proposed]:
    def propose(case: LeverContext) -> Proposed:
        if isinstance(_compiled(case), str) or not case.since(*_AUTOTUNED_SINCE):
            return "it acts on compile_sizes only"
        return Choice(choices=(True, False), default=True, when="compile_sizes != null", why=what)

    return propose


def _overlapped(case: LeverContext) -> Proposed:
    first, last = _OVERLAP
    if release(case.question.version) is None or case.since(*last) or not case.since(*first):
        return "it is on by itself, or this vLLM does not have it"
    return Choice(choices=(True, False), default=False, why="the next step is prepared while one runs")


def _prefixes(case: LeverContext) -> Proposed:
    if case.model is None or case.model.state is None:
        return "it is on, and costs next to nothing"
    why = "shared beginnings are computed once; each cached one takes a second state"
    return Choice(choices=(True, False), default=case.demand.prefix_caching, why=why)


def _cache_type(case: LeverContext) -> Proposed:
    capability = case.question.hardware.capability
    if case.model is None or capability is None or capability < _EIGHT_BIT_FLOATS:
        return "this card has no 8-bit floating point, or nobody knows of it"
    if refusal := case.refusal(kv_cache_dtype="fp8"):
        return refusal
    why = "half the bytes of each cached token: twice the context, and less to read; answers are checked"
    return Choice(choices=("auto", "fp8"), default="auto", why=why)


def _drafts(case: LeverContext) -> Proposed:
    if case.model is None:
        return "nobody knows whether the model predicts further tokens itself"
    if case.demand.pipeline_parallel > 1 and len(case.layouts.get("pipeline_parallel_size", ())) < 2:
        return "drafts and stages of layers do not go together"
    own = _PREDICTED if case.model.predicting and not case.four_bits else ()
    why = "drafts that one step checks, from the prompt's own text or the model's own layer; answers are checked"
    return Choice(choices=(None, _GUESSED, *own), why=why)


def _mode(case: LeverContext) -> Proposed:
    why = "vLLM's own presets: which graphs and kernels serve short answers first, or many at once"
    return Choice(choices=("balanced", "interactivity", "throughput"), default="balanced", why=why)


def _layout(flag: str, why: str) -> Callable[[LeverContext], Proposed]:
    def propose(case: LeverContext) -> Proposed:
        numbers = case.layouts.get(flag, ())
        if case.question.hardware.gpus < 2:
            return "there is one GPU"
        if case.model is None:
            return "nobody knows how the model can be divided"
        if len(numbers) < 2:
            return "no other layout of this model fits on these GPUs"
        return Choice(choices=numbers, default=1, why=why)

    return propose


def _experts(case: LeverContext) -> Proposed:
    if case.model is None or case.model.experts is None:
        return "the model has no experts" if case.model else "nobody knows whether the model has experts"
    if case.question.hardware.gpus < 2:
        return "there is one GPU"
    why = f"{case.model.experts.count} experts dealt out whole among the ranks, instead of each being cut"
    return Choice(choices=(True, False), default=False, why=why)


def _atomic(case: LeverContext) -> Proposed:
    if case.model is None:
        return "nobody knows how its weights are stored"
    quantization = case.model.quantization
    if not case.four_bits or quantization is None or quantization.format is None or quantization.format.group is None:
        return "the model has no 4-bit weights for Marlin's kernels"
    if quantization.method in ("modelopt", "mxfp4"):
        return f"{quantization.method} does not use these kernels"
    why = "Marlin's 4-bit kernels add up in place; before Hopper in float16 only"
    return Choice(choices=(True, False), default=False, why=why)


def _kernels(case: LeverContext) -> Proposed:
    folder, device = case.question.kernels, case.question.hardware.device_name
    if case.model is None or case.model.experts is None:
        return "the model has no experts" if case.model else "nobody knows whether the model has experts"
    if folder is None:
        return "engine.tuned_kernels names no folder of kernels that were tuned for its experts"
    ranks = {case.demand.tensor_parallel, *case.layouts.get("tensor_parallel_size", ())}
    demands = [replace(case.demand, tensor_parallel=each) for each in sorted(ranks)]
    wanted = [file for each in demands if (file := kernels.kernel_file(case.model, each, device))]
    if not wanted:
        return "no kernel for weights of this kind reads such files"
    if not any(file.is_in(folder) for file in wanted):
        return f"{folder} has no {' and no '.join(file.name for file in wanted)}"
    return Choice(
        choices=(None, str(folder)), why="kernels of the experts as they were tuned for this card, or vLLM's own"
    )


def _precision(case: LeverContext) -> Proposed:
    if case.model is None or case.model.experts is None or not case.since(*_PRECISION_SINCE):
        return "it acts on the router of experts, from vLLM 0.15 on"
    return Choice(choices=("highest", "high", "medium"), default="highest", why="the experts' router is in float32")


def _threads(case: LeverContext) -> Proposed:
    return Choice(choices=(1, 2, 4, 8), default=1, why="threads of the host's part of each step")


def _highest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The highest power of two that fits; the highest of all where none does, since then nothing is known."""
    powers = [1 << power for power in range(low.bit_length() - 1, high.bit_length())]
    return next((number for number in reversed(powers) if fits(number)), high)


def _covering(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(number - 1, 0).bit_length()


LEVERS: tuple[Lever, ...] = (
    Lever("max_num_batched_tokens", _tokens, "--max-num-batched-tokens"),
    Lever("max_num_seqs", _sequences, "--max-num-seqs"),
    Lever("gpu_memory_utilization", _share, "--gpu-memory-utilization"),
    Lever("block_size", _blocks, "--block-size"),
    Lever("attention_backend", _backends),
    Lever("cudagraph_mode", _graph_mode, "--compilation-config"),
    Lever("cudagraph_capture_sizes", _captured, "--compilation-config"),
    Lever("compile_sizes", _compiled, "--compilation-config"),
    Lever("VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE", _tuned("Inductor tries further kernels for those sizes")),
    Lever("VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING", _tuned("Inductor refines them, step by step")),
    Lever("async_scheduling", _overlapped, "--async-scheduling"),
    Lever("enable_prefix_caching", _prefixes, "--enable-prefix-caching"),
    Lever(
        "tensor_parallel_size",
        _layout("tensor_parallel_size", "GPUs that share each layer: shorter steps, at the price of talking"),
        "--tensor-parallel-size",
    ),
    Lever(
        "data_parallel_size",
        _layout("data_parallel_size", "replicas of the attention: no talking, and each reads all of its weights"),
        "--data-parallel-size",
    ),
    Lever(
        "pipeline_parallel_size",
        _layout("pipeline_parallel_size", "stages of layers: little talking, and each request waits for all of them"),
        "--pipeline-parallel-size",
    ),
    Lever("enable_expert_parallel", _experts, "--enable-expert-parallel"),
    Lever("kv_cache_dtype", _cache_type, "--kv-cache-dtype"),
    Lever("speculative_config", _drafts, "--speculative-config"),
    Lever("performance_mode", _mode, "--performance-mode"),
    Lever("VLLM_MARLIN_USE_ATOMIC_ADD", _atomic),
    Lever(kernels.VARIABLE, _kernels),
    Lever("VLLM_FLOAT32_MATMUL_PRECISION", _precision),
    Lever("OMP_NUM_THREADS", _threads),
)
"""The scheduler's first: they act on any machine."""
