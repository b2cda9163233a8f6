"""Records in, numbers out. A number is measured or it is ``None``; if it would lie, there is an error instead.

Latencies are those of vLLM's own benchmark (``vllm/benchmarks/serve.py``, ``calculate_metrics``), over the completed
requests of the sample, which were sent inside the steady window (``tuner.load.steady``):

- TTFT: from sending to the first chunk that carries text; E2E: to the last chunk that carries tokens;
- TPOT: (E2E - TTFT) / (output tokens - 1), one value a request, none for a request of one token;
- ITL: the gaps between consecutive chunks, all requests together; chunks that came in one read count as one.

Output throughput is what arrived inside the window over its length; the tokens of a chunk are its request's tokens over
its chunks. ``ramped_output_tokens_per_s`` is nearer to vLLM's benchmark, which counts the ramps at both ends.

vLLM's benchmark differs in two more ways: its TTFT takes the role-only chunk for the first, and where nothing completed
it reports zeros.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import exp, hypot, log, sqrt

from pydantic import BaseModel, ConfigDict, Field

from tuner.errors import MeasurementError
from tuner.load import doubts
from tuner.load.counters import EngineCounters
from tuner.load.deciding import Deciding
from tuner.load.estimates import Estimates, arrived_tokens, of_stage, was_cached
from tuner.load.intervals import Interval
from tuner.load.naming import CONCURRENT, SATURATION, SINGLE_USER, SOURCES, TOOL_CALL, MetricName, parse
from tuner.load.percentile import percentile
from tuner.load.plan import ttft_stage
from tuner.load.quantities import QUANTITIES
from tuner.load.records import FailureKind, RequestRecord, StageResult, Window
from tuner.load.refusals import unusable
from tuner.load.saturation import bracket, is_of_search
from tuner.load.workload import Workload


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LongPrompt(_Model):
    """TTFT of one long prompt, sent twice."""

    asked_tokens: int
    """The workload's length."""
    prompt_tokens: int | None = None
    """Its true length, as the server counted."""
    cold_ms: float | None = None
    """TTFT with nothing of it in the prefix cache; ``None`` also if the server says that it had been cached."""
    cached_ms: float | None = None
    """TTFT of the same prompt directly afterwards."""


class Measurement(_Model):
    """What a server did under a workload.

    Durations are in the engine's own milliseconds, throughput in tokens (or requests) a second of its own; they differ
    from wall time only for a simulated engine with a ``clock_scale``. ``None`` is "not measured", never zero; a
    percentile that its sample cannot carry is not measured either (p95 below 100, p99 below 500).
    """

    output_tokens_per_s: float | None = None
    """Output throughput of the concurrent stage, within its steady window."""
    requests_per_s: float | None = None
    """Answers of the sample's mean length that arrived in a second of that window; parts of them count as parts."""
    ttft_p50_ms: float | None = None
    """TTFT at concurrency."""
    ttft_p95_ms: float | None = None
    """TTFT at concurrency."""
    itl_p50_ms: float | None = None
    """Inter-token latency at concurrency."""
    itl_p99_ms: float | None = None
    """Inter-token latency at concurrency."""
    concurrent_tpot_p50_ms: float | None = None
    """TPOT at concurrency."""
    e2e_p50_ms: float | None = None
    """End-to-end latency at concurrency."""
    tpot_p50_ms: float | None = None
    """TPOT of a single user."""
    tpot_p95_ms: float | None = None
    """TPOT of a single user."""
    single_user_ttft_p50_ms: float | None = None
    """TTFT of a single user."""
    named: dict[str, float] = Field(default_factory=dict)
    """Further numbers by their names (docs/metrics.md): of each stage of a ladder and each class of requests, and what
    the objective asks for."""
    long_prompts: tuple[LongPrompt, ...]
    """TTFT by prompt length, in the workload's order; a length that was not sent is missing."""
    tool_call_ms: float | None = None
    """End-to-end latency of a tool call; ``None`` also if the model answered without calling the tool."""
    completed: int
    """Requests that completed, all stages together."""
    failed: int
    """Requests that failed; none of them is part of any other number."""
    failures: dict[FailureKind, int]
    """The failed ones by kind."""
    short_outputs: int
    """Completed requests with fewer output tokens than were asked for: ``ignore_eos`` is not honoured, or there is none
    (``workload.endpoint=messages``)."""
    client_cpu_share: float | None = None
    """CPU share of the load client in the concurrent stage; 1 is one core."""
    loop_lag_p99_ms: float | None = None
    """How late the load client stamped in its worst stage, in wall time, 99th percentile over time."""
    loop_lag_max_ms: float | None = None
    """The same, its maximum."""
    send_lag_p99_ms: float | None = None
    """How much later than scheduled the load client sent in its worst open stage, in wall time, 99th percentile."""
    unreliable: tuple[str, ...]
    """Stages whose numbers are ``None``, because the load client stamped them too late to mean anything."""
    clock_scale: float
    """How many of the engine's seconds pass in one of ours; 1 for every real engine."""
    kv_tokens: float | None = None
    """Tokens that the KV cache holds, by the server's own start-up lines."""
    startup_s: float | None = None
    """From the launch to the first answer, in wall time; ``None`` for a server that ran already."""
    ramped_output_tokens_per_s: float | None = None
    """All tokens that arrived in the concurrent stage over the whole of its time, the ramps included."""
    tokens_per_chunk: float | None = None
    """Output tokens over the chunks that carried them, in the concurrent stage or else the single user's."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """95 % intervals by metric; a number is missing whose sample has fewer than three rounds of the users."""
    samples: dict[str, int] = Field(default_factory=dict)
    """How large the sample of each number of the lasting stages is, as ``Interval.n`` counts it; also of those that
    were too small to be measured."""
    windows: dict[str, Window] = Field(default_factory=dict)
    """The steady window of each stage that has one: wall time since the stage began, as in its requests' records."""
    warnings: tuple[str, ...] = ()
    """What a person should know before trusting these numbers."""
    engine: EngineCounters | None = None
    """What the server itself counted in the steady window of the concurrent stage."""

    @property
    def numbers(self) -> dict[str, float]:
        """Everything that was measured and that goals and limits may name, by name."""
        plain = {name: getattr(self, name) for name in METRICS}
        for prompt in self.long_prompts:
            plain |= {f"ttft_{prompt.asked_tokens}_cold_ms": prompt.cold_ms}
            plain |= {f"ttft_{prompt.asked_tokens}_cached_ms": prompt.cached_ms}
        return {name: value for name, value in plain.items() if value is not None} | self.named


