"""What llama.cpp's start-up lines say of the server.

Each device has its buffers for the weights, the KV cache and the graphs' computations. Where GPUs hold any, theirs are
the figures and what stays on the host is not; a server without GPUs is told of by the host's.
"""

import re
from collections.abc import Sequence

from tuner.engines.base import StartupFacts
from tuner.engines.llamacpp.log.degradations import degradations
from tuner.engines.llamacpp.log.signs import READING
from tuner.engines.log import reader
from tuner.engines.log.lines import LogLine, parse

_MIB_IN_GIB = 1024
_BUFFER = re.compile(r"(?P<device>\w+) +(?P<what>model|KV|RS|compute) buffer size *= *(?P<mib>[\d.]+) MiB")
_HOST = re.compile(r"CPU|_Host$|^BLAS|_Mapped$")
_OFFLOADED = re.compile(r"offloaded (?P<offloaded>\d+)/(?P<layers>\d+) layers to GPU")
_CONTEXT = re.compile(r"\bn_ctx +(?:= +)?(?P<value>\d+)$")
_SLOT = re.compile(r"\bn_ctx_(?:slot|per_seq|seq) += +(?P<value>\d+)|new slot,? n_ctx = (?P<slot>\d+)")
_FREE = re.compile(r"using device \w+ .* - (?P<mib>\d+) MiB free")
_FLASH = re.compile(r"\bflash_attn += (?P<on>0|1|enabled|disabled)\b|Flash Attention was auto, set to (?P<auto>\w+)")


def facts(log: Sequence[str]) -> StartupFacts:
    """The facts that the log's last start states."""
    lines = reader.last_start(parse(log), READING)
    sizes = buffers(lines)
    return StartupFacts(
        engine_version=reader.version_of(lines, READING),
        weights_gib=_largest(sizes, "model"),
        kv_cache_gib=_largest(sizes, "KV"),
        kv_tokens=_last(lines, _CONTEXT),
        max_model_len=_last(lines, _SLOT),
        peak_activation_gib=_largest(sizes, "compute"),
        free_gib=_free(lines),
        attention_backend=_attention(lines),
        layers=_last(lines, _OFFLOADED, "layers"),
        offloaded_layers=_last(lines, _OFFLOADED, "offloaded"),
        degradations=degradations([line.raw for line in lines]),
    )


def buffers(lines: Sequence[LogLine]) -> dict[tuple[str, str], float]:
    """GiB by device and purpose, of the devices that count; a draft model's are added to the model's own."""
    found: dict[tuple[str, str], float] = {}
    for line in lines:
        if said := _BUFFER.search(line.text):
            key = said["device"], said["what"]
            found[key] = found.get(key, 0.0) + float(said["mib"]) / _MIB_IN_GIB
    on_gpus = {key: gib for key, gib in found.items() if not _HOST.search(key[0])}
    return on_gpus or found


def _largest(sizes: dict[tuple[str, str], float], purpose: str) -> float | None:
    return max((gib for (_, what), gib in sizes.items() if what == purpose), default=None)


def _last(lines: Sequence[LogLine], pattern: re.Pattern[str], *groups: str) -> int | None:
    matches = [found for line in lines if (found := pattern.search(line.text))]
    if not matches:
        return None
    return int(matches[-1][groups[0]] if groups else next(filter(None, matches[-1].groups())))


def _free(lines: Sequence[LogLine]) -> float | None:
    free = [float(found["mib"]) / _MIB_IN_GIB for line in lines if (found := _FREE.search(line.text))]
    return min(free, default=None)


def _attention(lines: Sequence[LogLine]) -> str | None:
    """Whether flash attention is used; the later of what was asked and what came of ``auto``."""
    said = [next(filter(None, found.groups())) for line in lines if (found := _FLASH.search(line.text))]
    return None if not said else "FLASH_ATTN" if said[-1] in ("1", "enabled") else "PLAIN"
