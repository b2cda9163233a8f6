"""When an open loop sends: made before the clock starts, from gaps whose sum is scaled to what the rate asks for.

Scaled so, a schedule of n requests lasts exactly as long as n requests at that rate, and Poisson arrivals stay Poisson:
given their number, they are as if thrown into that time at random. A ramp bends the time: as many requests fall into a
moment as its rate says.
"""

import random
from collections.abc import Iterator
from itertools import accumulate, islice
from math import sqrt

from tuner.load.shapes import Arrivals


def schedule(arrivals: Arrivals, rate: float, requests: int, seed: str) -> tuple[float, ...]:
    """When to send each request, in seconds since the stage began; the first one at once.

    Args:
        arrivals: Their shape.
        rate: Requests a second, at the beginning.
        requests: How many.
        seed: Of the gaps.
    """
    gaps = list(islice(_gaps(arrivals, random.Random(seed)), requests))
    moments = accumulate(gaps[:-1], initial=0.0)
    until = arrivals.until_rate or rate
    lasts_s = 2 * requests / (rate + until)
    return tuple(_bent(moment / sum(gaps), rate, until) * lasts_s for moment in moments)


def _gaps(arrivals: Arrivals, rng: random.Random) -> Iterator[float]:
    shapes = {"poisson": 1.0, "gamma": arrivals.burstiness}
    while True:
        yield rng.gammavariate(shapes[arrivals.kind], 1.0) if arrivals.kind in shapes else 1.0


def _bent(share: float, start: float, end: float) -> float:
    """The share of the time after which this share of the requests has been sent, with a rate that grows evenly."""
    if start == end:
        return share
    return (sqrt(start**2 + share * (end**2 - start**2)) - start) / (end - start)
