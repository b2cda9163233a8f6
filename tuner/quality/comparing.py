"""Whether one server answers less rightly than another, by the same questions.

Where both are as good, a question that only one of them answers rightly is as likely the one's as the other's: the
exact sign test on such pairs (McNemar's), one-sided, each family of cases at its share of alpha (Bonferroni). Texts are
compared by how far they are the same, against how far the first server's own second answer is: what it does not repeat
itself counts for neither. That decides nothing: other kernels round otherwise, and another word may be as good. Where
both tell log probabilities, they are compared in the same way, which shows a drift that has not changed a word yet.
"""

from collections.abc import Sequence
from statistics import fmean

from tuner.proof.pairs import by_chance
from tuner.quality.asking import Completion
from tuner.quality.cases import Ask, Quality
from tuner.quality.drifting import Distances, Which, distances, without
from tuner.quality.judging import fault
from tuner.schema import Schema

SAME = "same text"
"""The family of all answers, word for word."""
LOG_PROBABILITIES = "log probabilities"
"""The family of all answers whose tokens have them."""
_SHOWN = 3


class Family(Schema):
    """Cases that are judged together."""

    name: str
    asked: int
    right: tuple[int, int]
    """Of the first server's answers, and of the second's."""
    lost: int
    """Right by the first server alone."""
    won: int
    """Right by the second alone."""
    p: float
    """How often as many or more would be lost if both were alike."""
    worse: bool
    """Whether that is too seldom to be believed."""
    decides: bool = True
    """Whether it makes the second server worse; else it is only told."""
    examples: tuple[str, ...] = ()
    """What was lost."""
    nats: tuple[float, float] | None = None
    """Of log probabilities, mean distance a token: the first server from itself, and the second from the first."""


class Compared(Schema):
    """What came of a comparison."""

    families: tuple[Family, ...]
    alpha: float
    unscored: tuple[Which, ...] = ()
    """The servers that give no log probabilities, so that answers are compared word for word alone."""

    @property
    def worse(self) -> tuple[Family, ...]:
        """The families in which the second server is worse."""
        return tuple(family for family in self.families if family.worse and family.decides)


def compared(
    quality: Quality, first: Sequence[Completion], again: Sequence[Completion] | None, second: Sequence[Completion]
) -> Compared:
    """Compare the answers to ``quality.asks()``.

    Args:
        quality: What was asked.
        first: The first server's answers, in order.
        again: The same server's when it was asked again; without them neither texts nor log probabilities are compared.
        second: The second server's.
    """
    asks = quality.asks()
    names = list(dict.fromkeys(ask.case.family for ask in asks))
    share = quality.alpha / (len(names) + quality.drift_refuses)
    found = [_judged(name, asks, first, second, share) for name in names]
    if again is None:
        return Compared(families=tuple(found), alpha=quality.alpha)
    found.append(_same_text(first, again, second, share))
    if told := distances(first, again, second):
        found.append(_drift(quality, told, share))
    scored = any(ask.scored for ask in asks)
    unscored = without(first, second) if scored and not told else ()
    return Compared(families=tuple(found), alpha=quality.alpha, unscored=unscored)


def _drift(quality: Quality, told: Sequence[Distances], alpha: float) -> Family:
    """Answers that are further from the first server's than its own second ones, by more than rounding explains."""
    allowed = quality.drift_nats
    lost = [each for each in told if each.other - each.own > allowed]
    won = sum(each.own - each.other > allowed for each in told)
    right = sum(each.own <= allowed for each in told), sum(each.other <= allowed for each in told)
    worst = sorted(lost, key=lambda each: each.own - each.other)
    examples = [f"{each.name}: {each.other:.3f} nats a token, {each.own:.3f} in its own repeat" for each in worst]
    family = _family(LOG_PROBABILITIES, len(told), right, len(lost), won, alpha, examples)
    nats = fmean(each.own for each in told), fmean(each.other for each in told)
    return family.model_copy(update={"decides": quality.drift_refuses, "nats": nats})


def _judged(
    name: str, asks: Sequence[Ask], first: Sequence[Completion], second: Sequence[Completion], alpha: float
) -> Family:
    faults = [
        (ask.name, fault(ask, one), fault(ask, two))
        for ask, one, two in zip(asks, first, second, strict=True)
        if ask.case.family == name
    ]
    lost = [f"{ask}: {two}" for ask, one, two in faults if one is None and two is not None]
    won = sum(one is not None and two is None for _, one, two in faults)
    right = sum(one is None for _, one, _ in faults), sum(two is None for _, _, two in faults)
    return _family(name, len(faults), right, len(lost), won, alpha, lost)


def _same_text(
    first: Sequence[Completion], again: Sequence[Completion], second: Sequence[Completion], alpha: float
) -> Family:
    lost, won = list[str](), 0
    for one, own, other in zip(first, again, second, strict=True):
        mine, theirs = _alike(one, own), _alike(one, other)
        won += theirs > mine
        if theirs < mine:
            lost.append(f"{one.name}: another text from character {theirs} on")
    equal = sum(map(_equal, first, again)), sum(map(_equal, first, second))
    return _family(SAME, len(first), equal, len(lost), won, alpha, lost).model_copy(update={"decides": False})


def _family(
    name: str, asked: int, right: tuple[int, int], lost: int, won: int, alpha: float, examples: Sequence[str]
) -> Family:
    p = by_chance(lost, won)
    shown = tuple(examples[:_SHOWN])
    return Family(name=name, asked=asked, right=right, lost=lost, won=won, p=p, worse=p <= alpha, examples=shown)


def _alike(one: Completion, other: Completion) -> int:
    mine, theirs = _text(one), _text(other)
    shorter = min(len(mine), len(theirs))
    return next((place for place in range(shorter) if mine[place] != theirs[place]), shorter)


def _equal(one: Completion, other: Completion) -> bool:
    return _text(one) == _text(other)


def _text(answer: Completion) -> str:
    return answer.reasoning + answer.content + "".join(map("".join, answer.calls))
