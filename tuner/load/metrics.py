"""Records in, numbers out. A number is measured or it is ``None``; if it would lie, there is an error instead.

Definitions are those of vLLM's own benchmark (``vllm/benchmarks/serve.py``, ``calculate_metrics``), over completed
requests only:

- output throughput: the completed requests' output tokens over the stage's wall time, from the first request's
  sending to the last one's end, the ramp at both ends included;
- TTFT: from sending to the first chunk that carries tokens; E2E: to the last such chunk;
- TPOT: (E2E - TTFT) / (output tokens - 1), one value a request, none for a request of one token;
- ITL: the gaps between consecutive chunks, one value a gap, all requests together.

vLLM's benchmark differs in two ways: its TTFT takes the role-only chunk for the first, and where nothing completed it
reports zeros.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from pydantic import BaseModel, ConfigDict

from tuner.errors import MeasurementError
from tuner.load.percentile import percentile
from tuner.load.plan import CONCURRENT, SINGLE_USER, TOOL_CALL, ttft_stage
from tuner.load.records import FailureKind, RequestRecord, StageResult
from tuner.load.refusals import unusable
from tuner.load.workload import Workload

_CACHED_SHARE = 0.5
"""A prompt of which the server had more than this in its prefix cache was not cold."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LongPrompt(_Model):
    """TTFT of one long prompt, sent twice."""

    asked_tokens: int
    """The workload's length."""
    prompt_tokens: int | None
    """Its true length, as the server counted."""
    cold_ms: float | None
    """TTFT with nothing of it in the prefix cache; ``None`` also if the server says that it had been cached."""
    cached_ms: float | None
    """TTFT of the same prompt directly afterwards."""


class Measurement(_Model):
    """What a server did under a workload.

    Durations are in the engine's own milliseconds, throughput in tokens (or requests) a second of its own; they differ
    from wall time only for a simulated engine with a ``clock_scale``. ``None`` is "not measured", never zero.
    """

    output_tokens_per_s: float | None
    """Output throughput of the concurrent stage."""
    requests_per_s: float | None
    """Completed requests a second in the concurrent stage."""
    ttft_p50_ms: float | None
    """TTFT at concurrency."""
    ttft_p95_ms: float | None
    """TTFT at concurrency."""
    itl_p50_ms: float | None
    """Inter-token latency at concurrency."""
    itl_p99_ms: float | None
    """Inter-token latency at concurrency."""
    concurrent_tpot_p50_ms: float | None
    """TPOT at concurrency."""
    e2e_p50_ms: float | None
    """End-to-end latency at concurrency."""
    tpot_p50_ms: float | None
    """TPOT of a single user."""
    tpot_p95_ms: float | None
    """TPOT of a single user."""
    single_user_ttft_p50_ms: float | None
    """TTFT of a single user."""
    long_prompts: tuple[LongPrompt, ...]
    """TTFT by prompt length, in the workload's order; a length that was not sent is missing."""
    tool_call_ms: float | None
    """End-to-end latency of a tool call; ``None`` also if the model answered without calling the tool."""
    completed: int
    """Requests that completed, all stages together."""
    failed: int
    """Requests that failed; none of them is part of any other number."""
    failures: dict[FailureKind, int]
    """The failed ones by kind."""
    short_outputs: int
    """Completed requests with fewer output tokens than were asked for: the server does not honour ``ignore_eos``."""
    client_cpu_share: float | None
    """CPU share of the load client in the concurrent stage; 1 is one core."""
    loop_lag_p99_ms: float | None
    """How late the load client stamped in its worst stage, in wall time, 99th percentile over time."""
    loop_lag_max_ms: float | None
    """The same, its maximum."""
    unreliable: tuple[str, ...]
    """Stages whose numbers are ``None``, because the load client stamped them too late to mean anything."""
    clock_scale: float
    """How many of the engine's seconds pass in one of ours; 1 for every real engine."""


def measure(results: Sequence[StageResult], workload: Workload, clock_scale: float = 1.0) -> Measurement:
    """The numbers of one measurement.

    Args:
        results: The stages of a ``plan``, in any order; one that is missing leaves its numbers ``None``, and one that
            was sent again for being spoiled counts for nothing.
        workload: Whose stages they are, and whose limits say when the numbers would lie.
        clock_scale: Seconds of a simulated engine that pass in one second of wall time.

    Raises:
        MeasurementError: Nothing completed, too much failed (a stream without ``usage`` has failed), or the load
            client could not keep up in the concurrent stage.
    """
    counting = [result for result in results if not result.superseded]
    _reject_failures(counting, workload)
    _reject_saturation(counting, workload)
    return _measurement(counting, workload, clock_scale)


