"""What a vLLM server silently does slower than it could, by the lines in which it mentions it.

None of these is a failure. Severe are those that no hardware forces and that cost a multiple of speed or memory; the
rest is normal somewhere: no RTX 4090 has tuned MoE kernels in vLLM, and PCIe boxes have no custom all-reduce.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from tuner.engines.base import Degradation
from tuner.engines.log.degradations import DegradationReader, slower, telling
from tuner.engines.log.lines import LogLine
from tuner.engines.vllm.backends import key

_ASKED_EAGER = re.compile(r"['\"]enforce_eager['\"]: True|enforce[-_]eager\b(?!=)")
_MLA_MODELS = re.compile(
    r"Resolved architecture: (?:Deepseek(?:V[23]|VLV2)|Glm4MoeLite|GlmMoeDsa|Kimi|LongcatFlash|MiniCPM3)"
)
_ASKED_BACKEND = re.compile(
    r"(?:attention[-_]backend|ATTENTION_BACKEND)['\"]?(?:: ?|=| )"
    r"<?(?:AttentionBackendEnum\.)?['\"]?(?P<name>[A-Z]\w{3,})"
)
_BACKEND = re.compile(r"Using (?:AttentionBackendEnum\.)?(?P<name>[\w ]+?)(?: attention)? backend\b(?! for)")


V0_ENGINE = "v0_engine"

_TABLE = (
    slower(V0_ENGINE, r"[Ff]alling back to V0\b", r"Initializing a V0 LLM engine \(v0\.(?:[89]|1\d)\.", severe=True),
    slower("v1_model_runner", r"using the V1 model runner instead"),
    slower(
        "transformers_backend",
        r"[Ff]alling back to Transformers implementation",
        r"Using Transformers (?:modeling )?backend\.",
        severe=True,
    ),
    slower("attention_backend", r"precluded higher-priority backend", severe=True),
    slower(
        "quantization_fallback",
        r"Falling back to (?:unoptimized \w+ kernels|Moe WNA16 kernels)",
        r"quantization is not fully optimized yet",
        severe=True,
    ),
    slower("fp8_weight_only", r"does not have native support for FP\d computation"),
    slower("moe_untuned", r"Using default MoE config\. Performance might be sub-optimal"),
    slower("fp8_gemm_untuned", r"Using default W8A8 Block FP8 kernel config"),
    slower(
        "cudagraph_lowered",
        r"Overriding cudagraph_mode from",
        r"Overriding to CUDAGraphMode",
        r"Truncating max_cudagraph",
        r"Capping cudagraph capture sizes",
    ),
    slower("async_scheduling_off", r"Async scheduling (?:will be|is) disabled"),
    slower("custom_all_reduce_off", r"Custom allreduce is disabled"),
    slower("compile_cache_off", r"torch\.compile cache is disabled"),
    slower("dtype", r"doesn't support \S+\. Falling back to \S+ for compatibility"),
)
_EAGER = re.compile(r"Enforce eager set|Cudagraph is disabled under eager mode|fallback to the eager mode")


NAMES = frozenset({*(shape.name for shape in _TABLE), "eager", "mla_off"})
"""All names that a degradation can have."""


PATTERNS = (
    *(shape.pattern for shape in _TABLE),
    *(_EAGER, _ASKED_EAGER, _MLA_MODELS, _BACKEND, _ASKED_BACKEND),
)
"""One of these is in every line that tells anything of a degradation."""

_TELLING = telling(PATTERNS)


class VllmDegradations(DegradationReader):
    """Keeps the first line of each degradation in a vLLM log.

    ``eager`` is severe only where nobody asked for it, which ``non-default args`` tells, as it tells the attention
    backend that was asked for.
    """

    def __init__(self) -> None:
        super().__init__(_TABLE, _TELLING)
        self._asked_eager = False
        self._made_for_mla = False
        self._without_mla: LogLine | None = None
        self._with_mla = False
        self._asked_backend = ""
        self._taken: dict[str, LogLine] = {}

    def take(self, line: LogLine) -> None:
        """See ``DegradationReader.take``."""
        super().take(line)
        self._asked_eager = self._asked_eager or _ASKED_EAGER.search(line.text) is not None
        self._made_for_mla = self._made_for_mla or _MLA_MODELS.search(line.text) is not None
        if _EAGER.search(line.text):
            self.note("eager", line, severe=True)
        if (said := asked_backend(line.text)) and not self._asked_backend:
            self._asked_backend = said
        if taken := attention_backend(line.text):
            self._taken.setdefault(key(taken), line)
            self._with_mla = self._with_mla or "MLA" in line.text
            self._without_mla = self._without_mla or line

    @property
    def found(self) -> tuple[Degradation, ...]:
        """See ``DegradationReader.found``.

        A model made for multi-head latent attention that runs without has a KV cache that is many times larger.
        """
        asked = [
            replace(each, severe=False, asked=True) if self._asked_eager and each.name == "eager" else each
            for each in super().found
        ]
        if line := self._without_mla if self._made_for_mla and not self._with_mla else None:
            asked.append(Degradation("mla_off", line.raw, line.number, severe=True))
        if self._asked_backend and self._taken and key(self._asked_backend) not in self._taken:
            line = next(iter(self._taken.values()))
            asked.append(Degradation("attention_backend", line.raw, line.number, severe=True))
        return tuple(sorted(asked, key=lambda each: each.line_number))


def degradations(log: Iterable[str]) -> tuple[Degradation, ...]:
    """Each degradation that a whole log mentions, as ``VllmDegradations`` finds it."""
    reader = VllmDegradations()
    for line in log:
        reader.read(line)
    return reader.found


def asked_backend(text: str) -> str | None:
    """The attention backend that a command line, or its echo, asks for; ``None`` where it leaves that to vLLM."""
    found = _ASKED_BACKEND.search(text)
    return None if found is None or found["name"].lower() in ("none", "auto") else found["name"]


def attention_backend(text: str) -> str | None:
    """The attention backend that a line names as chosen, ``FLASH_ATTN_MLA``, or ``None``."""
    found = _BACKEND.search(text)
    if not found or "MoE" in text or "executor" in text or "vit" in text.lower():
        return None
    return found["name"].strip()
