"""Launches until a search has come near the optimum, on landscapes whose truth is known.

    python -m tests.bench.search [SEEDS] [KIND …]

``unhinted`` and ``misled`` are ``auto`` with other hints, ``live`` is ``auto`` where servers can be changed while they
run.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import count, repeat
from statistics import fmean, median
from typing import cast

from tests.bench.drawn import Drawn
from tests.bench.landscapes import LANDSCAPES, Hill, live, optimum, worth
from tuner.engines.base import Hints
from tuner.engines.registry import DEFAULT, ENGINES
from tuner.testing.race import Kind, race

LAUNCHES = 40
TOLD = ENGINES[DEFAULT].hints
HINTS = {"unhinted": Hints(), "misled": replace(TOLD, slow={**TOLD.slow, "async_scheduling": True})}
"""Arms of ``auto`` that are told nothing, or the wrong sign of one parameter: asynchronous scheduling gains here."""
_COLUMNS = ("to 2 %", "p90", "to 5 %", "p90", "minutes", "dead", "at 10", "at 20", "at 40", "told at 20", "s an ask")


def row(hills, kind):
    """What the seeds came to, each on its hill and in a process: medians of launches, means of the rest."""
    near, nearer, dead, told, minutes = [], [], [], [], []
    at: dict[int, list[float]] = {10: [], 20: [], 40: []}
    with ProcessPoolExecutor() as pool:
        raced = list(pool.map(_raced, hills, repeat(kind), count()))
    for hill, (launches, _) in zip(hills, raced, strict=True):
        _, best = optimum(hill)
        values = [0.0 if each.died else worth(hill, each.params) / best for each in launches]
        nearer.append(_first(values, 0.98))
        near.append(_first(values, 0.95))
        dead.append(fmean(each.died for each in launches))
        for most, found in at.items():
            found.append(max(values[:most]))
        minutes.append(sum(each.seconds for each in launches[: _first(values, 0.98)]) / 60)
        told.append(worth(hill, launches[min(20, len(launches)) - 1].recommended) / best >= 0.95)
    return [
        *(f"{median(nearer):.0f}", f"{_p90(nearer):.0f}", f"{median(near):.0f}", f"{_p90(near):.0f}"),
        f"{median(minutes):.0f}",
        f"{fmean(dead):.1%}",
        *(f"{fmean(found):.3f}" for found in at.values()),
        f"{fmean(told):.0%}",
        f"{fmean(seconds for _, seconds in raced):.2f}",
    ]


def _raced(hill, kind, seed):
    """One study, and the CPU seconds of each of its proposals."""
    begun = time.process_time()
    search = cast(Kind, "auto" if kind in ("live", *HINTS) else kind)
    landscape = live(hill) if kind == "live" else hill
    launches = race(landscape, search=search, launches=LAUNCHES, seed=seed, hints=HINTS.get(kind))
    return launches, (time.process_time() - begun) / len(launches)


def _first(values, share):
    return next((n for n, value in enumerate(values, 1) if value >= share), LAUNCHES + 1)


def _p90(found):
    return sorted(found)[int(0.9 * (len(found) - 1))]


def main():
    """Print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    kinds = sys.argv[2:] or ["auto", "live", *HINTS, "tpe", "random"]
    print(f"launches of {LAUNCHES} until the optimum is near, {seeds} seeds; {LAUNCHES + 1} means never")
    print(f"{'':<24}" + "".join(f"{name:>11}" for name in _COLUMNS))
    landscapes: dict[str, list[Hill | Drawn]] = {name: [hill] * seeds for name, hill in LANDSCAPES.items()}
    landscapes["drawn"] = [Drawn(seed) for seed in range(2000, 2000 + seeds)]  # no constant was chosen on them
    for name, hills in landscapes.items():
        for kind in (kind for kind in kinds if name != "drawn" or kind != "live"):
            print(f"{name:<16}{kind:<8}" + "".join(f"{cell:>11}" for cell in row(hills, kind)), flush=True)


if __name__ == "__main__":
    main()
