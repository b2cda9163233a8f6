"""What a start needs once its KV cache is allocated: workspaces and the sampler's warm-up, as starts have shown.

No line of a log tells how much that is; a start tells whether it fitted into the room that was left. Each start that
came up bounds the need from above, each that ran out of memory from below, and two things follow for the next one:

- which share of what the formulas give is likely. One share holds for all configurations, but for ``SHAPE``, by which
  two of them differ though the formulas say the same; its distribution is that of a probit regression over all starts.
  What rules a candidate out is smaller by a margin: as far as those starts were off that were likely to fail.
- what is known to fail: needs are monotone, so that whatever needs at least as much of everything as a start that
  failed, and has no more room, fails as well.
"""

import math
from dataclasses import dataclass, field

from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.memory.margins import margin
from tuner.engines.vllm.memory.sizes import Sizes

PRIOR, FLOOR = 0.5, 0.05
"""The margin before any start, and the least: the sampler's bare buffers are certain, what they leave unusable is not.
Without any of that the share is 0.43."""
SPREAD = 0.38
"""Standard deviation of the share's logarithm before any start."""
SHAPE = 0.2
"""Standard deviation by which the share of one configuration differs from that of another."""
_HALVINGS = 12
_SHARES = tuple(math.exp(step / 20) for step in range(-46, 29))


@dataclass(frozen=True, slots=True)
class Need:
    """What is needed after the KV cache, by the formulas, in GiB.

    Attributes:
        workspace_gib: The experts' or TRITON_MLA's workspace.
        gather_gib: What MLA's prefill gathers.
        warm_up_gib: The sampler's warm-up.
        batch_tokens: Tokens of a batch, for what the formulas do not know of.
    """

    workspace_gib: float
    gather_gib: float
    warm_up_gib: float
    batch_tokens: int = 0

    @classmethod
    def of(cls, sizes: Sizes, demand: Demand) -> "Need":
        """The need of these sizes."""
        workspace_gib = max(sizes.kept_gib, sizes.split_kv_gib)
        return cls(workspace_gib, sizes.gather_gib, sizes.warm_up_gib, demand.max_num_batched_tokens or 0)

    @property
    def gib(self) -> float:
        """All of it."""
        return self.workspace_gib + self.gather_gib + self.warm_up_gib

    def covers(self, other: "Need") -> bool:
        """Whether it is at least as large in everything."""
        mine = (self.workspace_gib, self.gather_gib, self.warm_up_gib, self.batch_tokens)
        others = (other.workspace_gib, other.gather_gib, other.warm_up_gib, other.batch_tokens)
        return all(one >= another for one, another in zip(mine, others, strict=True))


@dataclass
class Late:
    """What starts have shown of it."""

    _failed: list[tuple[Need, float]] = field(default_factory=list)
    _weights: list[float] = field(default_factory=lambda: [_density(math.log(share) / SPREAD) for share in _SHARES])
    _errors: list[float] = field(default_factory=list)
    _likely: float | None = None

    def learn(self, need: Need, room_gib: float, fitted: bool) -> None:
        """Note that a need did or did not fit into the room that was left for it."""
        if not fitted:
            self._failed.append((need, room_gib))
        if need.gib <= 0:
            return
        if self.likely * need.gib > room_gib:
            self._errors.append(1 - room_gib / (self.likely * need.gib) if fitted else 0.0)
        largest = max(room_gib / need.gib, _SHARES[0] / 2)
        below = [_below(largest, share) for share in _SHARES]
        seen = [chance if fitted else 1 - chance for chance in below]
        self._likely = None
        self._weights = [weight * max(chance, 1e-9) for weight, chance in zip(self._weights, seen, strict=True)]

    @property
    def likely(self) -> float:
        """The share that is as likely too large as too small."""
        if self._likely is None:
            self._likely = self._median()
        return self._likely

    @property
    def least(self) -> float:
        """The least share that the next configuration may have."""
        return self.likely * (1 - min(1.0, margin(self._errors, PRIOR, FLOOR)))

    def failed(self, need: Need, room_gib: float) -> float | None:
        """The room in which at most as much is known not to have fitted, where it is no less; ``None`` if none is."""
        rooms = (room for lesser, room in self._failed if need.covers(lesser) and room_gib <= room)
        return max(rooms, default=None)

    def _median(self) -> float:
        low, high = math.log(_SHARES[0]), math.log(_SHARES[-1])
        half = sum(self._weights) / 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = sum(w * _below(math.exp(middle), share) for w, share in zip(self._weights, _SHARES, strict=True))
            low, high = (middle, high) if below < half else (low, middle)
        return math.exp(low)


def _density(deviation: float) -> float:
    return math.exp(-(deviation**2) / 2)


def _below(bound: float, share: float) -> float:
    """How likely a configuration needs less than a bound, if this is the share."""
    return 0.5 * (1 + math.erf(math.log(bound / share) / SHAPE / math.sqrt(2)))
