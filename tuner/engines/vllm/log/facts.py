"""What vLLM's start-up lines say of the server, in the words of every version from 0.6 to 0.33.

Sources of the shapes: the log templates of vLLM 0.6.3, 0.7.3, 0.8.5, 0.9.2, 0.10.2, 0.11.2, 0.15.0, 0.20.0, 0.26.0 and
0.33.0.
"""

import re
from collections.abc import Callable, Sequence

from tuner.engines.base import StartupFacts
from tuner.engines.log import reader
from tuner.engines.log.lines import LogLine, parse
from tuner.engines.vllm.log.degradations import attention_backend, degradations
from tuner.engines.vllm.log.signs import READING

Pick = Callable[[Sequence[float]], float]

_V0_BLOCK_TOKENS = 16
_HIT = re.compile(r"Directly load (?:the compiled graph|AOT compilation)")
_MISS = re.compile(r"Compiling a graph .*takes|Cache the graph|saved AOT compiled function")
_EAGER = re.compile(r"enforce_eager=(True|False)")
_CUDAGRAPH_MODE = re.compile(r"CUDAGraphMode\.(\w+)")


def _numbers(lines: Sequence[LogLine], *any_of: str) -> list[float]:
    patterns = [re.compile(pattern) for pattern in any_of]
    matches = (pattern.search(line.text) for line in lines for pattern in patterns)
    return [float(found[1].replace(",", "")) for found in matches if found]


def _pick(lines: Sequence[LogLine], choose: Pick, *any_of: str) -> float | None:
    found = _numbers(lines, *any_of)
    return choose(found) if found else None


def _last(numbers: Sequence[float]) -> float:
    return numbers[-1]


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def facts(log: Sequence[str]) -> StartupFacts:
    """The facts that the log's last start states."""
    lines = reader.last_start(parse(log), READING)
    return StartupFacts(
        engine_version=reader.version_of(lines, READING),
        weights_gib=_pick(
            lines, max, r"(?:Model loading|Loading model weights) took ([\d.]+) Gi?B", r"model weights take ([\d.]+)GiB"
        ),
        kv_cache_gib=_pick(
            lines,
            min,
            r"Available KV cache memory: ([\d.]+) GiB",
            r"reserved for KV Cache is ([\d.]+)GiB",
            r"Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache",
        ),
        kv_tokens=_whole(_kv_tokens(lines)),
        max_model_len=_whole(
            _pick(lines, _last, r"Using max model len (\d+)")
            or _pick(lines, _last, r"LLM engine .*\bmax_seq_len=(\d+)")
        ),
        compile_s=_pick(lines, _last, r"\(compilation: ([\d.]+) s")
        or _pick(lines, max, r"torch\.compile (?:takes|took) ([\d.]+) s in total"),
        graph_capture_s=_pick(lines, max, r"Graph capturing finished in (\d+) secs"),
        compile_cache_hit=_cache_hit(lines),
        init_s=_pick(lines, _last, r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s"),
        peak_activation_gib=_pick(
            lines, max, r"([\d.]+) GiB for peak activation", r"activation peak memory takes ([\d.]+)GiB"
        ),
        non_torch_gib=_pick(lines, max, r"([\d.]+) GiB for non-torch memory", r"non_torch_memory takes ([\d.]+)GiB"),
        consumed_gib=_pick(lines, max, r"Actual usage is ([\d.]+) GiB for consumed memory"),
        graph_gib=_pick(lines, max, r"Graph capturing finished in \d+ secs, took ([\d.]+) GiB"),
        free_gib=_pick(lines, min, r"Free memory on device (?:\S+ )?\(([\d.]+)/[\d.]+ GiB\) on startup"),
        total_gib=_pick(
            lines,
            min,
            r"Free memory on device (?:\S+ )?\([\d.]+/([\d.]+) GiB\) on startup",
            r"total_gpu_memory \(([\d.]+)GiB\)",
        ),
        utilization=_pick(
            lines,
            _last,
            r"Desired GPU memory utilization is \(([\d.]+), [\d.]+ GiB\)",
            r"x gpu_memory_utilization \(([\d.]+)\)",
        ),
        requested_gib=_pick(
            lines,
            min,
            r"Desired GPU memory utilization is \([\d.]+, ([\d.]+) GiB\)",
            r"x gpu_memory_utilization \([\d.]+\) = ([\d.]+)GiB",
        ),
        suggested_kv_bytes=_whole(
            _pick(lines, min, r"config with `--kv-cache-memory=(\d+)`[^`]*to fit into requested")
        ),
        attention_backend=next(filter(None, (attention_backend(line.text) for line in lines)), None),
        eager=_eager(lines),
        cudagraph_mode=_text(lines, _CUDAGRAPH_MODE),
        degradations=degradations([line.raw for line in lines]),
    )


def _kv_tokens(lines: Sequence[LogLine]) -> float | None:
    """Tokens as V1 says them; V0 counts blocks, of 16 tokens unless its arguments say otherwise."""
    if (tokens := _pick(lines, min, r"KV cache size: ([\d,]+) tokens")) is not None:
        return tokens
    blocks = _pick(lines, min, r"# (?:GPU|cuda) blocks: (\d+)")
    block_tokens = _pick(lines, _last, r"\bblock_size['\"]?[=:] ?(\d+)") or _V0_BLOCK_TOKENS
    return None if blocks is None else blocks * block_tokens


def _cache_hit(lines: Sequence[LogLine]) -> bool | None:
    if any(_MISS.search(line.text) for line in lines):
        return False
    return True if any(_HIT.search(line.text) for line in lines) else None


def _eager(lines: Sequence[LogLine]) -> bool | None:
    said = _text(lines, _EAGER)
    return None if said is None else said == "True"


def _text(lines: Sequence[LogLine], pattern: re.Pattern[str]) -> str | None:
    return next((found[1] for line in lines if (found := pattern.search(line.text))), None)
