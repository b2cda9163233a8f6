"""What a configuration allows at most, kept with its launch: where requests queue, and how fast memory can be read."""

from math import log

from tuner.schema import Schema


class Ceilings(Schema):
    """Of all replicas together; what is null is not known."""

    sequences: int | None = None
    """Requests that run at once."""
    step_tokens: int | None = None
    """Tokens that one step of one replica computes."""
    users: int | None = None
    """Those of the workload's concurrent stage, as a closed loop has them."""
    tokens_per_s: float | None = None
    """What they get together at the most, if each step only read weights and KV cache at the memory's full speed."""
    alone_tokens_per_s: float | None = None
    """The same of one user alone."""

    @property
    def running_tokens_per_s(self) -> float | None:
        """What as many users get together at the most as run at once; ``None`` where that is not known.

        Between one user and all of them it is held to grow by a power of how many there are.
        """
        users, running = self.users or 0, self.sequences or 0
        if not self.tokens_per_s or not self.alone_tokens_per_s or not 0 < running < users:
            return self.tokens_per_s
        power = log(self.tokens_per_s / self.alone_tokens_per_s) / log(users)
        return float(self.alone_tokens_per_s * running**power)
