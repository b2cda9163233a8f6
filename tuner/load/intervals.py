"""How far off a number may be: 95 % intervals that allow for what neighbouring requests have in common.

A rate is a ratio over rounds of the users, tokens over time, its interval that of regenerative simulation (Crane and
Lemoine, "An Introduction to the Regenerative Method", 1977; Student's t). Slices of equal time would not do: users who
wait for the same steps stay in step, and a slice holds the pause for their prompts once or twice. A percentile's is a
cluster bootstrap: whole blocks of requests are drawn again, since those of one block were served together. With few
blocks the bootstrap is too narrow; it is widened to Hesterberg's expanded percentile interval (2015, "What teachers
should know about the bootstrap").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from tuner.load.records import RequestRecord
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


def rate_interval(arrivals: Sequence[tuple[float, float]], bounds_ms: Sequence[float], n: int) -> Interval | None:
    """The interval of a rate a second.

    Args:
        arrivals: When something arrived, between the bounds or not, in milliseconds; and how much of it.
        bounds_ms: Where the steady window begins, where each round of the users ends, and where the window ends.
        n: The requests behind it.

    Returns:
        ``None`` with fewer than three rounds.
    """
    import numpy as np

    bounds = _joined(bounds_ms)
    count = len(bounds) - 1
    if count < _FEWEST:
        return None
    times, amounts = np.asarray(arrivals, dtype=np.float64).T
    sums, _ = np.histogram(times, bins=np.asarray(bounds), weights=amounts)
    seconds = np.diff(bounds) / 1000
    rate = float(sums.sum() / seconds.sum())
    error = sqrt(float(((sums - rate * seconds) ** 2).sum()) / (count * (count - 1))) / float(seconds.mean())
    half = student_t(count - 1) * error
    return Interval(rate - half, rate + half, n)


def _joined(bounds_ms: Sequence[float]) -> list[float]:
    """At most ``MOST_BLOCKS`` rounds: neighbours are one."""
    rounds = len(bounds_ms) - 1
    count = min(rounds, MOST_BLOCKS)
    return [bounds_ms[rounds * place // count] for place in range(count + 1)] if count > 0 else []


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
