"""Requests that keep all that was promised of each: goodput, as ``vllm bench serve --goodput`` defines it.

A request that failed keeps nothing, and counts in the share. The rate counts parts: what of a good answer arrived in
the steady window, over the answer; without a window it is the good answers over the stage's time, as in vLLM.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev

from tuner.load.doubts import Doubt
from tuner.load.intervals import Interval, in_blocks
from tuner.load.records import RequestRecord
from tuner.load.shapes import Slo
from tuner.load.steady import student_t
from tuner.load.timing import tpot_ms
from tuner.load.workload import Workload

_FEWEST_BLOCKS = 3
_Z = 1.96


def keeps(record: RequestRecord, promise: Slo, scale: float) -> bool:
    """Whether a request was answered within all of its limits; an answer of one token has no TPOT to exceed.

    Args:
        record: The request.
        promise: Its limits, in the engine's own milliseconds.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    read = ((promise.ttft_ms, record.ttft_ms), (promise.tpot_ms, tpot_ms(record)), (promise.e2e_ms, record.e2e_ms))
    return record.completed and all(limit is None or value is None or value * scale <= limit for limit, value in read)


def good(record: RequestRecord, workload: Workload, scale: float) -> bool:
    """Whether a request keeps what the workload promises of it; one of which nothing is promised does."""
    promise = workload.promise(record.request.traffic)
    return record.completed and (promise is None or keeps(record, promise, scale))


def untold(workload: Workload, traffic: str | None, unknown: Doubt) -> bool:
    """Whether a stage's answers leave unknown what is promised of them."""
    names = [each.name for each in workload.kinds] if traffic is None else [traffic]
    promises = [promise for name in names if (promise := workload.promise(name))]
    no_ttft = unknown.no_times and any(each.ttft_ms for each in promises)
    return no_ttft or (unknown.no_tpot and any(each.tpot_ms for each in promises))


def share_interval(records: Sequence[RequestRecord], kept: Sequence[bool], streams: int) -> Interval | None:
    """The interval of the share that was kept.

    Wilson's, as if requests knew nothing of each other, and that of the means of blocks, which were served together:
    the wider of the two at each end.

    Args:
        records: The requests.
        kept: Of each, whether it kept its limits.
        streams: Users of the stage.

    Returns:
        ``None`` with fewer than three rounds of the users.
    """
    by_record = {id(record): float(each) for record, each in zip(records, kept, strict=True)}
    shares = [mean(by_record[id(record)] for record in block) for block in in_blocks(records, streams)]
    if len(shares) < _FEWEST_BLOCKS:
        return None
    n, share = len(records), mean(map(float, kept))
    half = student_t(len(shares) - 1) * stdev(shares) / sqrt(len(shares))
    low, high = _wilson(share, n)
    return Interval(max(0.0, min(low, share - half)), min(1.0, max(high, share + half)), n)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval for a share of n, 95 %: it has a width also where all or none were kept."""
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return center - half, center + half
