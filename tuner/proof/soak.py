"""Whether a server lasts: load after load, and what becomes of latency, preemptions and failures meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from math import exp, log
from statistics import median

from tuner.load.records import RequestRecord, StageResult
from tuner.load.timing import tpot_ms
from tuner.schema import Schema

ROUNDS = 10
"""A soak's longest time is that of so many rounds, each with the same traffic and prompts of its own."""
_FEWEST = 6
"""Of fewer rounds nothing is said of growth, and none ends before: the slope of each pair of six is above a bound by
chance once in 720."""
_TURNOVER = 3.0
"""So often the KV cache is to be filled: from the second time on every block has been somebody else's before."""
_GROWTH = 0.1
"""By which share latency may grow over a soak."""
_CONFIDENCE = 0.99
"""Of the slope's interval, so that either of two latencies grows beyond its lower end by chance in 0.5 % of soaks."""
_PREEMPTIONS = 0.5
"""For each answered request, as many preemptions are no storm …"""
_A_FEW = 10
"""… nor are so many in all."""


class SoakRound(Schema):
    """The workload's traffic once; times and seconds are the engine's own."""

    began_s: float
    """Since the soak began."""
    seconds: float
    requests: int
    """Those that were answered."""
    failed: int = 0
    ttft_ms: float | None = None
    """Median, and so the next."""
    tpot_ms: float | None = None
    preemptions: float | None = None
    """Null where the server does not tell, and so the next."""
    cached_tokens: float | None = None
    """New in the KV cache: prompts that were in none of its blocks, and what was generated."""


class Soaked(Schema):
    """What came of a soak."""

    rounds: tuple[SoakRound, ...] = ()
    kv_tokens: int | None = None
    """What the KV cache holds."""
    allowed: float = 0.05
    """As a share of the requests, how many may fail."""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.rounds[-1].began_s + self.rounds[-1].seconds if self.rounds else 0.0

    @property
    def turnover(self) -> float | None:
        """How often the KV cache was filled; ``None`` where that is not known."""
        known = [each.cached_tokens for each in self.rounds if each.cached_tokens is not None]
        return sum(known) / self.kv_tokens if known and self.kv_tokens else None

    @property
    def enough(self) -> bool:
        """Whether it may end before its time."""
        return len(self.rounds) >= _FEWEST and (self.turnover or 0.0) >= _TURNOVER

    @property
    def faults(self) -> tuple[str, ...]:
        """What speaks against the server, in sentences; none if it lasts."""
        return tuple(self._faults())

    def _faults(self) -> Iterator[str]:
        answered, failed = sum(each.requests for each in self.rounds), sum(each.failed for each in self.rounds)
        if failed > self.allowed * (answered + failed):
            yield f"{failed} of {answered + failed} requests failed in its soak"
        for what, read in (("TTFT", lambda each: each.ttft_ms), ("TPOT", lambda each: each.tpot_ms)):
            grown = _grown(self.rounds, read)
            if grown is not None and grown > _GROWTH:
                yield f"its {what} grew by {grown:.0%} or more in a soak of {self.seconds / 60:.1f} minutes"
        preempted = sum(each.preemptions or 0.0 for each in self.rounds)
        if preempted > max(_A_FEW, _PREEMPTIONS * answered):
            yield f"{preempted:.0f} preemptions came on {answered} requests in its soak"

    @property
    def told(self) -> str:
        """How long it was, and what was seen."""
        turned = "an unknown number of times" if self.turnover is None else f"{self.turnover:.1f} times"
        answered = sum(each.requests for each in self.rounds)
        seen = f"{self.seconds / 60:.1f} minutes, {answered} requests, KV cache filled {turned}"
        return f"{seen}{'' if len(self.rounds) >= _FEWEST else '; too few rounds to tell whether latency grows'}"


def _grown(rounds: Sequence[SoakRound], read: Callable[[SoakRound], float | None]) -> float | None:
    """By which share a latency grew over all rounds at the least; ``None`` where they do not tell.

    The median of the slopes between all pairs of rounds (Theil and Sen), of the log, with Sen's interval from Kendall's
    rank correlation: one slow round in six moves neither.
    """
    from scipy.stats import theilslopes

    points = [(each.began_s, log(value)) for each in rounds if (value := read(each))]
    if len(points) < _FEWEST:
        return None
    times, logs = zip(*points, strict=True)
    low = theilslopes(logs, times, alpha=_CONFIDENCE).low_slope
    return exp(float(low) * (times[-1] - times[0])) - 1


def round_of(results: Sequence[StageResult], began_s: float, seconds: float, scale: float) -> SoakRound:
    """One round's numbers.

    Args:
        results: Its stages.
        began_s: Since the soak began, in the engine's own seconds.
        seconds: How long it took, likewise.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    counted = [result for result in results if not result.superseded]
    records = [record for result in counted for record in result.records]
    answered = [record for record in records if record.completed]
    return SoakRound(
        began_s=began_s,
        seconds=seconds,
        requests=len(answered),
        failed=sum(record.failed for record in records),
        ttft_ms=_median(answered, lambda record: record.ttft_ms, scale),
        tpot_ms=_median(answered, tpot_ms, scale),
        preemptions=_total([each.engine.stage_preemptions for each in counted if each.engine]),
        cached_tokens=_total([_cached(result) for result in results]),
    )


def _median(
    records: Sequence[RequestRecord], read: Callable[[RequestRecord], float | None], scale: float
) -> float | None:
    values = [value for record in records if (value := read(record)) is not None]
    return median(values) * scale if values else None


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _cached(result: StageResult) -> float | None:
    """Tokens that a stage put into the KV cache: without those that were in it, by the share of its steady part."""
    engine = result.engine
    if engine is None or engine.stage_prompt_tokens is None or engine.stage_generation_tokens is None:
        return None
    hits = (engine.prefix_hits or 0.0) / engine.prefix_queries if engine.prefix_queries else 0.0
    return engine.stage_prompt_tokens * (1 - hits) + engine.stage_generation_tokens