def _measurement(results: Sequence[StageResult], workload: Workload, scale: float) -> Measurement:
    reliable = [result for result in results if not _is_late(result, workload)]
    concurrent = _stage(reliable, CONCURRENT)
    busy, alone = _completed(concurrent), _completed(_stage(reliable, SINGLE_USER))
    every = [record for result in results for record in result.records]
    failures = Counter(record.failure.kind for record in every if record.failure)
    return Measurement(
        output_tokens_per_s=_rate(concurrent, sum(record.output_tokens or 0 for record in busy), scale),
        requests_per_s=_rate(concurrent, len(busy), scale),
        ttft_p50_ms=_scaled(percentile(_ttfts(busy), 50), scale),
        ttft_p95_ms=_scaled(percentile(_ttfts(busy), 95), scale),
        itl_p50_ms=_scaled(percentile(_itls(busy), 50), scale),
        itl_p99_ms=_scaled(percentile(_itls(busy), 99), scale),
        concurrent_tpot_p50_ms=_scaled(percentile(_tpots(busy), 50), scale),
        e2e_p50_ms=_scaled(percentile(_e2es(busy), 50), scale),
        tpot_p50_ms=_scaled(percentile(_tpots(alone), 50), scale),
        tpot_p95_ms=_scaled(percentile(_tpots(alone), 95), scale),
        single_user_ttft_p50_ms=_scaled(percentile(_ttfts(alone), 50), scale),
        long_prompts=_long_prompts(reliable, workload, scale),
        tool_call_ms=_scaled(_tool_call(reliable), scale),
        completed=len(every) - failures.total(),
        failed=failures.total(),
        failures=dict(failures),
        short_outputs=sum(_is_short(record) for record in every),
        client_cpu_share=concurrent.client_cpu_share if concurrent else None,
        loop_lag_p99_ms=max((result.loop_lag_p99_ms for result in results), default=None),
        loop_lag_max_ms=max((result.loop_lag_max_ms for result in results), default=None),
        unreliable=tuple(result.stage for result in results if _is_late(result, workload)),
        clock_scale=scale,
    )


def _ttfts(records: Iterable[RequestRecord]) -> list[float]:
    return [record.ttft_ms for record in records if record.ttft_ms is not None]


def _e2es(records: Iterable[RequestRecord]) -> list[float]:
    return [record.e2e_ms for record in records if record.e2e_ms is not None]


def _itls(records: Iterable[RequestRecord]) -> list[float]:
    return list(chain.from_iterable((b - a for a, b in pairwise(record.chunk_ms)) for record in records))


def _tpots(records: Iterable[RequestRecord]) -> list[float]:
    return [tpot for record in records if (tpot := tpot_ms(record)) is not None]


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token after the first; ``None`` for a request of fewer than two tokens."""
    if record.output_tokens is None or record.output_tokens < 2 or not record.chunk_ms:
        return None
    return (record.chunk_ms[-1] - record.chunk_ms[0]) / (record.output_tokens - 1)


def _rate(result: StageResult | None, count: int, scale: float) -> float | None:
    """So many a second of the stage; ``None`` if nothing completed, which is not a rate of zero."""
    if result is None or not count:
        return None
    return count / (result.wall_ms / 1000 * scale)


def _scaled(duration_ms: float | None, scale: float) -> float | None:
    return None if duration_ms is None else duration_ms * scale


def _long_prompts(results: Sequence[StageResult], workload: Workload, scale: float) -> tuple[LongPrompt, ...]:
    stages = ((length, _stage(results, ttft_stage(length))) for length in workload.ttft_prompt_tokens)
    return tuple(_long_prompt(length, result.records, scale) for length, result in stages if result and result.records)


def _long_prompt(length: int, records: Sequence[RequestRecord], scale: float) -> LongPrompt:
    by_index = {record.index: record for record in records if record.failure is None}
    cold, cached = by_index.get(0), by_index.get(1)
    known = cold or cached
    return LongPrompt(
        asked_tokens=length,
        prompt_tokens=known.prompt_tokens if known else None,
        cold_ms=_scaled(cold.ttft_ms, scale) if cold and not _was_cached(cold) else None,
        cached_ms=_scaled(cached.ttft_ms, scale) if cached else None,
    )


def _was_cached(record: RequestRecord) -> bool:
    return (record.cached_tokens or 0) > _CACHED_SHARE * (record.prompt_tokens or 0)


def _tool_call(results: Sequence[StageResult]) -> float | None:
    called = [record.e2e_ms for record in _completed(_stage(results, TOOL_CALL)) if record.tool_called]
    return called[0] if called else None


def _is_short(record: RequestRecord) -> bool:
    if record.failure is not None or record.request.tool_call:
        return False
    return (record.output_tokens or 0) < record.request.output_tokens


def _stage(results: Sequence[StageResult], name: str) -> StageResult | None:
    return next((result for result in results if result.stage == name), None)


def _completed(result: StageResult | None) -> list[RequestRecord]:
    return [record for record in result.records if record.failure is None] if result else []


def _is_late(result: StageResult, workload: Workload) -> bool:
    return result.loop_lag_p99_ms > workload.max_loop_lag_ms


def _reject_failures(results: Sequence[StageResult], workload: Workload) -> None:
    every = [record for result in results for record in result.records]
    failures = [record.failure for record in every if record.failure]
    if len(failures) == len(every):
        raise unusable("no request completed", failures)
    if len(failures) > workload.max_failed_share * len(every):
        share = f"{len(failures)} of {len(every)} requests failed, above {workload.max_failed_share:.0%}"
        raise unusable(share, failures)


def _reject_saturation(results: Sequence[StageResult], workload: Workload) -> None:
    """Only the concurrent stage can saturate the client, and without it a measurement is worth little."""
    result = _stage(results, CONCURRENT)
    if result is None:
        return
    if result.client_cpu_share > workload.max_client_cpu_share:
        share = f"{result.client_cpu_share:.0%} of a core, above {workload.max_client_cpu_share:.0%}"
        raise MeasurementError(
            f"the load client used {share}: it measured itself",
            fix="lower the concurrency, or raise workload.max_client_cpu_share knowingly",
        )
    if _is_late(result, workload):
        lag = f"{result.loop_lag_p99_ms:.0f} ms late (p99), above {workload.max_loop_lag_ms:g} ms"
        raise MeasurementError(
            f"the load client ran {lag}",
            fix="leave it a core to itself, let it use SCHED_RR (CAP_SYS_NICE), or raise workload.max_loop_lag_ms",
        )
