"""What was predicted of a launch's GPU memory before it, kept with what its log said afterwards."""

from tuner.schema import Schema


class Forecast(Schema):
    """The memory model's best guess, for the fullest GPU; what is null could not be predicted."""

    starts: int
    """How many earlier starts it had learned from."""
    margin_gib: float | None = None
    """How much more KV cache there may have been, before a shortage was believed."""
    requested_gib: float | None = None
    """The share of the GPU that was asked for."""
    weights_gib: float | None = None
    activation_gib: float | None = None
    """Peak of the profiling run, in addition to the weights."""
    non_torch_gib: float | None = None
    graph_gib: float | None = None
    sampler_gib: float | None = None
    """The sampler's buffers, for every sequence."""
    kv_gib: float | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    """How many requests of full length the KV cache holds."""
    shortage: str | None = None
    """The allocation that would fail first."""
