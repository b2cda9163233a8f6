"""How far off a number may be: 95 % intervals that allow for what neighbouring requests have in common.

A rate is the mean over equal slices of the steady window, its interval that of batch means (Student's t). A
percentile's is a cluster bootstrap: whole blocks of requests are drawn again, since those of one block were served
together. With few blocks the bootstrap is too narrow; it is widened to Hesterberg's expanded percentile interval (2015,
"What teachers should know about the bootstrap").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, mean, stdev
from typing import TYPE_CHECKING, Any, ClassVar

from tuner.load.records import RequestRecord, Window
from tuner.load.steady import MOST_BLOCKS, student_t

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEWEST = 3
_DRAWS = 500
_BINS = 1024


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a number is with a confidence of 95 %.

    Attributes:
        low: In the number's own unit.
        high: The same.
        n: The sample that carries the number: requests; for ITL the steps of the engine that its gaps span (gaps over
            users, since all streams share a step).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    low: float
    high: float
    n: int


def rate_interval(arrivals: Sequence[tuple[float, float]], window: Window, rounds: int, n: int) -> Interval | None:
    """The interval of a rate a second.

    Args:
        arrivals: When something arrived, inside the window or not, in milliseconds; and how much of it.
        window: The steady window.
        rounds: How many rounds of the users the window holds: as many slices, up to ``MOST_BLOCKS``.
        n: The requests behind it.

    Returns:
        ``None`` with fewer than three rounds.
    """
    import numpy as np

    count = min(rounds, MOST_BLOCKS)
    if count < _FEWEST:
        return None
    times, amounts = np.asarray(arrivals, dtype=np.float64).T
    sums, _ = np.histogram(times, bins=count, range=(window.start_ms, window.end_ms), weights=amounts)
    rates = [float(total) / ((window.end_ms - window.start_ms) / 1000 / count) for total in sums]
    half = student_t(count - 1) * stdev(rates) / sqrt(count)
    return Interval(mean(rates) - half, mean(rates) + half, n)


def percentile_interval(
    blocks: Sequence[Sequence[float]], percent: float, value: float, n: int, seed: int
) -> Interval | None:
    """The interval of a percentile.

    Args:
        blocks: The values of each block of requests.
        percent: Which percentile.
        value: Its estimate, which the interval always holds.
        n: The sample's size.
        seed: Of the bootstrap's draws.

    Returns:
        ``None`` with fewer than three blocks.
    """
    import numpy as np

    filled = [block for block in blocks if len(block)]
    if len(filled) < _FEWEST:
        return None
    values, counts = _binned(filled)
    draws = np.random.default_rng(seed).multinomial(len(filled), [1 / len(filled)] * len(filled), size=_DRAWS)
    totals = np.cumsum(draws @ counts, axis=1)
    places = np.argmax(totals >= totals[:, -1:] * percent / 100, axis=1)
    low, high = np.quantile(values[places], _tails(len(filled)))
    return Interval(min(float(low), value), max(float(high), value), n)


def _binned(blocks: Sequence[Sequence[float]]) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Values in ascending order, and how often each block has them; neighbours share a bin where there are many."""
    import numpy as np

    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    pooled = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    order = np.argsort(pooled, kind="stable")
    bins = np.arange(len(pooled)) * min(_BINS, len(pooled)) // len(pooled)
    counts = np.zeros((len(blocks), bins[-1] + 1))
    np.add.at(counts, (owner[order], bins), 1.0)
    return np.bincount(bins, weights=pooled[order]) / np.bincount(bins), counts


def _tails(blocks: int) -> tuple[float, float]:
    """The quantiles of the draws that make the interval."""
    tail = NormalDist().cdf(-student_t(blocks - 1) * sqrt(blocks / (blocks - 1)))
    return tail, 1 - tail


def in_blocks(records: Sequence[RequestRecord], streams: int) -> list[Sequence[RequestRecord]]:
    """Requests in the order of their sending, one block a round of the users, up to ``MOST_BLOCKS``."""
    ordered = sorted(records, key=lambda record: record.started_ms)
    count = min(len(ordered) // max(1, streams), MOST_BLOCKS)
    if not count:
        return [ordered] if ordered else []
    bounds = [len(ordered) * place // count for place in range(count + 1)]
    return [ordered[start:end] for start, end in pairwise(bounds)]
