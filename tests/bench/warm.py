"""Launches until a search is near the optimum, with and without an earlier study to begin with.

    python -m tests.bench.warm [SEEDS] [LANDSCAPE …] [EARLIER STUDY …]

The earlier study is a search of 20 launches on a landscape that is the same but for its scale and noise (``good``),
half another one (``shifted``), or the opposite: what is fast there is slow here.
"""

import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from statistics import fmean, median
from typing import Any

from tests.bench.drawn import Drawn
from tests.bench.landscapes import LANDSCAPES, optimum, worth
from tuner.search.source import Source, SourceReading
from tuner.space import SearchSpace
from tuner.testing.race import race

LAUNCHES, EARLIER, FIRST_SEED = 20, 20, 5000
ARMS = ("none", "good", "shifted", "opposite")
SCALE, NOISE = 2.5, 0.05
"""Of the earlier study: a faster card, and a noisier machine."""
_GOAL, _LIMITED = "output_tokens_per_s", "ttft_p50_ms"


@dataclass
class Earlier:
    """The landscape of an earlier study, and what its launches read.

    Attributes:
        hill: That of the new one.
        other: Another one, for what is not the same.
        arm: How the two are related.
    """

    hill: Any
    other: Any
    arm: str
    seen: list[tuple[dict[str, Any], dict[str, float]]] = field(default_factory=list)

    def __post_init__(self):
        self.space, self.deployed = self.hill.space, self.hill.deployed
        self.goals, self.limits = self.hill.goals, self.hill.limits

    @cached_property
    def base(self):
        """What the deployed configuration is worth, on both landscapes."""
        return self.hill.truth(self.deployed), self.other.truth(self.deployed)

    def evaluate(self, params, rng):
        """One launch."""
        truth = self.hill.truth(params)
        gain = math.log(truth[_GOAL] / self.base[0][_GOAL])
        if self.arm == "opposite" and not params["enforce_eager"]:
            gain = -gain
        if self.arm == "shifted":
            gain = 0.5 * gain + 0.5 * math.log(self.other.truth(params)[_GOAL] / self.base[1][_GOAL])
        speed = SCALE * self.base[0][_GOAL] * math.exp(gain)
        read = {_GOAL: speed * math.exp(NOISE * rng.normal()), _LIMITED: truth[_LIMITED] / SCALE}
        self.seen.append((dict(params), read))
        return read


def source(hill, other, arm, seed):
    """What such a study tells a new one; none without."""
    if arm == "none":
        return ()
    earlier = Earlier(hill, other, arm)
    race(earlier, launches=EARLIER, seed=seed)
    space, (_, first) = SearchSpace.model_validate(hill.space), earlier.seen[0]
    readings = [
        SourceReading(
            params=space.candidate(params).params,
            gain=math.log(read[_GOAL] / first[_GOAL]),
            beyond={_LIMITED: math.log(read[_LIMITED] / first[_LIMITED])},
        )
        for params, read in earlier.seen
    ]
    return (Source(name=arm, readings=tuple(readings)),)


def raced(case, arm):
    """Launches to within 2 and 5 % of the optimum, the best at 5, 10 and 20 launches, and CPU seconds an ask."""
    seed, hill, other = case
    begun_with = source(hill, other, arm, seed + 1000)
    began_s = time.process_time()
    launches = race(hill, launches=LAUNCHES, seed=seed, sources=begun_with)
    ask_s = (time.process_time() - began_s) / len(launches)
    _, best = optimum(hill)
    values = [0.0 if each.died else worth(hill, each.params) / best for each in launches]
    return (*(_first(values, share) for share in (0.98, 0.95)), *(max(values[:n]) for n in (5, 10, 20)), ask_s)


def _first(values, share):
    return next((n for n, value in enumerate(values, 1) if value >= share), LAUNCHES + 1)


def cases(name, seeds):
    """A landscape and another one for each seed."""
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    if name == "drawn":
        return [(seed, Drawn(seed), Drawn(seed + 10_000)) for seed in numbers]
    return [(seed, LANDSCAPES[name], LANDSCAPES["low ceiling"]) for seed in numbers]


def main():
    """Print a line for each landscape and earlier study."""
    seeds, asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:]
    names = [each for each in asked if each not in ARMS] or ["drawn", "saturating"]
    print(f"{seeds} seeds of {LAUNCHES} launches; {LAUNCHES + 1} means never")
    heads = ("to 2 %", "to 5 %", "at 5", "at 10", "at 20", "s an ask")
    print(f"{'':<24}" + "".join(f"{head:>10}" for head in heads))
    with ProcessPoolExecutor() as pool:
        for name in names:
            for arm in [each for each in asked if each in ARMS] or ARMS:
                found = list(zip(*pool.map(raced, cases(name, seeds), repeat(arm)), strict=True))
                cells = [*(f"{median(each):.0f}" for each in found[:2]), *(f"{fmean(each):.3f}" for each in found[2:5])]
                cells.append(f"{fmean(found[5]):.2f}")
                print(f"{name:<14}{arm:<10}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
