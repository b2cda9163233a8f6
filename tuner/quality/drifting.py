"""How far apart two servers' log probabilities are, which can be seen before another token becomes the likeliest.

Compared is what both say of the first server's tokens, as long as they have said the same: behind the place where two
answers part, the same token answers another text. An answer's distance is the mean of the differences, in nats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from tuner.quality.asking import Completion

Which = Literal["first", "second"]


@dataclass(frozen=True, slots=True)
class Distances:
    """Of one answer, in nats.

    Attributes:
        name: The question.
        own: From the first server's answer to its own second one.
        other: From it to the second server's.
    """

    name: str
    own: float
    other: float


def distances(
    first: Sequence[Completion], again: Sequence[Completion], second: Sequence[Completion]
) -> tuple[Distances, ...]:
    """One of each question that has log probabilities in all three answers."""
    found = (
        (one.name, _distance(one, own), _distance(one, other))
        for one, own, other in zip(first, again, second, strict=True)
    )
    return tuple(Distances(name, own, other) for name, own, other in found if own is not None and other is not None)


def without(first: Sequence[Completion], second: Sequence[Completion]) -> tuple[Which, ...]:
    """Which of two servers gave no log probabilities at all."""
    sides: tuple[tuple[Which, Sequence[Completion]], ...] = (("first", first), ("second", second))
    return tuple(which for which, answers in sides if not any(each.tokens for each in answers))


def _distance(one: Completion, other: Completion) -> float | None:
    gaps = list(_gaps(one, other))
    return fmean(gaps) if gaps else None


def _gaps(one: Completion, other: Completion) -> Iterator[float]:
    for mine, theirs in zip(one.tokens, other.tokens, strict=False):
        known = theirs.of(mine.token)
        if known is not None:
            yield abs(mine.logprob - known)
        if theirs.token != mine.token:
            return