METRICS: tuple[str, ...] = (*SOURCES, "tool_call_ms", "kv_tokens", "startup_s")
"""The numbers that every measurement may have; goals and limits may name others as well (``tuner.load.naming``)."""


def measure(
    results: Sequence[StageResult],
    workload: Workload,
    clock_scale: float = 1.0,
    deciding: Deciding = Deciding(),  # noqa: B008 (frozen)
) -> Measurement:
    """The numbers of one measurement.

    Args:
        results: The stages of a ``plan``, in any order; one that is missing leaves its numbers ``None``, and one that
            was sent again for being disturbed counts for nothing.
        workload: Whose stages they are, and whose limits say when the numbers would lie.
        clock_scale: Seconds of a simulated engine that pass in one second of wall time.
        deciding: What the objective asks for, in addition to what every measurement has.

    Raises:
        MeasurementError: Nothing completed, too much failed (a stream without ``usage`` has failed), the server counts
            tokens that cannot be, or the load client could not keep up in the concurrent stage.
    """
    searched = [result for result in results if is_of_search(result)]
    counting = [result for result in results if not result.superseded and not is_of_search(result)]
    _reject_failures(counting, workload)
    _reject_counts(counting)
    _reject_busy_client(counting, workload)
    return _with_rate(_measurement(counting, workload, clock_scale, deciding), searched, workload)


def _with_rate(measurement: Measurement, searched: Sequence[StageResult], workload: Workload) -> Measurement:
    """With the highest rate that was sustained, where one that was not is known; 0 where none was."""
    said = tuple(_off_schedule([each for each in searched if not each.superseded], workload))
    reliable = [each for each in searched if not is_late(each, workload)]
    late = [each for each in searched if is_late(each, workload)]
    known = bracket(reliable, workload, measurement.clock_scale)
    update: dict[str, object] = {"warnings": (*said, *measurement.warnings)}
    if known.interval and (known.low is not None or not late):
        update |= {
            "named": {**measurement.named, SATURATION: known.interval.low},
            "intervals": {**measurement.intervals, SATURATION: known.interval},
            "samples": {**measurement.samples, SATURATION: known.n},
        }
    return measurement.model_copy(update=update)


def pooled(one: Measurement, other: Measurement) -> Measurement:
    """Two measurements of one server as one: geometric means of what both know, all else as the first has it.

    Half the width of an interval of the mean of two logs is half the root of the sum of their squares.
    """
    first, second = _lasting(one), _lasting(other)
    means = {name: _mean(value, second[name]) for name, value in first.items() if name in second}
    names = list(means)
    both = [name for name in names if name in one.intervals and name in other.intervals]
    intervals = {name: _pooled(means[name], one.intervals[name], other.intervals[name]) for name in both}
    update = {
        **{name: value for name, value in means.items() if name not in one.named},
        "named": {**one.named, **{name: value for name, value in means.items() if name in one.named}},
        "intervals": {**one.intervals, **intervals},
        "samples": {**one.samples, **{name: each.n for name, each in intervals.items()}},
        "completed": one.completed + other.completed,
        "failed": one.failed + other.failed,
        "failures": dict(Counter(one.failures) + Counter(other.failures)),
        "short_outputs": one.short_outputs + other.short_outputs,
        "warnings": tuple(dict.fromkeys((*one.warnings, *other.warnings))),
    }
    return one.model_copy(update=update)


