"""What settings ask of vLLM, with the defaults of its version filled in.

Defaults and derivations were read in ``engine/arg_utils.py``, ``config/vllm.py`` and ``config/scheduler.py`` (0.32.0;
and notes on older versions). What depends on something unknown is ``None``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tuner.engines.hardware import Hardware
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.model.quantization import Quantization, online
from tuner.space import Settings

UNPREDICTABLE: Mapping[str, str] = {
    "enable_lora": "adapters",
    "cpu_offload_gb": "weights on the host",
    "hf_overrides": "a changed model",
    "kv_transfer_config": "a KV cache that is shared",
    "enable_eplb": "redundant experts",
    "enable_dbo": "two batches at once",
    "decode_context_parallel_size": "a divided context",
}
"""Settings that change memory in ways that are not known here."""

Release = tuple[int, ...] | None
"""A version as numbers; ``None`` where it is not known, which counts as the newest."""

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NOTHING = (None, False, 0, 1)
_GUESSING = ("ngram", "ngram_gpu", "suffix", "[ngram]")
"""Ways to draft tokens that take no memory of the GPU to speak of."""
_LARGEST_CAPTURE = 512
_NEWEST_PATCH = 99
_KV_BYTES = {
    **dict.fromkeys(("float16", "half", "bfloat16"), 2.0),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "int8"), 1.0),
    **dict.fromkeys(("nvfp4", "nvfp4_4over6"), 0.5 + 1 / 16),
}
_SCALED_KV_BYTES = {"int8_per_token_head": 1.0, "fp8_per_token_head": 1.0, "int4_per_token_head": 0.5}
_KV_SCALE_BYTES = 4.0
"""A float32 scale for each token, head and matrix (``v1/attention/backends/triton_attn.py``)."""
_LENGTH_OVERRIDES = ("rope_parameters", "rope_scaling", "max_position_embeddings", "rope_theta", "model_max_length")
"""What may be changed of a model's configuration without changing weights or cache."""
_PREFIXES_BY_DEFAULT = (0, 28)
"""From here on prefixes of models with a state are cached unless asked otherwise (vllm#50991)."""


