"""Whose turn it is: launches alternate, until one engine cannot win at any level any more.

What an engine's best could still reach is bounded by what its configurations read so far: the best of as many further
ones as launches are left, if they scatter as those before (a prediction bound of the normal distribution, on the log
scale), and never less than its best so far may truly be. What the other has is its best reading, less what noise may
have added to it. One percent of error is shared by all looks of a study, so that an engine is given up wrongly in one
study of a hundred at the most. A setting that would change everything and has not been tried is in no such bound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from tuner import words
from tuner.contest.levels import ConcurrencyLevel
from tuner.proof.reach import Reach
from tuner.records.outcome import Outcome

_ERROR = 0.01
"""How often an engine may be given up wrongly."""
_FEWEST = 4
"""Configurations of an engine before anything is said of what others could reach."""


@dataclass(frozen=True, slots=True)
class Share:
    """How an engine stands in the common budget.

    Attributes:
        name: The engine.
        launched: Launches of its search so far.
        over: Whether its space holds no other configuration.
        reaches: What it has read, by metric.
    """

    name: str
    launched: int
    over: bool
    reaches: Mapping[str, Reach]


def share_of(name: str, outcome: Outcome | None, levels: Sequence[ConcurrencyLevel]) -> Share:
    """How an engine stands; ``None`` for one that has not begun."""
    if outcome is None:
        return Share(name, 0, over=False, reaches={})
    goals = {metric: way for level in levels for metric, way in level.goals.items()}
    reaches = {metric: _reach(outcome, metric, 1 if way == "maximize" else -1) for metric, way in goals.items()}
    return Share(name, len(outcome.launched), outcome.over, reaches)


def _reach(outcome: Outcome, metric: str, sign: int) -> Reach:
    digests = dict.fromkeys(record.digest for record in outcome.searched if record.measurement)
    read = (outcome.readings.level(digest, metric) for digest in digests)
    known = outcome.readings.scatter(metric).noise
    return Reach([sign * log(value) for value in read if value], known and outcome.readings.noise(metric))


def turn(shares: Sequence[Share], levels: Sequence[ConcurrencyLevel], trials: int | None) -> str | None:
    """Whose launch is next; ``None`` when the budget is used up, or no engine has anything left to try.

    Args:
        shares: Both engines, in the order in which they are named.
        levels: Where they are compared.
        trials: Launches of both searches together; ``None`` if other limits count.
    """
    if trials is not None and sum(share.launched for share in shares) >= trials:
        return None
    able = [share for share in shares if not share.over and given_up(share, shares, levels, trials) is None]
    return min(able, key=lambda share: share.launched).name if able else None


def given_up(
    share: Share, shares: Sequence[Share], levels: Sequence[ConcurrencyLevel], trials: int | None
) -> str | None:
    """Why an engine gets no more launches; ``None`` if it does.

    Where only the hours are limited, as many further launches are assumed as were made.
    """
    launched = sum(each.launched for each in shares)
    whole = trials if trials is not None else 2 * launched
    error = _ERROR / max(1, whole)
    for other in shares:
        if other is not share:
            said = [_beaten(share, other, level, whole - launched, error) for level in levels]
            if said and all(said):
                return f"{share.name} gets no more launches, it cannot win any more: {'; '.join(map(str, said))}"
    return None


def _beaten(share: Share, other: Share, level: ConcurrencyLevel, launches: int, error: float) -> str | None:
    """By which numbers an engine cannot win at a level; ``None`` if it can."""
    said = []
    for metric, way in level.goals.items():
        own, best = share.reaches.get(metric), other.reaches.get(metric)
        noise = own and best and (own.noise or best.noise), own and best and (best.noise or own.noise)
        if not own or not best or len(own.logs) < _FEWEST or not best.logs or not noise[0] or not noise[1]:
            return None
        could, has = own.could(noise[0], max(0, launches), error), best.has(noise[1], error)
        if could >= has:
            return None
        sign, short = (1, "at most") if way == "maximize" else (-1, "at least")
        said.append(
            f"{words.metric(metric).short} {short} {_value(metric, sign * could)}, where {other.name} has "
            f"{_value(metric, sign * has)} beyond doubt"
        )
    return f"at {level.said} {' and '.join(said)}"


def _value(metric: str, log_value: float) -> str:
    return words.metric(metric).said(exp(min(log_value, 50.0)))
