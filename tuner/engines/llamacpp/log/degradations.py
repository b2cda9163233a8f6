"""What a llama.cpp server silently does slower than it could, by the lines in which it mentions it."""

import re
from collections.abc import Iterable

from tuner.engines.base import Degradation
from tuner.engines.log.degradations import DegradationReader, slower, telling
from tuner.engines.log.lines import LogLine

_TABLE = (
    slower(
        "cpu_fallback",
        r"no usable GPU found, --gpu-layers option will be ignored|no (?:CUDA|ROCm)-capable device is detected",
        r"ggml_cuda_init: failed to initialize (?:CUDA|ROCm)|compiled without (?:GPU|support for GPU offload)",
        severe=True,
    ),
    slower(
        "flash_attention_off",
        r"Flash Attention was auto, set to disabled",
        r"flash_attn (?:is not compatible|requires) .*(?:forcing off|disabl)",
    ),
    slower("context_lowered", r"n_ctx_(?:per_seq|seq) \(\d+\) > n_ctx_train .*(?:capping|lower)"),
    slower("memory_not_locked", r"failed to mlock"),
    slower("speculation_off", r"(?:draft|speculative) .*(?:not compatible|incompatible|disabl)"),
    slower("prompt_cache_off", r"cache_reuse is not supported by this context"),
)
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")

NAMES = frozenset({*(shape.name for shape in _TABLE), "layers_not_offloaded"})
"""All names that a degradation can have."""

PATTERNS = (*(shape.pattern for shape in _TABLE), _OFFLOADED)
"""One of these is in every line that tells anything of a degradation."""

_TELLING = telling(PATTERNS)


class LlamaCppDegradations(DegradationReader):
    """Keeps the first line of each degradation in a llama.cpp log."""

    def __init__(self) -> None:
        super().__init__(_TABLE, _TELLING)

    def take(self, line: LogLine) -> None:
        """See ``DegradationReader.take``; layers that stay on the host make every token wait for it."""
        super().take(line)
        if (found := _OFFLOADED.search(line.text)) and int(found[1]) < int(found[2]):
            self.note("layers_not_offloaded", line, severe=False)


def degradations(log: Iterable[str]) -> tuple[Degradation, ...]:
    """Each degradation that a whole log mentions."""
    reader = LlamaCppDegradations()
    for line in log:
        reader.read(line)
    return reader.found
