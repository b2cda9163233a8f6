"""The numbers of a stage that lasts, each with its interval and the size of its sample."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import mean

from tuner.load.counters import EngineCounters
from tuner.load.doubts import Doubt, doubt, tokens_per_chunk
from tuner.load.goodput import good, share_interval, untold
from tuner.load.intervals import Interval, in_blocks, percentile_interval, rate_interval
from tuner.load.naming import MetricName
from tuner.load.percentile import percentile
from tuner.load.records import RequestRecord, StageResult, Window
from tuner.load.timing import itls_ms, tpot_ms
from tuner.load.workload import Workload

_ROUNDING_MS = 0.01
"""Times are stored in whole microseconds, so that sums of them may be off by some."""
_CACHED_SHARE = 0.5
"""A prompt of which the server had more than this in its prefix cache was not cold."""
_SEED = 20_260_101
"""Of the bootstrap: the same records give the same interval wherever they are read again."""


def _preemptions(engine: EngineCounters | None) -> float | None:
    return engine.preemptions if engine else None


def _prefix_hit_rate(engine: EngineCounters | None) -> float | None:
    if engine is None or engine.prefix_hits is None or not engine.prefix_queries:
        return None
    return min(1.0, engine.prefix_hits / engine.prefix_queries)


_COUNTED: Mapping[str, Callable[[EngineCounters | None], float | None]] = {
    "preemptions": _preemptions,
    "prefix_hit_rate": _prefix_hit_rate,
}
"""What the server itself counts in the steady window of a stage."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Numbers by metric.

    Attributes:
        values: In the engine's own units of time; missing where the sample does not carry them.
        intervals: 95 %; missing where there are fewer than three rounds of the users.
        samples: Sizes, as ``Interval.n`` counts them; also of what is missing.
    """

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)

    def __or__(self, other: "Estimates") -> "Estimates":
        return Estimates(self.values | other.values, self.intervals | other.intervals, self.samples | other.samples)


@dataclass(frozen=True, slots=True)
class _Estimate:
    value: float | None
    interval: Interval | None
    n: int


def of_stage(result: StageResult, names: Iterable[MetricName], workload: Workload, scale: float) -> Estimates:
    """Numbers of one stage.

    Args:
        result: The stage.
        workload: Whose stage it is: it says what is promised of each request.
        names: Which numbers; those of other stages are passed over.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    found = Estimates()
    unknown = doubt(result.sample)
    for name in names:
        if name.stage == result.stage and (sample := _sample(result, name)):
            if name.percent is not None:
                _enter(found, name.text, _percentile(result, name, sample, unknown), scale)
            elif count := _COUNTED.get(name.quantity.name):
                _enter(found, name.text, _Estimate(count(result.engine), None, len(sample)), 1.0)
            elif name.quantity.promised and untold(workload, name.traffic, unknown):
                continue
            elif name.quantity.name == "goodput_share":
                _enter(found, name.text, _share(result, name, workload, scale), 1.0)
            else:
                _enter(found, name.text, _rate(result, name, workload, scale), 1 / scale)
    return found


def _share(result: StageResult, name: MetricName, workload: Workload, scale: float) -> _Estimate:
    """Of the requests that were sent in the window and ended, those that keep all of their limits."""
    window = result.window
    sent = [r for r in result.records if not r.cut and (window is None or window.holds(r.started_ms))]
    own = [record for record in sent if _is_of(record, name)]
    kept = [good(record, workload, scale) for record in own]
    return _Estimate(sum(kept) / len(kept), share_interval(own, kept, result.streams), len(kept))


def _sample(result: StageResult, name: MetricName) -> list[RequestRecord]:
    """The requests that count for a number: those of its class, those that were sent cold or cached."""
    return [record for record in result.sample if _is_of(record, name)]


def _is_of(record: RequestRecord, name: MetricName) -> bool:
    """A long prompt is sent twice in a row; one that the server had cached already was not cold."""
    if name.sending == "cold":
        return record.index % 2 == 0 and not was_cached(record)
    if name.sending == "cached":
        return record.index % 2 == 1
    return name.traffic is None or record.request.traffic == name.traffic


def was_cached(record: RequestRecord) -> bool:
    """Whether the server says that it had much of a prompt in its prefix cache."""
    return (record.cached_tokens or 0) > _CACHED_SHARE * (record.prompt_tokens or 0)


