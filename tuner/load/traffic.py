"""The traffic that a server has, read off two of its ``/metrics`` pages, and the workload that is like it.

A histogram tells lengths up to the width of its buckets and their mean exactly; a page does not tell which requests
share a prefix or how regularly they come, and both are assumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import mean
from typing import Any

from tuner.load.counters import Page, parse
from tuner.load.lengths import draw
from tuner.load.shapes import Histogram, Length

_PROMPTS = ("vllm:request_prompt_tokens", "sglang:prompt_tokens_histogram")
_OUTPUTS = ("vllm:request_generation_tokens", "sglang:generation_tokens_histogram")
_NO_PREFIX = 0.02
"""Less than this share of the prompts is found in any cache, by chat templates alone."""
_MOST_HITS = 0.99
_DRAWN = 1000


@dataclass(frozen=True, slots=True)
class Buckets:
    """A Prometheus histogram, or the difference of two.

    Attributes:
        upto: How many values are at most each bound; the last bound is infinite.
        total: The sum of the values.
    """

    upto: Mapping[float, float]
    total: float

    @property
    def count(self) -> float:
        """Of values."""
        return self.upto.get(inf, 0.0)

    @property
    def mean(self) -> float:
        """Of the values."""
        return self.total / self.count

    def since(self, before: "Buckets") -> "Buckets":
        """What was counted after an earlier page."""
        counted = {bound: count - before.upto.get(bound, 0.0) for bound, count in self.upto.items()}
        return Buckets(counted, self.total - before.total)

    def length(self) -> Length:
        """As a workload writes it: one number where all values are in one bucket."""
        bounds = sorted(self.upto)
        counts = [self.upto[bounds[0]], *(self.upto[high] - self.upto[low] for low, high in pairwise(bounds))]
        filled = [place for place, count in enumerate(counts) if count > 0]
        if len(filled) == 1:
            return max(1, round(self.mean))
        first, last = max(0, filled[0] - 1), filled[-1] + 1
        known = [round(bound) if bound < inf else 2 * round(low) for low, bound in pairwise([0.0, *bounds])]
        kept = slice(first, last)
        whole = tuple(round(count) for count in counts[kept])
        return Histogram(kind="histogram", bounds=tuple(known[kept]), counts=whole, mean=round(self.mean, 2))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One page.

    Attributes:
        prompts: Lengths of the prompts of requests that have ended; ``None`` where there is no such histogram.
        outputs: Of their outputs.
        page: Its counters and gauges.
    """

    prompts: Buckets | None
    outputs: Buckets | None
    page: Page

    @classmethod
    def of(cls, text: str, at_ns: int) -> "Snapshot":
        """A page in Prometheus' text format."""
        return cls(buckets_of(text, _PROMPTS), buckets_of(text, _OUTPUTS), parse(text, at_ns))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came while a server was watched.

    Attributes:
        seconds: For how long.
        prompts: Lengths of the prompts of the requests that ended.
        outputs: Of their outputs.
        arrived: Requests that came, whether or not they have ended.
        running: Requests in the batch or the queue, in the mean.
        cached: Share of the prompts' tokens that the server found in its prefix cache.
    """

    seconds: float
    prompts: Buckets
    outputs: Buckets
    arrived: float
    running: float
    cached: float

    @classmethod
    def of(cls, readings: Sequence[Snapshot]) -> "Traffic":
        """Between the first page and the last; both have the histograms."""
        first, last = readings[0], readings[-1]
        assert first.prompts is not None
        assert first.outputs is not None
        assert last.prompts is not None
        assert last.outputs is not None
        prompts = last.prompts.since(first.prompts)
        queried = (last.page.prefix_queries or 0.0) - (first.page.prefix_queries or 0.0)
        hits = (last.page.prefix_hits or 0.0) - (first.page.prefix_hits or 0.0)
        return cls(
            seconds=(last.page.at_ns - first.page.at_ns) / 1e9,
            prompts=prompts,
            outputs=last.outputs.since(first.outputs),
            arrived=prompts.count + _open(last.page) - _open(first.page),
            running=mean(_open(reading.page) for reading in readings),
            cached=hits / queried if queried > 0 else 0.0,
        )

    @property
    def rate(self) -> float:
        """Requests that came in a second."""
        return self.arrived / self.seconds

    def workload(self) -> dict[str, Any]:
        """The keys of a workload that is like it, as YAML has them."""
        prompts, outputs = self.prompts.length(), self.outputs.length()
        shared = _prefix(prompts, self.cached)
        return {
            "arrivals": {"kind": "poisson", "rate": float(f"{max(self.rate, 0.001):.3g}")},
            "prompt_tokens": _plain(prompts),
            "output_tokens": max(2, outputs) if isinstance(outputs, int) else _plain(outputs),
            **({"prefix": shared} if shared else {}),
        }


def _open(page: Page) -> float:
    return (page.running or 0.0) + (page.waiting or 0.0)


def _plain(length: Length) -> Any:
    return length.model_dump(mode="json") if isinstance(length, Histogram) else length


def _prefix(prompts: Length, cached: float) -> dict[str, Any] | None:
    """A prefix of such a length that as many tokens are shared as were found in the cache.

    Half of what is not found is given to requests that bring a new prefix, the other half to what is their own.
    """
    if cached < _NO_PREFIX:
        return None
    hit_rate = min(_MOST_HITS, (1 + cached) / 2)
    drawn = [prompts] * 2 if isinstance(prompts, int) else draw(prompts, _DRAWN, "prefix")
    wanted, low, high = cached / hit_rate * sum(drawn), 1, max(drawn) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if sum(min(middle, each) for each in drawn) < wanted else (low, middle)
    return {"tokens": max(1, low), "hit_rate": round(hit_rate, 3)}


def buckets_of(text: str, names: Sequence[str]) -> Buckets | None:
    """A page's histogram, the sum over all of its engines and models; ``None`` if it has none of these names.

    Raises:
        ValueError: It cannot be read. Likewise ``IndexError``.
    """
    upto: dict[float, float] = {}
    total = 0.0
    for name in names:
        for labels, value in _samples(text, f"{name}_bucket"):
            bound = float(labels.partition('le="')[2].partition('"')[0])
            upto[bound] = upto.get(bound, 0.0) + value
        total += sum(value for _, value in _samples(text, f"{name}_sum"))
    return Buckets(upto, total) if inf in upto else None


def _samples(text: str, name: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " "):
            labels, _, value = line[len(name) :].rpartition("}")
            yield labels, float(value.split()[0])
