"""When a stage has measured enough, and which of its requests count: decided while it runs, without decoding anything.

The steady window of a stage begins when every user has finished its first request (the ramp) and ends when the stage
decides to stop. Requests sent inside it are the sample. The users keep up the load with further requests until the
last one of the sample has been answered, so that none of them is measured on a server that runs empty; what is in
flight then is cut off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, median, stdev

from tuner.load.attempt import Attempt
from tuner.load.stage import Stage, StopRule

MOST_BLOCKS = 30
"""Neighbouring rounds are joined into as many blocks at most: longer blocks depend less on one another."""
FEWEST_BLOCKS = 4
"""With fewer the spread is a guess: no stage stops early on it."""
PATIENCE = 10
"""A sample that a percentile needs may take so many times ``most_s``; then the stage ends without it."""

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def student_t(freedom: int) -> float:
    """The 97.5th percentile of Student's t distribution: for a two-sided interval of 95 %.

    From the usual table up to 10 degrees of freedom, then 1.96 + 2.4/f + 3/f², which is less than 0.002 off.
    """
    return (
        _T[freedom - 1] if freedom <= len(_T) else 1.95996 + 2.3722 / freedom + 2.8225 / freedom**2 + 2.6 / freedom**3
    )


@dataclass(frozen=True, slots=True)
class Block:
    """One round of the users: as many answers as there are users.

    Attributes:
        rate: Reads a second that arrived in it, over all users: in proportion to tokens, as all answers are as long.
        ttft_s: Median over its requests; ``None`` if none could be told. Likewise the next one.
        tpot_s: From the first token's arrival to the last one's, over the asked tokens.
    """

    rate: float
    ttft_s: float | None
    tpot_s: float | None


def enough(rule: StopRule, elapsed_s: float, requests: int, blocks: Sequence[Block]) -> bool:
    """Whether a stage may stop.

    Args:
        rule: Of the stage.
        elapsed_s: Since its steady window began.
        requests: Of the sample that have been answered.
        blocks: All whole rounds so far.
    """
    if requests < rule.least_requests:
        return elapsed_s >= PATIENCE * rule.most_s
    if elapsed_s < rule.least_s:
        return False
    return elapsed_s >= rule.most_s or _precise(rule, blocks)


def _precise(rule: StopRule, blocks: Sequence[Block]) -> bool:
    """Whether the interval of every deciding quantity is as tight as it must be."""
    columns = (
        (rule.rate, [block.rate for block in blocks]),
        (rule.ttft, [block.ttft_s for block in blocks]),
        (rule.tpot, [block.tpot_s for block in blocks]),
    )
    return all(wanted is None or _spread([v for v in values if v is not None]) <= wanted for wanted, values in columns)


def _spread(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the blocks' mean, over that mean; infinite while nobody can know."""
    joined = join(values)
    if len(joined) < FEWEST_BLOCKS or not (middle := mean(joined)):
        return float("inf")
    return student_t(len(joined) - 1) * stdev(joined) / sqrt(len(joined)) / middle


def join(values: Sequence[float]) -> list[float]:
    """Means over neighbours, so that at most ``MOST_BLOCKS`` are left; a last group that is not whole is dropped."""
    size = -(-len(values) // MOST_BLOCKS) or 1
    return [mean(values[start : start + size]) for start in range(0, len(values) - size + 1, size)]


class Steady:
    """Follows the requests of one stage that lasts until it has measured enough.

    Args:
        stage: Which stage; it has a stop rule.
        rule: That rule.

    Attributes:
        start_ns: When the steady window began; ``None`` before. Likewise ``end_ns``.
    """

    def __init__(self, stage: Stage, rule: StopRule) -> None:
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._stage = stage
        self._rule = rule
        self._ramping = set(range(stage.streams))
        self._in_flight: dict[int, Attempt] = {}
        self._blocks: list[Block] = []
        self._round: list[Attempt] = []
        self._answered = 0
        self._reads_done = 0
        self._boundary = (0, 0)

    @property
    def over(self) -> bool:
        """Whether the window has ended and all of its requests have been answered."""
        return self.end_ns is not None and not any(map(self._counts, self._in_flight.values()))

    def sent(self, attempt: Attempt) -> None:
        """A request is about to be sent."""
        self._in_flight[attempt.index] = attempt

    def done(self, attempt: Attempt, now_ns: int) -> None:
        """A request has been answered, or has failed."""
        del self._in_flight[attempt.index]
        self._reads_done += len(attempt.times_ns)
        if self.start_ns is None:
            self._ramping.discard(attempt.stream)
            if not self._ramping:
                self.start_ns, self._boundary = now_ns, (now_ns, self._reads())
        elif self.end_ns is None and self._counts(attempt):
            self._answer(attempt, self.start_ns, now_ns)

    def _counts(self, attempt: Attempt) -> bool:
        return self.start_ns is not None and self.start_ns <= attempt.sent_ns <= (self.end_ns or attempt.sent_ns)

    def _answer(self, attempt: Attempt, start_ns: int, now_ns: int) -> None:
        self._answered += 1
        self._round.append(attempt)
        if len(self._round) < self._stage.streams:
            return
        self._close_round(now_ns)
        if enough(self._rule, (now_ns - start_ns) / 1e9, self._answered, self._blocks):
            self.end_ns = now_ns

    def _close_round(self, now_ns: int) -> None:
        (then_ns, reads_then), self._boundary = self._boundary, (now_ns, self._reads())
        rate = (self._boundary[1] - reads_then) / ((now_ns - then_ns) / 1e9)
        looks = [(attempt, look) for attempt in self._round if (look := attempt.look())]
        ttfts = [(look.first_ns - attempt.sent_ns) / 1e9 for attempt, look in looks]
        tpots = [(look.last_ns - look.first_ns) / 1e9 / self._steps(attempt) for attempt, look in looks]
        self._blocks.append(Block(rate, median(ttfts) if ttfts else None, median(tpots) if tpots else None))
        self._round = []

    def _steps(self, attempt: Attempt) -> int:
        return max(1, self._stage.request(attempt.index).output_tokens - 1)

    def _reads(self) -> int:
        return self._reads_done + sum(len(attempt.times_ns) for attempt in self._in_flight.values())
