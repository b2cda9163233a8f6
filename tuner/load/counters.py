"""What a server counts itself, read off its ``/metrics`` while a stage runs: plain data and arithmetic.

The names are vLLM's (older versions included), SGLang's and llama.cpp's; their pages differ in little else.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any, ClassVar

_NAMES = {
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"),
    "generation_tokens": (
        "vllm:generation_tokens_total",
        "sglang:generation_tokens_total",
        "llamacpp:tokens_predicted_total",
    ),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "kv_usage": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ),
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"),
}
_FIELD = {name: field for field, names in _NAMES.items() for name in names}
_SHARES = ("kv_usage",)


@dataclass(frozen=True, slots=True)
class Page:
    """One reading of ``/metrics``: counters since the server's start, gauges of the moment; ``None`` if not told.

    Where there are several engines, counts are their sum and shares their mean.

    Attributes:
        at_ns: When, on the clock of ``perf_counter_ns``.
        prompt_tokens: Tokens of prompts.
        generation_tokens: Tokens generated.
        preemptions: Requests that had to give up their KV cache.
        prefix_hits: Prompt tokens found in the prefix cache.
        prefix_queries: Prompt tokens looked up in it.
        kv_usage: Share of the KV cache in use.
        running: Requests in the batch.
        waiting: Requests in the queue.
    """

    at_ns: int
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    preemptions: float | None = None
    prefix_hits: float | None = None
    prefix_queries: float | None = None
    kv_usage: float | None = None
    running: float | None = None
    waiting: float | None = None


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """What the server counted in the steady window of a stage; ``None`` where it does not tell.

    Counts at the window's ends are interpolated between the readings before and after, so that they are no whole
    numbers. Tokens of the whole stage, ramps included, are there to be compared with what the client received.

    Attributes:
        readings: Of ``/metrics`` within the window.
        prompt_tokens: Tokens of prompts. Likewise the next four, as ``Page`` has them.
        generation_tokens: Tokens generated.
        preemptions: Requests that had to give up their KV cache.
        prefix_hits: Prompt tokens found in the prefix cache.
        prefix_queries: Prompt tokens looked up in it.
        kv_usage_mean: Share of the KV cache in use, mean over the readings.
        kv_usage_max: The greatest reading.
        running_mean: Requests in the batch, mean over the readings.
        waiting_mean: Requests in the queue, mean over the readings.
        stage_prompt_tokens: Tokens of prompts in the whole stage.
        stage_generation_tokens: Tokens generated in the whole stage.
        stage_preemptions: Requests that had to give up their KV cache in the whole stage.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    readings: int
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    preemptions: float | None = None
    prefix_hits: float | None = None
    prefix_queries: float | None = None
    kv_usage_mean: float | None = None
    kv_usage_max: float | None = None
    running_mean: float | None = None
    waiting_mean: float | None = None
    stage_prompt_tokens: float | None = None
    stage_generation_tokens: float | None = None
    stage_preemptions: float | None = None


def parse(text: str, at_ns: int) -> Page:
    """A page in Prometheus' text format; what is no number or has no name that we know is passed over."""
    found: dict[str, list[float]] = {}
    for name, value in _samples(text):
        found.setdefault(_FIELD[name], []).append(value)
    told = {field: sum(values) / (len(values) if field in _SHARES else 1) for field, values in found.items()}
    return Page(at_ns, **told)


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _FIELD:
            try:
                value = float(line.removeprefix(name).rpartition("}")[2].split()[0])
            except (ValueError, IndexError):
                continue
            if isfinite(value):
                yield name, value


def summary(pages: Sequence[Page], start_ns: int, end_ns: int) -> EngineCounters | None:
    """What happened between two moments.

    Args:
        pages: Readings in order, the first from before the stage and the last from after it.
        start_ns: Begin of the window, on the clock of ``perf_counter_ns``.
        end_ns: Its end.

    Returns:
        ``None`` if there are not two readings to compare.
    """
    if len(pages) < 2:
        return None
    inside = [page for page in pages if start_ns <= page.at_ns <= end_ns]
    usage = [page.kv_usage for page in inside if page.kv_usage is not None]
    return EngineCounters(
        readings=len(inside),
        prompt_tokens=_grown(pages, "prompt_tokens", start_ns, end_ns),
        generation_tokens=_grown(pages, "generation_tokens", start_ns, end_ns),
        preemptions=_grown(pages, "preemptions", start_ns, end_ns),
        prefix_hits=_grown(pages, "prefix_hits", start_ns, end_ns),
        prefix_queries=_grown(pages, "prefix_queries", start_ns, end_ns),
        kv_usage_mean=_mean(usage),
        kv_usage_max=max(usage, default=None),
        running_mean=_mean(page.running for page in inside if page.running is not None),
        waiting_mean=_mean(page.waiting for page in inside if page.waiting is not None),
        stage_prompt_tokens=_grown(pages, "prompt_tokens", pages[0].at_ns, pages[-1].at_ns),
        stage_generation_tokens=_grown(pages, "generation_tokens", pages[0].at_ns, pages[-1].at_ns),
        stage_preemptions=_grown(pages, "preemptions", pages[0].at_ns, pages[-1].at_ns),
    )


def _grown(pages: Sequence[Page], field: str, start_ns: int, end_ns: int) -> float | None:
    """By how much a counter grew; ``None`` also if it fell, as when the server was started anew."""
    points = [(page.at_ns, value) for page in pages if (value := getattr(page, field)) is not None]
    if len(points) < 2 or any(later < earlier for (_, earlier), (_, later) in pairwise(points)):
        return None
    return round(_at(points, end_ns) - _at(points, start_ns), 1)


def _at(points: Sequence[tuple[int, float]], at_ns: int) -> float:
    """A counter at a moment, on the straight line between the readings around it."""
    for (before_ns, before), (after_ns, after) in pairwise(points):
        if at_ns <= after_ns:
            share = (at_ns - before_ns) / (after_ns - before_ns)
            return before + max(0.0, share) * (after - before)
    return points[-1][1]


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
