"""How often a setting that does nothing is held to matter, and how often one that does something is found.

    python -m tests.bench.effects [STUDIES]

Every study has a truth of its own (``tests.bench.drawn``), 24 launches of ``search=auto`` under normal noise, and three
controls. What it launched is then measured anew under other noise, several times. A change of the winner is held to
matter by the rule of a study: its interval excludes less than ``study.min_effect``. What is proven of the winner is
chosen as a study chooses it, too, where no memory and no limit has a say. The hints are those of vLLM, and as
often wrong of these truths as right.
"""

import os
import sys
from dataclasses import dataclass
from math import exp, log, log1p
from multiprocessing import get_context
from statistics import fmean, median

import numpy as np

from tests.bench.drawn import Drawn
from tuner.engines.registry import DEFAULT, ENGINES
from tuner.proof.estimate import Noise
from tuner.proof.noise import MetricReading, scatter
from tuner.search.base import Observation
from tuner.search.effects import Effects
from tuner.space import Candidate, SearchSpace
from tuner.study.parts import Parts
from tuner.testing.race import race

MIN_EFFECT, LEVEL, CONTROLS, LAUNCHES, AGAIN = 0.01, 0.05, 3, 24, 8
SEARCHED = "normal", 0.03
ROWS = [("lognormal", 0.01), ("lognormal", 0.03), ("lognormal", 0.06), ("bimodal", 0.03), ("outliers", 0.03)]
"""Shape of the noise and its standard deviation."""
FIRST = 1000
"""Seeds before were looked at when the prior was chosen, under other noise (normal, Student's t, two speeds)."""
_COLUMNS = ("nothing", "of", "3 %", "of", "10 %", "of", "25 %", "of", "covered", "width", "gain kept", "idle", "of")


@dataclass(frozen=True)
class Change:
    """One changed setting of a winner, in logs: what it truly earns, what is said of it, and whether it is proven."""

    truth: float
    low: float
    high: float
    proven: bool

    @property
    def kept(self):
        """Whether it is held to matter."""
        return self.low > log1p(MIN_EFFECT)


@dataclass(frozen=True)
class Study:
    """What was said of a study's winner, and which share of its gain is left with what is proven."""

    changes: tuple[Change, ...]
    left: float | None


def searched(seed):
    """What a study launches."""
    hill = Drawn(seed, noise=SEARCHED[1], shape=SEARCHED[0])
    race(hill, launches=LAUNCHES, seed=seed)
    _measure(hill, [hill.deployed] * CONTROLS, seed)
    return hill


def again(job):
    """The same launches under other noise, and what is said of the winner then."""
    hill, (shape, noise), turn = job
    other = Drawn(hill.seed, noise, shape)
    _measure(other, [params for params, value in hill.seen if value is not None], turn)
    return judged(other)


def _measure(hill, launches, turn):
    rng = np.random.default_rng((hill.seed, turn))
    for params in launches:
        hill.evaluate(params, rng)


def judged(hill):
    """What the launches of a landscape say of the best of them."""
    space = SearchSpace.model_validate(hill.space)
    groups: dict[str, tuple[Candidate, list[MetricReading]]] = {}
    for place, (params, value) in enumerate(hill.seen):
        if value is not None:
            candidate = space.candidate(params)
            groups.setdefault(candidate.digest, (candidate, []))[1].append(MetricReading(place, value))
    noise = scatter([readings for _, readings in groups.values()]).noise or Noise(0.03, 2.0)
    seen = [_observation(candidate, readings) for candidate, readings in groups.values()]
    deployed, winner = space.candidate(hill.deployed), max(seen, key=lambda each: each.values[0]).candidate
    names = list(space.changes(winner.params, deployed.params))
    effects = Effects(space, "maximize", seen, noise, ENGINES[DEFAULT].hints)

    def with_changes(kept):
        return space.candidate({**deployed.params, **{name: winner.params[name] for name in kept}})

    parts = Parts(names, with_changes, {"goal": effects}, log1p(MIN_EFFECT))
    proven = parts.kept(lambda kept: True) if names else []
    whole, found = hill.effect(winner.params), {name: parts.alone[name]["goal"] for name in names}
    truths = {name: whole - hill.effect({**winner.params, name: deployed.params[name]}) for name in names}
    changes = tuple(
        Change(truths[name], each.low, each.high, name in (proven or names)) for name, each in found.items()
    )
    left = hill.effect(with_changes(proven).params) / whole if proven and whole > 0.01 else None
    return Study(changes, left)


def _observation(candidate, readings):
    value = exp(fmean(log(reading.value) for reading in readings))
    return Observation(candidate, (value,), -0.5, launches=len(readings))


def row(studies):
    """The cells of a row."""
    changes = [change for each in studies for change in each.changes]
    left = [each.left for each in studies if each.left is not None]
    return [
        *_share([each for each in changes if abs(each.truth) < 1e-9]),
        *_share([each for each in changes if 0.02 < each.truth < 0.05]),
        *_share([each for each in changes if 0.09 < each.truth < 0.2]),
        *_share([each for each in changes if each.truth > 0.2]),
        f"{fmean(each.low <= each.truth <= each.high for each in changes):.0%}",
        f"{median(each.high - each.low for each in changes):.1%}",
        f"{fmean(left):.0%}" if left else "-",
        *_share([each for each in changes if abs(each.truth) < 1e-9], "proven"),
    ]


def _share(changes, what="kept"):
    return (f"{fmean(getattr(each, what) for each in changes):.1%}" if changes else "-"), str(len(changes))


def main():
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    print(f"{count} studies, measured anew {AGAIN} times a row: how often a change of the winner is held to matter,")
    print("by what it truly earns")
    print(f"{'':<24}" + "".join(f"{name:>10}" for name in _COLUMNS))
    with get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        hills = pool.map(searched, range(FIRST, FIRST + count), chunksize=1)
        _print(f"{SEARCHED[0]} {SEARCHED[1]:.0%}, as searched", pool.map(judged, hills))
        for noise in ROWS:
            jobs = [(hill, noise, turn) for hill in hills for turn in range(AGAIN)]
            _print(f"{noise[0]} {noise[1]:.0%}", pool.map(again, jobs))


def _print(name, studies):
    print(f"{name:<24}" + "".join(f"{cell:>10}" for cell in row(studies)), flush=True)


if __name__ == "__main__":
    main()
