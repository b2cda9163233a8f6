"""What a configuration allows at most, kept with its launch: where requests queue, and how fast memory can be read."""

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