def _enter(found: Estimates, name: str, estimate: _Estimate, factor: float) -> None:
    found.samples[name] = estimate.n
    if estimate.value is None:
        return
    found.values[name] = estimate.value * factor
    if known := estimate.interval:
        found.intervals[name] = replace(known, low=known.low * factor, high=known.high * factor)


def _rate(result: StageResult, name: MetricName, workload: Workload, scale: float) -> _Estimate:
    """Tokens or requests a second of wall time that arrived in the window."""
    window, sample = result.window or Window(0.0, result.wall_ms), _sample(result, name)
    arrivals = _token_arrivals(result, name)
    if name.quantity.name == "requests_per_s":  # by parts: the answers of users in step end all at once
        answer = mean(record.output_tokens or 0 for record in sample) or 1.0
        arrivals = [(at_ms, tokens / answer) for at_ms, tokens in arrivals]
    elif name.quantity.promised:
        arrivals = list(_good_arrivals(result, name, workload, scale)) or [(0.0, 0.0)]
    value = sum(count for at_ms, count in arrivals if window.holds(at_ms)) / ((window.end_ms - window.start_ms) / 1000)
    return _Estimate(value, rate_interval(arrivals, _rounds(result, window), len(sample)), len(sample))


def _rounds(result: StageResult, window: Window) -> list[float]:
    """Where the window begins, where each round of the users ends, one answer for each of them, and where it ends.

    What is left over after the last whole round belongs to it.
    """
    ends = sorted(record.started_ms + record.duration_ms for record in result.sample)
    whole = (end for end in ends[result.streams - 1 :: result.streams] if end <= window.end_ms + _ROUNDING_MS)
    closed = [min(end, window.end_ms) for end in whole]
    return [window.start_ms, *closed[:-1], window.end_ms]


def _good_arrivals(
    result: StageResult, name: MetricName, workload: Workload, scale: float
) -> Iterator[tuple[float, float]]:
    """When parts of the answers arrived that keep all of their limits; the parts of each make one."""
    for record in result.records:
        if _is_of(record, name) and good(record, workload, scale):
            arrived = _arrivals(record, 1.0)
            yield from ((at_ms, 1 / len(arrived)) for at_ms, _ in arrived)


def _token_arrivals(result: StageResult, name: MetricName | None = None) -> list[tuple[float, float]]:
    """When tokens arrived, since the stage began, and how many; nothing of a request that failed."""
    usual = tokens_per_chunk([record for record in result.records if record.completed]) or 1.0
    own = [record for record in result.records if not record.failed and (name is None or _is_of(record, name))]
    return list(chain.from_iterable(_arrivals(record, usual) for record in own))


def _arrivals(record: RequestRecord, usual: float) -> list[tuple[float, float]]:
    """Of one request; ``usual`` stands for the tokens of a chunk where it was cut off before its ``usage`` came."""
    if record.completed and not record.chunk_ms:
        return [(record.started_ms + record.duration_ms, float(record.output_tokens or 0))]
    tokens = usual if record.output_tokens is None else record.output_tokens / len(record.chunk_ms)
    return [(record.started_ms + at_ms, tokens) for at_ms in record.chunk_ms]


def arrived_tokens(result: StageResult) -> float:
    """All output tokens that a stage brought, those of requests included that were cut off at its end."""
    return sum(count for _, count in _token_arrivals(result))


def _percentile(result: StageResult, name: MetricName, sample: Sequence[RequestRecord], unknown: Doubt) -> _Estimate:
    values_of, percent = _extractor(name), name.percent or 50
    blocks = [list(chain.from_iterable(map(values_of, block))) for block in in_blocks(sample, result.streams)]
    pooled = list(chain.from_iterable(blocks))
    n = len(pooled) // result.streams if name.per_step else len(pooled)
    value = percentile(pooled, percent)
    what = name.quantity.name
    void = unknown.no_tpot if what == "tpot_ms" else unknown.no_times and what != "e2e_ms"
    if value is None or void or n < name.support:
        return _Estimate(None, None, 0 if void else n)
    return _Estimate(value, percentile_interval(blocks, percent, value, n, _SEED), n)


def _extractor(name: MetricName) -> Callable[[RequestRecord], Sequence[float]]:
    """What one request contributes to a number."""
    of_request: dict[str, Callable[[RequestRecord], Sequence[float]]] = {
        "tpot_ms": lambda record: _listed(tpot_ms(record)),
        "ttft_ms": lambda record: _listed(record.ttft_ms),
        "e2e_ms": lambda record: _listed(record.e2e_ms),
        "itl_ms": itls_ms,
    }
    return of_request[name.quantity.name]


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]
