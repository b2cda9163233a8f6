"""What a vLLM server silently does slower than it could, by the lines in which it mentions it.

None of these is a failure. Severe are those that no hardware forces and that cost a multiple of speed or memory; the
rest is normal somewhere: no RTX 4090 has tuned MoE kernels in vLLM, and PCIe boxes have no custom all-reduce.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.engines.base import Degradation
from tuner.engines.loglines import LogLine, parse

_ASKED_EAGER = re.compile(r"['\"]enforce_eager['\"]: True|enforce[-_]eager\b(?!=)")
_MLA_MODELS = re.compile(
    r"Resolved architecture: (?:Deepseek(?:V[23]|VLV2)|Glm4MoeLite|GlmMoeDsa|Kimi|LongcatFlash|MiniCPM3)"
)
_BACKEND = re.compile(r"Using (?:AttentionBackendEnum\.)?(?P<name>[\w ]+?)(?: attention)? backend\b(?! for)")


@dataclass(frozen=True, slots=True)
class _Shape:
    name: str
    severe: bool
    pattern: re.Pattern[str]


def _shape(name: str, *any_of: str, severe: bool = False) -> _Shape:
    return _Shape(name, severe, re.compile("|".join(any_of)))


_SHAPES = (
    _shape("v0_engine", r"[Ff]alling back to V0\b", r"Initializing a V0 LLM engine \(v0\.(?:[89]|1\d)\.", severe=True),
    _shape("v1_model_runner", r"using the V1 model runner instead"),
    _shape(
        "transformers_backend",
        r"[Ff]alling back to Transformers implementation",
        r"Using Transformers (?:modeling )?backend\.",
        severe=True,
    ),
    _shape("attention_backend", r"precluded higher-priority backend", severe=True),
    _shape(
        "quantization_fallback",
        r"Falling back to (?:unoptimized \w+ kernels|Moe WNA16 kernels)",
        r"quantization is not fully optimized yet",
        severe=True,
    ),
    _shape("fp8_weight_only", r"does not have native support for FP\d computation"),
    _shape("moe_untuned", r"Using default MoE config\. Performance might be sub-optimal"),
    _shape("fp8_gemm_untuned", r"Using default W8A8 Block FP8 kernel config"),
    _shape(
        "cudagraph_lowered",
        r"Overriding cudagraph_mode from",
        r"Overriding to CUDAGraphMode",
        r"Truncating max_cudagraph",
    ),
    _shape("async_scheduling_off", r"Async scheduling (?:will be|is) disabled"),
    _shape("custom_all_reduce_off", r"Custom allreduce is disabled"),
    _shape("compile_cache_off", r"torch\.compile cache is disabled"),
    _shape("dtype", r"doesn't support \S+\. Falling back to \S+ for compatibility"),
)
_EAGER = re.compile(r"Enforce eager set|Cudagraph is disabled under eager mode|fallback to the eager mode")


NAMES = frozenset({*(shape.name for shape in _SHAPES), "eager", "mla_off"})
"""All names that a degradation can have."""


def degradations(log: Sequence[str]) -> tuple[Degradation, ...]:
    """Each degradation that the log mentions, once, at its first line, in the order of the log.

    ``eager`` is severe only where nobody asked for it, which ``non-default args`` tells.
    """
    lines = parse(log)
    found = sorted((*_shaped(lines), *_eager(lines), *_without_mla(lines)), key=lambda each: each.line_number)
    return tuple({each.name: each for each in reversed(found)}[name] for name in dict.fromkeys(f.name for f in found))


def _shaped(lines: Sequence[LogLine]) -> Iterator[Degradation]:
    for line in lines:
        for shape in _SHAPES:
            if shape.pattern.search(line.text):
                yield Degradation(shape.name, line.raw, line.number, shape.severe)


def _eager(lines: Sequence[LogLine]) -> Iterator[Degradation]:
    asked = any(_ASKED_EAGER.search(line.text) for line in lines)
    for line in lines:
        if _EAGER.search(line.text):
            yield Degradation("eager", line.raw, line.number, severe=not asked)


def _without_mla(lines: Sequence[LogLine]) -> Iterator[Degradation]:
    """A model made for multi-head latent attention that runs without: its KV cache is many times larger."""
    if not any(_MLA_MODELS.search(line.text) for line in lines):
        return
    chosen = [line for line in lines if attention_backend(line.text)]
    if chosen and not any("MLA" in line.text for line in chosen):
        yield Degradation("mla_off", chosen[0].raw, chosen[0].number, severe=True)


def attention_backend(text: str) -> str | None:
    """The attention backend that a line names as chosen, ``FLASH_ATTN_MLA``, or ``None``."""
    found = _BACKEND.search(text)
    if not found or "MoE" in text or "executor" in text or "vit" in text.lower():
        return None
    return found["name"].strip()
