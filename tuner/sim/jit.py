"""Kernels compiled just in time: the first requests after a start wait for them.

At the first user's site the first request after a restart took 1.7 s with a filled cache and 10 to 14 s without; on the
H100 the first benchmark after a start read 22–37 % low. What a batch of a new size compiles is compiled once.
"""

from tuner.sim.roofline import StepShape
from tuner.sim.settings import Settings

NEW_SIZE_SHARE = 0.03
"""What a further size of prefill costs, as a share of the first one's wait."""


class Jit:
    """What this launch has compiled so far.

    Args:
        settings: The engine's configuration; a cold compile cache makes for longer waits.
    """

    def __init__(self, settings: Settings) -> None:
        times = settings.site.hardware.startup
        self._first_s = times.jit_warm_s if settings.warm else times.jit_cold_s
        self._seen: set[int] = set()

    def stall_s(self, shape: StepShape) -> float:
        """How long this batch waits for kernels, in seconds; nothing once its size was seen."""
        if not shape.prefill_tokens:
            return 0.0
        size = shape.tokens.bit_length() // 2
        if size in self._seen:
            return 0.0
        share = NEW_SIZE_SHARE if self._seen else 1.0
        self._seen.add(size)
        return self._first_s * share
