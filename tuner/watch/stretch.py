"""What a server did in a stretch of time, read off its ``/metrics`` pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.host.state import GpuState
from tuner.load.traffic import Buckets, Snapshot, buckets_of
from tuner.schema import Schema

_TTFT = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
_ITL = (
    "vllm:inter_token_latency_seconds",
    "vllm:time_per_output_token_seconds",  # as it was called up to vLLM 0.10
    "sglang:inter_token_latency_seconds",
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading.

    Attributes:
        traffic: Lengths, counters and gauges.
        ttft: Times to first token since the server's start, in seconds; ``None`` where it keeps no such histogram.
        itl: Gaps between tokens, likewise.
        gpus: The GPUs at that moment, where they can be seen.
    """

    traffic: Snapshot
    ttft: Buckets | None
    itl: Buckets | None
    gpus: tuple[GpuState, ...] = ()

    @classmethod
    def of(cls, text: str, at_ns: int, gpus: tuple[GpuState, ...] = ()) -> "Scrape":
        """A page in Prometheus' text format.

        Raises:
            ValueError: It cannot be read. Likewise ``IndexError``.
        """
        # a server may have the older name besides the newer one, and counts the same gaps under both
        itl = next((found for name in _ITL if (found := buckets_of(text, (name,)))), None)
        return cls(Snapshot.of(text, at_ns), buckets_of(text, _TTFT), itl, gpus)


class MedianBucket(Schema):
    """A median as a histogram tells it: the bounds of its bucket, in milliseconds."""

    low_ms: float
    high_ms: float | None
    """Null where it lies beyond the last bound."""


class Stretch(Schema):
    """What was seen between two readings; null where the server does not tell."""

    seconds: float
    answered: float | None = None
    """Requests that ended."""
    arrived: float | None = None
    """Requests that came, whether or not they have ended."""
    output_tokens_per_s: float | None = None
    prompt_tokens: float | None = None
    """Of the mean request that ended. Likewise the next."""
    output_tokens: float | None = None
    users: float | None = None
    """Requests in the batch, mean over the readings. Likewise the next two."""
    waiting: float | None = None
    kv_usage: float | None = None
    preemptions: float | None = None
    prefix_hit_rate: float | None = None
    ttft_p50: MedianBucket | None = None
    itl_p50: MedianBucket | None = None
    tpot_ms: float | None = None
    """All gaps over all tokens but the first ones: a mean, which is exact where a median is told as a bucket."""
    power_w: float | None = None
    """Of all watched GPUs together. Likewise the next."""
    memory_used_gib: float | None = None


def restarted(before: Scrape, after: Scrape) -> bool:
    """Whether the server was started anew in between: a counter fell."""
    counts = (
        (earlier, later)
        for name in ("generation_tokens", "prompt_tokens")
        if (earlier := getattr(before.traffic.page, name)) is not None
        and (later := getattr(after.traffic.page, name)) is not None
    )
    return any(later < earlier for earlier, later in counts)


def stretch_of(scrapes: Sequence[Scrape]) -> Stretch:
    """What happened between the first reading and the last, of one and the same run of the server.

    Args:
        scrapes: Two or more, in order.
    """
    first, last = scrapes[0], scrapes[-1]
    seconds = (last.traffic.page.at_ns - first.traffic.page.at_ns) / 1e9
    prompts = _since(first.traffic.prompts, last.traffic.prompts)
    outputs = _since(first.traffic.outputs, last.traffic.outputs)
    tokens, queried = _grown(scrapes, "generation_tokens"), _grown(scrapes, "prefix_queries")
    hits = _grown(scrapes, "prefix_hits")
    return Stretch(
        seconds=round(seconds, 3),
        answered=prompts.count if prompts else None,
        arrived=prompts.count + _open(last) - _open(first) if prompts else None,
        output_tokens_per_s=None if tokens is None else tokens / seconds,
        prompt_tokens=_mean_of(prompts),
        output_tokens=_mean_of(outputs),
        users=_mean(scrapes, "running"),
        waiting=_mean(scrapes, "waiting"),
        kv_usage=_mean(scrapes, "kv_usage"),
        preemptions=_grown(scrapes, "preemptions"),
        prefix_hit_rate=hits / queried if hits is not None and queried else None,
        ttft_p50=_median(_since(first.ttft, last.ttft)),
        itl_p50=_median(_since(first.itl, last.itl)),
        tpot_ms=_tpot_ms(_since(first.itl, last.itl), _since(first.ttft, last.ttft), tokens),
        power_w=_of_gpus(scrapes, lambda gpu: gpu.power_w, 1.0),
        memory_used_gib=_of_gpus(scrapes, lambda gpu: gpu.memory_used_mib, 1 / 1024),
    )


def _open(scrape: Scrape) -> float:
    return (scrape.traffic.page.running or 0.0) + (scrape.traffic.page.waiting or 0.0)


def _tpot_ms(gaps: Buckets | None, firsts: Buckets | None, tokens: float | None) -> float | None:
    """By the tokens, not by the gaps: a step of speculative decoding brings several."""
    later = 0.0 if tokens is None or firsts is None else tokens - firsts.count
    return 1000 * gaps.total / later if gaps and gaps.total > 0 and later > 0 else None


def _since(before: Buckets | None, after: Buckets | None) -> Buckets | None:
    return after.since(before) if before and after else None


def _mean_of(found: Buckets | None) -> float | None:
    return found.mean if found and found.count > 0 else None


def _median(found: Buckets | None) -> MedianBucket | None:
    """Which bucket holds it."""
    if found is None or found.count < 1:
        return None
    low = 0.0
    for bound in sorted(found.upto):
        if found.upto[bound] >= found.count / 2:
            return MedianBucket(low_ms=low * 1000, high_ms=None if bound == float("inf") else bound * 1000)
        low = bound
    return None


def _grown(scrapes: Sequence[Scrape], name: str) -> float | None:
    before, after = (getattr(each.traffic.page, name) for each in (scrapes[0], scrapes[-1]))
    return None if before is None or after is None else after - before


def _mean(scrapes: Sequence[Scrape], name: str) -> float | None:
    known = [value for each in scrapes if (value := getattr(each.traffic.page, name)) is not None]
    return fmean(known) if known else None


def _of_gpus(scrapes: Sequence[Scrape], of: Callable[[GpuState], float | None], scale: float) -> float | None:
    sums = []
    for scrape in scrapes:
        values = [of(gpu) for gpu in scrape.gpus]
        if values and None not in values:
            sums.append(sum(value for value in values if value is not None))
    return fmean(sums) * scale if sums else None