def _mean(one: float, other: float) -> float:
    """The geometric one, except of nothing."""
    return sqrt(one * other) if one > 0 and other > 0 else (one + other) / 2


def _lasting(measurement: Measurement) -> dict[str, float]:
    """The numbers of the stages that last."""
    plain = {name: getattr(measurement, name) for name in SOURCES}
    return {name: value for name, value in plain.items() if value is not None} | measurement.named


def _pooled(mean: float, one: Interval, other: Interval) -> Interval:
    if min(one.low, other.low) <= 0:
        return Interval(low=min(one.low, other.low), high=max(one.high, other.high), n=one.n + other.n)
    reach = exp(hypot(log(one.high / one.low), log(other.high / other.low)) / 4)
    return Interval(low=mean / reach, high=mean * reach, n=one.n + other.n)


def _measurement(results: Sequence[StageResult], workload: Workload, scale: float, deciding: Deciding) -> Measurement:
    reliable = [result for result in results if not is_late(result, workload)]
    concurrent, alone = _stage(reliable, CONCURRENT), _stage(reliable, SINGLE_USER)
    names, estimates = list(_names(workload, deciding)), Estimates()
    for result in reliable:
        estimates |= of_stage(result, names, workload, scale)
    every = [record for result in results for record in result.records]
    failures = Counter(record.failure.kind for record in every if record.failure and record.failed)
    per_chunk = _tokens_per_chunk(concurrent, alone)
    return Measurement(
        **{name: estimates.values.get(name) for name in SOURCES},
        named={name: value for name, value in estimates.values.items() if name not in SOURCES},
        long_prompts=_long_prompts(reliable, workload, scale),
        tool_call_ms=_scaled(_tool_call(reliable), scale),
        completed=sum(record.completed for record in every),
        failed=failures.total(),
        failures=dict(failures),
        short_outputs=sum(map(doubts.is_short, every)),
        client_cpu_share=concurrent.client_cpu_share if concurrent else None,
        loop_lag_p99_ms=max((result.loop_lag_p99_ms for result in results), default=None),
        loop_lag_max_ms=max((result.loop_lag_max_ms for result in results), default=None),
        send_lag_p99_ms=max(
            (each.send_lag_p99_ms for each in results if each.send_lag_p99_ms is not None), default=None
        ),
        unreliable=tuple(result.stage for result in results if is_late(result, workload)),
        clock_scale=scale,
        ramped_output_tokens_per_s=_ramped(concurrent, scale),
        tokens_per_chunk=per_chunk,
        intervals=estimates.intervals,
        samples=estimates.samples,
        windows={result.stage: result.window for result in results if result.window},
        warnings=(*_off_schedule(results, workload), *_warnings(results, every, per_chunk)),
        engine=concurrent.engine if concurrent else None,
    )


def _names(workload: Workload, deciding: Deciding) -> Iterator[MetricName]:
    """What is measured: the numbers that all have, those of ladder and classes, and what decides."""
    yield from SOURCES.values()
    ttft, tpot, rate = (QUANTITIES[name] for name in ("ttft_ms", "tpot_ms", "output_tokens_per_s"))
    promised = [QUANTITIES[name] for name in ("goodput_share", "goodput_requests_per_s")] if workload.promises else []
    yield from map(MetricName, (*promised, QUANTITIES["preemptions"], QUANTITIES["prefix_hit_rate"]))
    for stage in workload.ladder[:-1]:
        yield from (MetricName(rate, None, stage), MetricName(ttft, 50, stage), MetricName(tpot, 50, stage))
        yield from (MetricName(each, None, stage) for each in promised)
    for kind in workload.classes:
        yield from (MetricName(ttft, 50, traffic=kind.name), MetricName(tpot, 50, traffic=kind.name))
        yield from (MetricName(each, traffic=kind.name) for each in promised)
    yield from (
        name
        for name in map(parse, deciding.names)
        if name.quantity.stages and not (name.sending and name.quantity.name == "ttft_ms" and name.percent == 50)
    )


def _tokens_per_chunk(*results: StageResult | None) -> float | None:
    told = (doubts.tokens_per_chunk(result.sample) for result in results if result)
    return next((value for value in told if value is not None), None)


