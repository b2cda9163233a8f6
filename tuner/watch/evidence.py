"""When a server has been slower for long enough: a rule that seldom calls a sound one slow, however long it looks.

What is near in time is alike, so that five comparable stretches are one block, and what three of them say it says. Of a
server that does what was proven, a block is taken to be slower in at most half of all cases, and much slower in at most
one in ten, whatever was seen before: the margins are wider than that. Either is a bet against the server, in which the
evidence is multiplied by the ratio of how likely the block is if nine in ten are slower, and if the server is sound:
the mean of that is 1 at most. Evidence that never falls below 1 in between (a CUSUM, below Shiryaev and Roberts' sum)
then reaches 20,000 within n blocks with a probability of n in 20,000 at most, for both bets n in 10,000: 0.96 % in the
96 blocks of eight hours at a look a minute.
"""

from dataclasses import dataclass, field

_BLOCK = 5
_MOST = 3
"""Stretches of a block that are more than half of it."""
_IF_SLOWER = 0.9
_ENOUGH = 20_000.0
MUCH = 0.3
"""By which share slower is much slower."""


@dataclass(slots=True)
class _Bet:
    """Against a server of which at most a certain share of blocks is slower if it is sound."""

    if_sound: float
    against: float = 1.0

    def take(self, *, slower: bool) -> None:
        ratio = _IF_SLOWER / self.if_sound if slower else (1 - _IF_SLOWER) / (1 - self.if_sound)
        self.against = max(1.0, self.against) * ratio


@dataclass(slots=True)
class SlownessEvidence:
    """What the comparable stretches say against a server so far."""

    _slower: _Bet = field(default_factory=lambda: _Bet(0.5))
    _much: _Bet = field(default_factory=lambda: _Bet(0.1))
    _block: list[float] = field(default_factory=list)

    def take(self, slower_by: float) -> None:
        """One more stretch whose traffic was that of the proof.

        Args:
            slower_by: By which share it was slower than was proven, where that is beyond its margin; else 0.
        """
        self._block.append(slower_by)
        if len(self._block) == _BLOCK:
            self._slower.take(slower=sum(each > 0 for each in self._block) >= _MOST)
            self._much.take(slower=sum(each >= MUCH for each in self._block) >= _MOST)
            self._block.clear()

    @property
    def enough(self) -> bool:
        """Whether the server is slower than was proven."""
        return max(self._slower.against, self._much.against) >= _ENOUGH