def release(version: str | None) -> Release:
    """A version's numbers; one without a patch number means its newest patch.

    >>> release("0.15.0rc2.dev40+g2e8de8677")
    (0, 15, 0)
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return tuple(int(part or _NEWEST_PATCH) for part in found.groups()) if found else None


def at_least(version: Release, *numbers: int) -> bool:
    """Whether a version is not older than these numbers; an unknown one is not."""
    return version is None or version >= numbers


@dataclass(frozen=True, slots=True)
class Demand:
    """What one server is asked for.

    Attributes:
        version: Of the engine.
        tensor_parallel: Ranks that share each layer.
        pipeline_parallel: Ranks that share the layers.
        data_parallel: Replicas on this host.
        expert_parallel: Whether experts are divided whole instead of each being cut.
        utilization: The share of each GPU's memory.
        max_model_len: Context length in tokens; ``None`` where it is not known, or left to what fits.
        max_num_seqs: Sequences in a batch; ``None`` where the default is not known.
        max_num_batched_tokens: Tokens in a batch; likewise.
        block_size: Tokens in a block of the KV cache.
        kv_element_bytes: Bytes of a cached number; ``None`` for a format that is not known here.
        kv_scale_bytes: Scales of a token's keys, or values, in one head.
        kv_cache_dtype: As it was asked for.
        element_bytes: Bytes of an unquantized weight and of an activation.
        eager: Whether neither torch.compile nor CUDA graphs are used.
        capture_sizes: Batch sizes with CUDA graphs, ascending.
        graphs: How many CUDA graphs are captured.
        compile_sizes: Batch sizes compiled on their own.
        kv_cache_memory_bytes: A KV cache of fixed size, or ``None``.
        use_mla: Whether latent attention is used, where the model has it.
        graphs_counted: Whether the engine sets memory aside for CUDA graphs.
        chunked_prefill: Whether prompts may be cut into pieces.
        triton_mla: Whether MLA decodes with TRITON_MLA.
        v2_runner: Whether the second model runner is used, whose profiling run samples less.
        prefix_caching: Whether states are kept for prefixes as well.
        state_bytes: Bytes of a number in a recurrent state; ``None`` for the model's own choice.
        language_only: Whether towers for images and sound are left out.
        profiles_towers: Whether they take part in the profiling run.
        films: Whether films may be sent.
        one_group: Whether all layers get a cache as large as if none was windowed.
        online: How weights are quantized that are not in the checkpoint.
        batches: Batches that may be under way at once, as far as windowed layers keep blocks for them.
        drafted: Tokens that are drafted ahead.
        predicting: Layers of the model that draft them.
        beyond: What is asked for that changes memory in ways not known here.
    """

    version: Release
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    expert_parallel: bool
    utilization: float
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    block_size: int
    kv_element_bytes: float | None
    kv_scale_bytes: float
    kv_cache_dtype: str
    element_bytes: float
    eager: bool
    capture_sizes: tuple[int, ...]
    graphs: int
    compile_sizes: tuple[int, ...]
    kv_cache_memory_bytes: int | None
    use_mla: bool
    graphs_counted: bool
    chunked_prefill: bool
    triton_mla: bool
    v2_runner: bool
    prefix_caching: bool
    state_bytes: float | None
    language_only: bool
    profiles_towers: bool
    films: bool
    one_group: bool
    online: Quantization | None
    batches: int
    drafted: int
    predicting: int
    beyond: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def experts_divided_by(self) -> int:
        """Ranks among which a layer's experts are divided.

        Those of all replicas, whole or cut: ``FusedMoEParallelConfig.flatten_tp_across_dp_and_pcp``; 8.22 GiB a rank
        were measured for 12 layers of GLM-4.7-Flash on two replicas without expert parallelism (docs/h200.md).
        """
        return self.tensor_parallel * self.data_parallel


def demand_of(
    settings: Settings, hardware: Hardware, version: Release, architecture: Architecture | None = None
) -> Demand:
    """What these settings ask for.

    Args:
        settings: Flags and variables of the whole command line.
        hardware: The GPUs: defaults depend on their memory.
        version: Of the engine; unknown counts as the newest.
        architecture: The model: the context length's default is its own.
    """
    return _FlagReader(settings, hardware, version, architecture).demand()


class _FlagReader:
    def __init__(
        self, settings: Settings, hardware: Hardware, version: Release, architecture: Architecture | None
    ) -> None:
        self.args = settings.args
        self.env = settings.env
        self.hardware = hardware
        self.version = version
        self.architecture = architecture

    def demand(self) -> Demand:
        length = self._length()
        seqs, tokens = self._scheduler(length)
        sizes = self._capture_sizes(seqs, tokens)
        return Demand(
            version=self.version,
            tensor_parallel=self._whole("tensor_parallel_size") or 1,
            pipeline_parallel=self._whole("pipeline_parallel_size") or 1,
            data_parallel=self._whole("data_parallel_size_local") or self._whole("data_parallel_size") or 1,
            expert_parallel=self.args.get("enable_expert_parallel") is True,
            utilization=self._utilization(),
            max_model_len=length,
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            block_size=self._whole("block_size") or 16,
            kv_element_bytes=self._kv_bytes(),
            kv_scale_bytes=_KV_SCALE_BYTES if self._kv_kind in _SCALED_KV_BYTES else 0.0,
            kv_cache_dtype=self._kv_kind,
            element_bytes=self._element_bytes,
            eager=self._eager,
            capture_sizes=sizes,
            graphs=self._graphs(sizes, seqs),
            compile_sizes=self._compile_sizes(sizes),
            kv_cache_memory_bytes=self._whole("kv_cache_memory_bytes"),
            use_mla=self.env.get("VLLM_MLA_DISABLE") in (None, "0"),
            graphs_counted=self._graphs_counted,
            chunked_prefill=self.args.get("enable_chunked_prefill") is not False,
            triton_mla=self._triton_mla,
            v2_runner=self._v2_runner,
            prefix_caching=self._prefix_caching,
            state_bytes=_KV_BYTES.get(str(self.args.get("mamba_ssm_cache_dtype"))),
            language_only=self._language_only,
            profiles_towers=self.args.get("skip_mm_profiling") is not True,
            films=self._limits().get("video") != 0,
            one_group=self.args.get("disable_hybrid_kv_cache_manager") is True,
            online=self._online,
            batches=self._batches,
            drafted=self._drafted,
            predicting=self.architecture.predicting if self.architecture and self._predicts else 0,
            beyond=tuple(self._beyond()),
        )

    def _beyond(self) -> Iterator[str]:
        """What is asked for, and changes memory in ways not known here."""
        for flag, what in UNPREDICTABLE.items():
            if self._asks(flag):
                yield what
        guessed = self._speculation("method") in _GUESSING
        if self._asks("speculative_config") and not guessed and not (self._predicts and self._has_predictor):
            yield "a draft model"
        asked = self.args.get("quantization")
        known = self.architecture and self.architecture.quantization
        if asked is not None and self._online is None and not (known and known.same_as(str(asked))):
            yield "another quantization"

    @property
    def _batches(self) -> int:
        """From 0.26 on the next batch is scheduled before this one is done (``max_in_flight_tokens``, vllm#49878)."""
        return 2 if at_least(self.version, 0, 26) and self.args.get("async_scheduling") is not False else 1

    def _speculation(self, key: str) -> JsonValue:
        dotted = f"speculative_config.{key}"
        return self.args[dotted] if dotted in self.args else _object(self.args.get("speculative_config")).get(key)

    @property
    def _predicts(self) -> bool:
        """Whether the model's own layers draft; a model that is named besides is another's."""
        method = str(self._speculation("method") or "")
        return (method == "mtp" or method.endswith("_mtp")) and self._speculation("model") is None

    @property
    def _has_predictor(self) -> bool:
        return self.architecture is not None and self.architecture.predicting > 0

    @property
    def _drafted(self) -> int:
        return whole(self._speculation("num_speculative_tokens")) or 0

    def _asks(self, flag: str) -> bool:
        """Whether a flag, or a dotted part of it, is given; parts of a model's length change no memory."""
        if flag == "hf_overrides":
            return bool(self._overrides() - set(_LENGTH_OVERRIDES))
        return self.args.get(flag) not in _NOTHING or any(name.startswith(f"{flag}.") for name in self.args)

    def _overrides(self) -> set[str]:
        """The fields of the model's configuration that are overridden, whole or in part."""
        whole_names = set(_object(self.args.get("hf_overrides")))
        dotted = (name.split(".") for name in self.args if name.startswith("hf_overrides."))
        inner = {part for parts in dotted for part in parts[1:2]}
        return (whole_names | inner) - {"text_config"} | self._inner_overrides()

    def _inner_overrides(self) -> set[str]:
        inside = _object(self.args.get("hf_overrides")).get("text_config")
        dotted = [name.split(".")[2] for name in self.args if name.startswith("hf_overrides.text_config.")]
        return {*(inside if isinstance(inside, dict) else ()), *dotted}

    @property
    def _online(self) -> Quantization | None:
        plain = self.architecture is not None and self.architecture.quantization is None
        return online(str(self.args.get("quantization"))) if plain else None

    @property
    def _prefix_caching(self) -> bool:
        asked = self.args.get("enable_prefix_caching")
        return at_least(self.version, *_PREFIXES_BY_DEFAULT) if asked is None else asked is True

    @property
    def _language_only(self) -> bool:
        limits = self._limits()
        return self.args.get("language_model_only") is True or (limits.get("image") == 0 and not limits.get("video"))

    def _limits(self) -> Mapping[str, JsonValue]:
        """How many images, films and sounds a request may have."""
        flag = "limit_mm_per_prompt"
        dotted = {name.split(".")[1]: value for name, value in self.args.items() if name.startswith(f"{flag}.")}
        return {**_object(self.args.get(flag)), **dotted}

    def _length(self) -> int | None:
        asked = self.args.get("max_model_len")
        if asked in (-1, "auto"):
            return None
        return self._whole("max_model_len") or (self.architecture.max_positions if self.architecture else None)

    def _scheduler(self, length: int | None) -> tuple[int | None, int | None]:
        """Sequences and batched tokens; defaults are the API server's, by GPU memory."""
        seqs, tokens = self._whole("max_num_seqs"), self._whole("max_num_batched_tokens")
        default_tokens, default_seqs = self._scheduler_defaults()
        seqs = default_seqs if seqs is None else seqs
        if tokens is None and default_tokens and seqs and length:
            whole = length if self.args.get("enable_chunked_prefill") is False else 0
            tokens = max(min(default_tokens, seqs * length), whole)
        return seqs, tokens

    def _scheduler_defaults(self) -> tuple[int | None, int | None]:
        total = self.hardware.total_gib
        if total is None:
            return None, None
        if total >= 160:
            return 16384, 1024
        return (8192, 1024) if total >= 70 and "A100" not in self.hardware.name.upper() else (2048, 256)

    def _utilization(self) -> float:
        asked = self.args.get("gpu_memory_utilization")
        if isinstance(asked, int | float) and not isinstance(asked, bool):
            return float(asked)
        return 0.92 if at_least(self.version, 0, 20) else 0.9

    @property
    def _element_bytes(self) -> float:
        return 4.0 if self.args.get("dtype") in ("float32", "float") else 2.0

    @property
    def _kv_kind(self) -> str:
        return str(self.args.get("kv_cache_dtype") or "auto")

    def _kv_bytes(self) -> float | None:
        """What is asked for; else what the checkpoint has scales for, from 0.12 on; else the model's own format."""
        kind = self._kv_kind
        if kind != "auto":
            return _KV_BYTES.get(kind) or _SCALED_KV_BYTES.get(kind)
        own = self.architecture.quantization if self.architecture else None
        scaled = own.cache_bytes if own and at_least(self.version, 0, 12) else None
        return scaled or self._element_bytes

    @property
    def _eager(self) -> bool:
        asked = (self.args.get("optimization_level"), self._compilation("mode"), self._compilation("level"))
        level = next((str(value).upper() for value in asked if value is not None), "3")
        return self.args.get("enforce_eager") is True or level in ("0", "O0", "NONE")

    def _capture_sizes(self, seqs: int | None, tokens: int | None) -> tuple[int, ...]:
        if self._eager or self._compilation("cudagraph_mode") in ("NONE", 0) or seqs is None or tokens is None:
            return ()
        given = self.args.get("cudagraph_capture_sizes") or self.args.get("cuda_graph_sizes")
        given = given or self._compilation("cudagraph_capture_sizes")
        if isinstance(given, list):
            return tuple(sorted({size for size in given if isinstance(size, int) and size <= tokens}))
        asked = self._whole("max_cudagraph_capture_size")
        largest = min(asked or min(2 * seqs * (1 + self._drafted), _LARGEST_CAPTURE), tokens)
        return tuple(default_capture_sizes(largest))

    def _graphs(self, sizes: tuple[int, ...], seqs: int | None) -> int:
        """Each size is captured once piecewise and, from 0.11 on and as far as decoding goes, once whole."""
        mode = str(self._compilation("cudagraph_mode") or "FULL_AND_PIECEWISE")
        decoding = sum(size <= (seqs or 0) for size in sizes) if at_least(self.version, 0, 11) else 0
        piecewise = 0 if mode == "FULL_DECODE_ONLY" else len(sizes)
        return piecewise + (decoding if mode in ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY") else 0)

    def _compile_sizes(self, captured: tuple[int, ...]) -> tuple[int, ...]:
        listed = self._compilation("compile_sizes")
        sizes: set[int] = set()
        for size in listed if isinstance(listed, list) else []:
            sizes |= set(captured) if size == "cudagraph_capture_sizes" else {int(str(size))}
        return tuple(sorted(sizes))

    @property
    def _triton_mla(self) -> bool:
        """Asked for, or the only MLA backend there is: FLASH_ATTN_MLA and FLASHMLA need 9.x, the others 10.x."""
        asked = self.args.get("attention_backend") or self.env.get("VLLM_ATTENTION_BACKEND")
        if asked:
            return str(asked).upper().startswith("TRITON_MLA")
        return self.hardware.capability is not None and self.hardware.capability[0] not in (9, 10)

    @property
    def _v2_runner(self) -> bool:
        """The default from 0.32 on (``config/vllm.py::use_v2_model_runner``), and in 0.26 for most models.

        Seen there: not with experts, and asked for by hand with states (vllm#48601).
        """
        asked = self.env.get("VLLM_USE_V2_MODEL_RUNNER")
        if asked is not None:
            return asked == "1"
        model = self.architecture
        plain = model is not None and model.experts is None and model.state is None
        return at_least(self.version, 0, 32) or (at_least(self.version, 0, 26) and plain)

    @property
    def _graphs_counted(self) -> bool:
        """The second runner estimates none before 0.32 (``v1/worker/gpu/model_runner.py``)."""
        switch = self.env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS")
        if self._v2_runner and not at_least(self.version, 0, 32):
            return False
        return at_least(self.version, 0, 20) and switch in (None, "1")

    def _compilation(self, key: str) -> JsonValue:
        dotted = f"compilation_config.{key}"
        return self.args[dotted] if dotted in self.args else _object(self.args.get("compilation_config")).get(key)

    def _whole(self, name: str) -> int | None:
        return whole(self.args.get(name))


def whole(value: JsonValue) -> int | None:
    """A whole number as vLLM's command line reads it: ``32k`` is 32,000 and ``32K`` 32,768; else ``None``."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value[-1:] in _SUFFIXES:
        digits, factor = value[:-1], _SUFFIXES[value[-1]]
        return int(float(digits) * factor) if re.fullmatch(r"\d+(\.\d+)?", digits) else None
    if isinstance(value, str):
        return int(value) if value.isdigit() else None
    return int(value) if isinstance(value, int | float) else None


def default_capture_sizes(largest: int) -> list[int]:
    """The batch sizes that vLLM captures by default, up to ``largest`` (``config/vllm.py::_set_cudagraph_sizes``)."""
    small = [size for size in (1, 2, 4) if size <= largest]
    return [*small, *range(8, min(largest + 1, 256), 8), *range(256, largest + 1, 16)]


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    """A flag's JSON; users also write it as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}