def _ramped(result: StageResult | None, scale: float) -> float | None:
    """``None`` if nothing completed, which is not a rate of zero."""
    if result is None or not any(record.completed for record in result.records):
        return None
    return arrived_tokens(result) / (result.wall_ms / 1000 * scale)


def _warnings(
    results: Sequence[StageResult], every: Sequence[RequestRecord], per_chunk: float | None
) -> tuple[str, ...]:
    stages: dict[str, list[str]] = {}
    for result in results:
        for sentence in doubts.doubt(result.sample).sentences():
            stages.setdefault(sentence, []).append(result.stage)
    doubted = (f"{', '.join(names)}: {sentence}" for sentence, names in stages.items())
    counted = chain.from_iterable(doubts.about_counters(each, arrived_tokens(each)) for each in results)
    return (*doubted, *counted, *doubts.about_bundles(per_chunk), *doubts.about_answers(every))


def _off_schedule(results: Sequence[StageResult], workload: Workload) -> Iterator[str]:
    told = (doubts.about_schedule(result, workload.max_loop_lag_ms) for result in results)
    return (sentence for sentence in told if sentence)


def _scaled(duration_ms: float | None, scale: float) -> float | None:
    return None if duration_ms is None else duration_ms * scale


def _long_prompts(results: Sequence[StageResult], workload: Workload, scale: float) -> tuple[LongPrompt, ...]:
    stages = ((length, _stage(results, ttft_stage(length))) for length in workload.ttft_prompt_tokens)
    return tuple(_long_prompt(length, result.records, scale) for length, result in stages if result and result.records)


def _long_prompt(length: int, records: Sequence[RequestRecord], scale: float) -> LongPrompt:
    """Medians, where several prompts of this length were sent."""
    completed = [record for record in records if record.completed]
    vague = doubts.doubt(completed).no_times
    cold, cached = ([] if vague else [r for r in completed if r.index % 2 == turn] for turn in (0, 1))
    return LongPrompt(
        asked_tokens=length,
        prompt_tokens=completed[0].prompt_tokens if completed else None,
        cold_ms=_scaled(_median_ttft(record for record in cold if not was_cached(record)), scale),
        cached_ms=_scaled(_median_ttft(cached), scale),
    )


def _median_ttft(records: Iterable[RequestRecord]) -> float | None:
    return percentile((record.ttft_ms for record in records if record.ttft_ms is not None), 50)


def _tool_call(results: Sequence[StageResult]) -> float | None:
    result = _stage(results, TOOL_CALL)
    called = [record.e2e_ms for record in (result.sample if result else ()) if record.tool_called]
    return called[0] if called else None


def _stage(results: Sequence[StageResult], name: str) -> StageResult | None:
    return next((result for result in results if result.stage == name), None)


def is_late(result: StageResult, workload: Workload) -> bool:
    """Whether the load client was too late for the stage's numbers to mean anything."""
    return max(result.loop_lag_p99_ms, result.send_lag_p99_ms or 0.0) > workload.max_loop_lag_ms


def _reject_failures(results: Sequence[StageResult], workload: Workload) -> None:
    every = [record for result in results for record in result.records if not record.cut]
    failures = [record.failure for record in every if record.failure]
    if len(failures) == len(every):
        raise unusable("no request completed", failures)
    allowed = workload.max_failed_share * len(every)
    if len(failures) > allowed:
        share = f"{len(failures)} of {len(every)} requests failed, above {workload.max_failed_share:.0%}"
        raise unusable(share, failures, allowed)


def _reject_counts(results: Sequence[StageResult]) -> None:
    """A server that counts what cannot be has numbers that are no better."""
    completed = [record for result in results for record in result.records if record.completed]
    wrong = [reason for record in completed if (reason := doubts.impossible(record))]
    if wrong:
        raise MeasurementError(
            f"the server's token counts cannot be true in {len(wrong)} of {len(completed)} answers: {wrong[0]}",
            fix="measure the server itself, without what rewrites its answers",
        )


def _reject_busy_client(results: Sequence[StageResult], workload: Workload) -> None:
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
    if sentence := doubts.about_schedule(result, workload.max_loop_lag_ms):
        raise MeasurementError(
            sentence, fix="leave it a core to itself, lower the rate, or raise workload.max_loop_lag_ms"
        )
    if is_late(result, workload):
        lag = f"{result.loop_lag_p99_ms:.0f} ms late (p99), above {workload.max_loop_lag_ms:g} ms"
        raise MeasurementError(
            f"the load client ran {lag}",
            fix="leave it a core to itself, let it use SCHED_RR (CAP_SYS_NICE), or raise workload.max_loop_lag_ms",
        )
