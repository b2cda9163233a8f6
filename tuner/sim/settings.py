"""What a simulated engine runs with: vLLM's flags and environment, resolved against a machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tuner.sim import models
from tuner.sim.flags import Value
from tuner.sim.hardware import PRESETS, RTX4090, Hardware
from tuner.sim.models import Model
from tuner.sim.versions import Version, parse

_CAPTURE_LIMIT = 512


class Rejected(Exception):
    """vLLM would refuse these settings after reading the command line, with exit code 1.

    Attributes:
        stage: Which part of the start refuses: ``model``, ``parallel``, ``scheduler``, ``weights`` or ``kv``.
        lines: What its traceback ends in.
    """

    exit_code = 1

    def __init__(self, stage: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.stage = stage
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Site:
    """The machine that the engine is simulated on.

    Attributes:
        hardware: Its GPUs.
        gpus: How many of them the engine sees.
        version: Which vLLM runs there.
    """

    hardware: Hardware = RTX4090
    gpus: int = 2
    version: Version = field(default_factory=lambda: parse("0.15"))

    @staticmethod
    def of(hardware: str = "rtx4090", gpus: int = 2, version: str = "0.15") -> "Site":
        """A site by the names of its parts.

        Raises:
            KeyError: No such hardware preset.
            ValueError: Not a version.
        """
        return Site(PRESETS[hardware], gpus, parse(version))


@dataclass(frozen=True, slots=True)
class Settings:
    """An engine's effective configuration; flag names where there is a flag.

    Attributes:
        site: The machine and the vLLM version.
        model: The architecture.
        model_name: The model as the command line names it.
        served_model_name: All names it answers to; the first one stands in the metrics.
        load_format: ``dummy`` weights route all tokens to nearly the same experts.
        kv_cache_memory_bytes: A KV cache of fixed size instead of a share of the GPU, or ``None``.
        compile_sizes: Batch sizes compiled on their own; only these the two Inductor toggles act on.
        capture_sizes: Batch sizes with a CUDA graph, ascending; empty without graphs.
        full_graphs: Whether pure decode batches run as one graph.
        use_mla: Whether latent attention is used.
        reduced_precision: Whether float32 products may use tensor cores (VLLM_FLOAT32_MATMUL_PRECISION).
        v0: Whether old vLLM fell back to its V0 engine, and why; empty otherwise.
        attention_backend: The attention backend that was asked for; empty where the choice is vLLM's.
        speculative_tokens: Draft tokens a step; none is ever accepted here (4-bit weights).
        warm: Whether the compile cache held everything.
    """

    site: Site
    model: Model
    model_name: str
    served_model_name: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    disable_custom_all_reduce: bool = False
    dtype: str = "auto"
    load_format: str = "auto"
    block_size: int = 16
    kv_cache_dtype: str = "auto"
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    async_scheduling: bool = True
    stream_interval: int = 1
    enforce_eager: bool = False
    compile_sizes: tuple[int, ...] = ()
    capture_sizes: tuple[int, ...] = ()
    full_graphs: bool = True
    max_autotune: bool = True
    coordinate_descent_tuning: bool = True
    use_mla: bool = True
    atomic_add: bool = False
    omp_num_threads: int | None = None
    reduced_precision: bool = False
    v0: str = ""
    attention_backend: str = ""
    speculative_tokens: int = 0
    warm: bool = True

    @property
    def world_size(self) -> int:
        """GPUs that one replica uses."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def kv_element_bytes(self) -> float:
        """Bytes of one cached number."""
        return 1.0 if self.kv_cache_dtype.startswith("fp8") else 2.0

    @property
    def kv_token_bytes(self) -> float:
        """KV cache of one token on the fullest GPU, in bytes."""
        whole = self.model.kv_bytes(self.kv_element_bytes, self.use_mla, self.tensor_parallel_size)
        layers = self.model.layers_with_cache
        return whole * -(-layers // self.pipeline_parallel_size) / layers

    @property
    def attention_backends(self) -> tuple[str, ...]:
        """The attention backends that run this model here, vLLM's own choice first."""
        return self.site.hardware.mla_backends if self.use_mla else self.site.hardware.attention_backends

    @property
    def graphs(self) -> tuple[int, int]:
        """How many CUDA graphs are captured: piecewise ones, full decode ones."""
        full = sum(size <= self.max_num_seqs for size in self.capture_sizes) if self.full_graphs else 0
        return len(self.capture_sizes), full

    @property
    def tuned_sizes(self) -> frozenset[int]:
        """Batch sizes whose kernels Inductor tuned."""
        tuned = self.max_autotune or self.coordinate_descent_tuning
        return frozenset(self.compile_sizes if tuned and not self.enforce_eager and not self.v0 else ())


def resolve(model: str, args: Mapping[str, Value], env: Mapping[str, str], site: Site) -> Settings:
    """The effective configuration, as vLLM derives it from flags and environment.

    Args:
        model: The positional argument of ``vllm serve``.
        args: Flags by name with underscores, as ``flags.parse`` gives them.
        env: Environment variables; those that vLLM does not read are ignored.
        site: The machine and the version.

    Raises:
        Rejected: vLLM refuses the combination.
    """
    return _Resolver(model, args, env, site).settings()


class _Resolver:
    """Derives settings in vLLM's order: model, parallelism, scheduler, compilation."""

    def __init__(self, model: str, args: Mapping[str, Value], env: Mapping[str, str], site: Site) -> None:
        self.name = model
        self.args = args
        self.env = env
        self.site = site
        self.version = site.version
        self.compilation = self._json("compilation_config")

    def settings(self) -> Settings:
        model = self._model()
        max_model_len = self._max_model_len(model)
        self._check_parallel(model)
        max_num_seqs, batched = self._scheduler(max_model_len)
        eager = self._eager()
        settings = Settings(
            site=self.site,
            model=model,
            model_name=self.name,
            served_model_name=tuple(self._strs("served_model_name") or [self.name]),
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=batched,
            gpu_memory_utilization=self._utilization(),
            enforce_eager=eager,
            kv_cache_memory_bytes=self._optional_int("kv_cache_memory_bytes"),
            num_gpu_blocks_override=self._optional_int("num_gpu_blocks_override"),
            capture_sizes=() if eager else self._capture_sizes(max_num_seqs, batched),
            full_graphs=self.compilation.get("cudagraph_mode") not in ("PIECEWISE", "NONE"),
            use_mla=model.mla is not None and not self._switch("VLLM_MLA_DISABLE", "0"),
            **self._plain(),
            **self._environment(),
        )
        settings = replace(settings, compile_sizes=self._compile_sizes(settings), v0=self._v0(settings))
        return self._downgraded(settings) if settings.v0 else settings

    def _model(self) -> Model:
        try:
            return models.find(self.name)
        except models.UnknownModel:
            text = (
                f"Invalid repository ID or local directory specified: '{self.name}'.\n"
                "Please verify the following requirements:\n1. Provide a valid Hugging Face repository ID.\n"
                "2. Specify a local directory that contains a recognized configuration file.\n"
                "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
                "   - For Mistral models: ensure the presence of a 'params.json'.\n"
            )
            raise _invalid("model", "ModelConfig", [text]) from None

    def _max_model_len(self, model: Model) -> int:
        asked = self._optional_int("max_model_len")
        if asked is None or asked == -1:
            return model.max_position
        if asked > model.max_position and self.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0") != "1":
            raise _invalid("model", "ModelConfig", [_TOO_LONG.format(asked=asked, derived=f"{model.max_position}.0")])
        return asked

    def _check_parallel(self, model: Model) -> None:
        tp, pp = self._int("tensor_parallel_size", 1), self._int("pipeline_parallel_size", 1)
        if model.heads % tp:
            text = f"Total number of attention heads ({model.heads}) must be divisible by tensor parallel size ({tp})."
            raise _invalid("parallel", "VllmConfig", [text])
        if self._int("data_parallel_size", 1) > 1:
            raise Rejected("parallel", ["NotImplementedError: the simulator has one engine: data_parallel_size > 1"])
        world = tp * pp
        if world > self.site.gpus:
            raise _invalid("parallel", "ParallelConfig", [_WORLD_SIZE.format(world=world, gpus=self.site.gpus)])

    def _scheduler(self, max_model_len: int) -> tuple[int, int]:
        default_tokens, default_seqs = self._scheduler_defaults()
        seqs = self._int("max_num_seqs", default_seqs)
        batched = self._optional_int("max_num_batched_tokens")
        given = batched is not None
        if batched is None:
            whole = 0 if self._bool("enable_chunked_prefill", True) else max_model_len
            batched = max(min(default_tokens, seqs * max_model_len), whole)
        self._check_scheduler(seqs, batched, max_model_len, given)
        return seqs, batched

    def _scheduler_defaults(self) -> tuple[int, int]:
        """Batched tokens and sequences of the API server by GPU memory."""
        if self.site.hardware.total_gib >= 160:
            return 16384, 1024
        if self.site.hardware.total_gib >= 70:
            return 8192, 1024
        return 2048, 256

    def _check_scheduler(self, seqs: int, batched: int, max_model_len: int, given: bool) -> None:
        zero = [name for name, value in (("max_num_batched_tokens", batched), ("max_num_seqs", seqs)) if value < 1]
        if zero:
            raise _not_positive(zero, {"max_num_batched_tokens": batched, "max_num_seqs": seqs})
        if batched < seqs:
            text = (
                f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({seqs}). "
                "[type=value_error, input_value=ArgsKwargs((), {'runner_t..., 'stream_interval': 1}), "
                "input_type=ArgsKwargs]"
            )
            raise _invalid("scheduler", "SchedulerConfig", [text])
        chunked = self._bool("enable_chunked_prefill", True)
        if given and not chunked and batched < max_model_len:
            raise _invalid("scheduler", "SchedulerConfig", [_UNCHUNKED.format(batched=batched, length=max_model_len)])

    def _utilization(self) -> float:
        value = self.args.get("gpu_memory_utilization", 0.92 if self.version.at_least(0, 20) else 0.9)
        assert isinstance(value, float | int)
        if not 0 < value <= 1:
            bound = "less than or equal to 1" if value > 1 else "greater than 0"
            kind = "less_than_equal" if value > 1 else "greater_than"
            raise Rejected("parallel", _validation("CacheConfig", [
                "gpu_memory_utilization",
                f"  Input should be {bound} [type={kind}, input_value={value}, input_type=float]",
            ], kind))  # fmt: skip
        return float(value)

    def _eager(self) -> bool:
        level = str(self.args.get("optimization_level", self.compilation.get("mode", self.compilation.get("level", 3))))
        return self._bool("enforce_eager", False) or level.upper() in ("0", "O0", "NONE")

    def _capture_sizes(self, max_num_seqs: int, batched: int) -> tuple[int, ...]:
        if self.compilation.get("cudagraph_mode") == "NONE":
            return ()
        given = self._ints("cudagraph_capture_sizes") or self._ints("cuda_graph_sizes")
        listed = self.compilation.get("cudagraph_capture_sizes")
        if not given and isinstance(listed, list):
            given = [int(size) for size in listed]
        largest = self._optional_int("max_cudagraph_capture_size") or min(2 * max_num_seqs, _CAPTURE_LIMIT)
        sizes = given or default_capture_sizes(largest)
        return tuple(sorted(size for size in set(sizes) if size <= batched))

    def _compile_sizes(self, settings: Settings) -> tuple[int, ...]:
        listed = self.compilation.get("compile_sizes") or []
        assert isinstance(listed, list)
        sizes: set[int] = set()
        for size in listed:
            sizes |= set(settings.capture_sizes) if size == "cudagraph_capture_sizes" else {int(size)}
        return tuple(sorted(sizes))

    def _plain(self) -> dict[str, Any]:
        """Flags whose values are taken over as they are."""
        defaults = {item.name: item.default for item in fields(Settings) if item.name in _PLAIN}
        plain = {name: self.args.get(name, default) for name, default in defaults.items()}
        if not self.version.at_least(0, 14) and "async_scheduling" not in self.args:
            plain["async_scheduling"] = False
        return plain

    def _environment(self) -> dict[str, Any]:
        toggles = self.version.at_least(0, 11)
        threads = self.env.get("OMP_NUM_THREADS", "")
        speculative = self._json("speculative_config").get("num_speculative_tokens", 0)
        return {
            "max_autotune": toggles and self._switch("VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE", "1"),
            "coordinate_descent_tuning": toggles
            and self._switch("VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING", "1"),
            "atomic_add": self.env.get("VLLM_MARLIN_USE_ATOMIC_ADD", "0") == "1",
            "reduced_precision": self._precision() != "highest",
            "attention_backend": self._attention_backend(),
            "omp_num_threads": int(threads) if threads.isdigit() else None,
            "speculative_tokens": speculative if isinstance(speculative, int) else 0,
        }

    def _attention_backend(self) -> str:
        """From 0.14 on the flag's, before it the variable's."""
        flag = self.args.get("attention_backend") or self._json("attention_config").get("backend")
        variable = None if self.version.at_least(0, 14) else self.env.get("VLLM_ATTENTION_BACKEND")
        return str(flag or variable or "").upper()

    def _switch(self, name: str, default: str) -> bool:
        """An environment variable that vLLM reads as a number."""
        text = self.env.get(name, default)
        try:
            return bool(int(text))
        except ValueError:
            raise Rejected("model", [f"ValueError: invalid literal for int() with base 10: {text!r}"]) from None

    def _precision(self) -> str:
        name, valid = "VLLM_FLOAT32_MATMUL_PRECISION", ["highest", "high", "medium"]
        text = self.env.get(name, valid[0])
        if text not in valid:
            raise Rejected("model", [f"ValueError: Invalid value '{text}' for {name}. Valid options: {valid}."])
        return text

    def _v0(self, settings: Settings) -> str:
        """The feature that sends vLLM before 0.11 back to its V0 engine; empty when none does."""
        if self.version.at_least(0, 11):
            return ""
        feature = next((text for key, text in _V0_FLAGS.items() if self.args.get(key) not in (None, False)), "")
        if settings.load_format == "sharded_state":
            feature = "--load_format sharded_state"
        if self.env.get("VLLM_USE_V1") == "0":
            return "VLLM_USE_V1=0"
        if feature and self.env.get("VLLM_USE_V1") == "1":
            raise Rejected("parallel", [f"NotImplementedError: VLLM_USE_V1=1 is not supported with {feature}."])
        return feature

    def _downgraded(self, settings: Settings) -> Settings:
        return replace(settings, enable_prefix_caching=False, async_scheduling=False)

    def _int(self, key: str, default: int) -> int:
        value = self.args.get(key, default)
        assert isinstance(value, int)
        return value

    def _optional_int(self, key: str) -> int | None:
        value = self.args.get(key)
        assert value is None or isinstance(value, int)
        return value

    def _bool(self, key: str, default: bool) -> bool:
        return bool(self.args.get(key, default))

    def _strs(self, key: str) -> list[str]:
        value = self.args.get(key, [])
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def _ints(self, key: str) -> list[int]:
        value = self.args.get(key, [])
        return [int(item) for item in value] if isinstance(value, list) else []

    def _json(self, key: str) -> Mapping[str, object]:
        value = self.args.get(key, {})
        return value if isinstance(value, dict) else {}


def default_capture_sizes(largest: int) -> list[int]:
    """The batch sizes that vLLM captures by default, up to ``largest``."""
    sizes = [size for size in (1, 2, 4) if size <= largest]
    return sizes + list(range(8, min(largest + 1, 256), 8)) + list(range(256, largest + 1, 16))


_PLAIN = frozenset(
    (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "disable_custom_all_reduce",
        "dtype",
        "load_format",
        "block_size",
        "kv_cache_dtype",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "long_prefill_token_threshold",
        "async_scheduling",
        "stream_interval",
    )
)

# --enable-chunked-prefill: what the first user saw; the others: arg_utils.py of 0.10.2
_V0_FLAGS: Mapping[str, str] = {
    "num_scheduler_steps": "--num-scheduler-steps",
    "enable_chunked_prefill": "--enable-chunked-prefill",
    "preemption_mode": "--preemption-mode",
    "disable_async_output_proc": "--disable-async-output-proc",
    "scheduler_delay_factor": "--scheduler-delay-factor",
    "enable_prompt_embeds": "--enable-prompt-embeds",
}

_TOO_LONG = (
    "User-specified max_model_len ({asked}) is greater than the derived max_model_len "
    "(max_position_embeddings={derived} or model_max_length=None in model's config.json). To allow overriding this "
    "maximum, set the env var "
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model "
    "uses relative position encoding (RoPE), positions exceeding derived_max_model_len lead to nan. If the model uses "
    "absolute position encoding, positions exceeding derived_max_model_len will cause a CUDA array out-of-bounds error."
)
_WORLD_SIZE = (
    "World size ({world}) is larger than the number of available GPUs ({gpus}) in this node. If this is intentional "
    "and you are using:\n- ray, set '--distributed-executor-backend ray'.\n- multiprocessing, set '--nnodes' "
    "appropriately."
)
_UNCHUNKED = (
    "max_num_batched_tokens ({batched}) is smaller than max_model_len ({length}). This effectively limits the maximum "
    "sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. Please increase "
    "max_num_batched_tokens or decrease max_model_len."
)


def _invalid(stage: str, config: str, messages: Sequence[str]) -> Rejected:
    tail = "[type=value_error, input_value=ArgsKwargs((), {'model': ...nderer_num_workers': 1}), input_type=ArgsKwargs]"
    texts = [text if "[type=" in text else f"{text} {tail}" for text in messages]
    return Rejected(stage, _validation(config, [f"  Value error, {text}" for text in texts], "value_error"))


def _not_positive(names: Sequence[str], values: Mapping[str, int]) -> Rejected:
    body: list[str] = []
    for name in names:
        body += [
            name,
            "  Input should be greater than or equal to 1 "
            f"[type=greater_than_equal, input_value={values[name]}, input_type=int]",
            "    For further information visit https://errors.pydantic.dev/2.14/v/greater_than_equal",
        ]
    return Rejected("scheduler", _validation("SchedulerConfig", body, "", count=len(names)))


def _validation(config: str, body: Sequence[str], kind: str, count: int = 1) -> list[str]:
    """The last lines of a pydantic ValidationError's traceback."""
    errors = f"{count} validation error{'s' if count > 1 else ''} for {config}"
    lines = [f"pydantic_core._pydantic_core.ValidationError: {errors}", *"\n".join(body).split("\n")]
    if kind:
        lines.append(f"    For further information visit https://errors.pydantic.dev/2.14/v/{kind}")
    return lines
