"""The numbers of a stage that lasts, each with its interval and the size of its sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from statistics import mean

from tuner.load.deciding import SOURCES, Source, support
from tuner.load.doubts import Doubt, doubt, tokens_per_chunk
from tuner.load.intervals import Interval, in_blocks, percentile_interval, rate_interval
from tuner.load.percentile import percentile
from tuner.load.records import RequestRecord, StageResult, Window

_ROUNDING_MS = 0.01
"""Times are stored in whole microseconds, so that sums of them may be off by some."""
_SEED = 20_260_101
"""Of the bootstrap: the same records give the same interval wherever they are read again."""


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


def of_stage(result: StageResult, scale: float) -> Estimates:
    """All metrics of the concurrent or the single user's stage.

    Args:
        result: The stage.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    found = Estimates()
    unknown = doubt(result.sample)
    for name, source in SOURCES.items():
        if source.stage == result.stage and result.sample:
            estimate = _rate(result, name) if source.percent is None else _percentile(result, name, source, unknown)
            _enter(found, name, estimate, scale if source.percent else 1 / scale)
    return found


def _enter(found: Estimates, name: str, estimate: _Estimate, factor: float) -> None:
    found.samples[name] = estimate.n
    if estimate.value is None:
        return
    found.values[name] = estimate.value * factor
    if known := estimate.interval:
        found.intervals[name] = replace(known, low=known.low * factor, high=known.high * factor)


def _rate(result: StageResult, name: str) -> _Estimate:
    """Tokens or requests a second of wall time that arrived in the window."""
    window = result.window or Window(0.0, result.wall_ms)
    arrivals = _token_arrivals(result)
    if name == "requests_per_s":  # by parts: the answers of users in step end all at once
        answer = mean(record.output_tokens or 0 for record in result.sample) or 1.0
        arrivals = [(at_ms, tokens / answer) for at_ms, tokens in arrivals]
    value = sum(count for at_ms, count in arrivals if window.holds(at_ms)) / ((window.end_ms - window.start_ms) / 1000)
    return _Estimate(value, rate_interval(arrivals, _rounds(result, window), len(result.sample)), len(result.sample))


def _rounds(result: StageResult, window: Window) -> list[float]:
    """Where the window begins, where each round of the users ends, one answer for each of them, and where it ends.

    What is left over after the last whole round belongs to it.
    """
    ends = sorted(record.started_ms + record.duration_ms for record in result.sample)
    closed = [end for end in ends[result.streams - 1 :: result.streams] if end <= window.end_ms + _ROUNDING_MS]
    return [window.start_ms, *closed[:-1], window.end_ms]


def _token_arrivals(result: StageResult) -> list[tuple[float, float]]:
    """When tokens arrived, since the stage began, and how many; nothing of a request that failed."""
    usual = tokens_per_chunk([record for record in result.records if record.completed]) or 1.0
    return list(chain.from_iterable(_arrivals(record, usual) for record in result.records if not record.failed))


def _arrivals(record: RequestRecord, usual: float) -> list[tuple[float, float]]:
    """Of one request; ``usual`` stands for the tokens of a chunk where it was cut off before its ``usage`` came."""
    if record.completed and not record.chunk_ms:
        return [(record.started_ms + record.duration_ms, float(record.output_tokens or 0))]
    tokens = usual if record.output_tokens is None else record.output_tokens / len(record.chunk_ms)
    return [(record.started_ms + at_ms, tokens) for at_ms in record.chunk_ms]


def arrived_tokens(result: StageResult) -> float:
    """All output tokens that a stage brought, those of requests included that were cut off at its end."""
    return sum(count for _, count in _token_arrivals(result))


def _percentile(result: StageResult, name: str, source: Source, unknown: Doubt) -> _Estimate:
    values_of, percent = _extractor(name), source.percent or 50
    blocks = [list(chain.from_iterable(map(values_of, block))) for block in in_blocks(result.sample, result.streams)]
    pooled = list(chain.from_iterable(blocks))
    n = len(pooled) // result.streams if source.per_step else len(pooled)
    value = percentile(pooled, percent)
    void = unknown.no_tpot if "tpot" in name else unknown.no_times and not name.startswith("e2e")
    if value is None or void or n < support(name):
        return _Estimate(None, None, 0 if void else n)
    return _Estimate(value, percentile_interval(blocks, percent, value, n, _SEED), n)


def _extractor(name: str) -> Callable[[RequestRecord], Sequence[float]]:
    """What one request contributes to a metric."""
    if "tpot" in name:
        return lambda record: _listed(tpot_ms(record))
    if "ttft" in name:
        return lambda record: _listed(record.ttft_ms)
    return itls_ms if "itl" in name else lambda record: _listed(record.e2e_ms)


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]


def itls_ms(record: RequestRecord) -> list[float]:
    """The gaps between chunks; what came in one read came together, and has no gap in between."""
    reads = sorted(set(record.chunk_ms))
    return [later - earlier for earlier, later in pairwise(reads)]


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token after the first; ``None`` for a request of fewer than two tokens."""
    if record.output_tokens is None or record.output_tokens < 2 or not record.chunk_ms:
        return None
    return (record.chunk_ms[-1] - record.chunk_ms[0]) / (record.output_tokens - 1)
