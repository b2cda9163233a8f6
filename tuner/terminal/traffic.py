"""A workload in the terminal: its lengths, arrivals and shared prefixes as small histograms."""

from collections.abc import Iterator, Sequence
from math import floor

from tuner.load.outline import Outline
from tuner.load.percentile import percentile
from tuner.load.wording import sending
from tuner.load.workload import Workload

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 48


def text(workload: Workload, stages: Sequence[Outline]) -> str:
    """The whole of it."""
    return "\n".join([f"{workload.name}: {sending(workload)}", *(line for stage in stages for line in _stage(stage))])


def _stage(stage: Outline) -> Iterator[str]:
    who = "an open loop" if stage.users is None else f"{stage.users} at once"
    more = ", then more of the same until it has measured enough" if stage.lasts else ""
    yield f"\n{stage.name}: {who}, {len(stage.prompts)} requests{more}"
    yield _row("prompt", "tokens", stage.prompts)
    yield _row("output", "tokens", stage.outputs)
    if stage.due_s:
        counts = histogram(stage.due_s)
        took = stage.due_s[-1] or 1.0
        yield f"  arrivals  {bars(counts)}  over {took:.3g} s, {(len(stage.due_s) - 1) / took:.3g} a second"
    if any(stage.shared):
        hits = sum(shared > 0 for shared in stage.shared) / len(stage.shared)
        yield f"  shared    {stage.shared_share:.0%} of all prompt tokens; {hits:.0%} of the requests begin as others"


def _row(name: str, unit: str, values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    if low == high:
        return f"  {name:<8}  {low:,} {unit} each"
    middle, late = (percentile(values, percent) or 0.0 for percent in (50, 95))
    return f"  {name:<8}  {bars(histogram(values))}  {low:,} to {high:,} {unit}, p50 {middle:,.0f}, p95 {late:,.0f}"


def histogram(values: Sequence[float], bins: int = _WIDTH) -> list[int]:
    """How many of the values are in each of as many equal parts of their range."""
    low, high, counts = min(values), max(values), [0] * bins
    for value in values:
        counts[min(bins - 1, floor((value - low) / ((high - low) or 1) * bins))] += 1
    return counts


def bars(counts: Sequence[int]) -> str:
    """A line of bars; what is not empty is never blank."""
    top = max(counts) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)
