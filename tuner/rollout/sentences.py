"""What was measured of a deployed service, and what changed since its proof, for a person."""

from collections.abc import Iterator, Sequence

from tuner import words
from tuner.rollout.holding import Held


def reading(held: Held) -> str:
    """One metric: ``output tokens/s 212 (proven 230, one more launch 221 to 240)``."""
    metric = words.metric(held.metric)
    between = f"{words.digits(held.low)} to {words.digits(held.high)}"
    return (
        f"{metric.short} {metric.said(held.measured)} (proven {words.digits(held.proven)}, one more launch {between})"
    )


def readings(found: Sequence[Held]) -> Iterator[str]:
    """A line for each metric."""
    for each in found:
        yield f"{'holds' if each.holds else 'FAILS':<6} {reading(each)}"
