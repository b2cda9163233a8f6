"""What the proof promises, by simulation: how often it calls equals different, and how many launches a gain needs.

Everything is decided by ``tuner.testing.decide``, which is the rule of a study. Each repeat has a seed of its own, by
its machine and its number, so that the same figures come out every time. ``--quick`` is the part that CI runs; a claim
that does not hold makes it fail.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import yaml

from tests.bench.noise import DRIFTS, SHAPES, Recorded, Simulated, recordings
from tuner.objective import Objective
from tuner.proof.rule import ALPHA
from tuner.testing import decide

SPEED, TPOT = "output_tokens_per_s", "tpot_p50_ms"
OBJECTIVE = Objective.model_validate(
    yaml.safe_load((Path(__file__).parents[2] / "conf/objective/throughput.yaml").read_text())
)
SDS = (0.01, 0.03, 0.08, 0.15)
MOST = 8
CANDIDATES = 20
FIRST_SHARE = 0.8
"""Of what is left of alpha, for each proof of a study."""
FALSE, COVERED = 0.025, 0.94
FULL, QUICK = 2000, 200
CONTROLS, MANY = 5, 21
"""Earlier launches of one configuration from which its noise is known: as a study's controls are, and as a server's
that is watched for long."""


@dataclass(frozen=True)
class Claim:
    """A figure's target.

    Attributes:
        figure: An attribute of ``Tally``.
        target: What is promised.
        most: Whether the figure must be at most that, else at least.
        chance: Whether chance is allowed for: two standard errors (3.2 % counts as 2.5 % in 2,000 repeats), and four
            where there are fewer repeats; there the mean of all rows is what tells.
    """

    figure: str
    target: float
    most: bool = False
    chance: bool = False

    def holds(self, tally):
        """Whether the figure keeps its target."""
        value, room = getattr(tally, self.figure), self._room(tally.repeats) if self.chance else 0.0
        return value <= self.target + room if self.most else value >= self.target - room

    def _room(self, repeats):
        return round((2 if repeats >= FULL else 4) * sqrt(self.target * (1 - self.target) / repeats), 3)

    def __str__(self):
        number = f"{self.target:.1%}" if self.figure != "launches" else f"{self.target:g}"
        return f"{self.figure} {'≤' if self.most else '≥'} {number}"


RARELY = Claim("found", FALSE, most=True, chance=True)
FEW = Claim("launches", 5, most=True)
COVERS = Claim("coverage", COVERED, chance=True)


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    Attributes:
        name: What is compared.
        noise: The machine.
        ratios: The candidate's true figures over the baseline's.
        limited: Whether under the default limits; else there are none.
        most: Launches of each at the most.
        pooled: From how many earlier launches of one configuration the noise is known besides.
        study: A whole study of ``CANDIDATES`` such candidates, and not a single proof.
        claims: What is promised of it.
    """

    name: str
    noise: Simulated | Recorded
    ratios: Mapping[str, float] = field(default_factory=dict)
    limited: bool = False
    most: int = MOST
    pooled: int = 0
    study: bool = False
    claims: tuple[Claim, ...] = (COVERS,)

    def repeats(self, asked):
        """So many as asked for; all where a claim leaves nothing to chance, and more where few launches weigh much."""
        if self.equal and isinstance(self.noise, Recorded):
            return max(asked, 4 * FULL)
        return asked if all(claim.chance for claim in self.claims) else max(asked, FULL)

    @property
    def equal(self):
        """Whether the two are equal, and that is what must be found."""
        return RARELY in self.claims and not self.ratios

    @property
    def metrics(self):
        """What a launch measures."""
        return (SPEED, *self.limits)

    @property
    def limits(self):
        """The limits by metric."""
        return OBJECTIVE.limits if self.limited else {}


@dataclass(frozen=True)
class Tally:
    """What many repeats of a scenario came to, as shares of them.

    Attributes:
        repeats: How many.
        found: In how many a configuration was called better.
        old: The same by the rule that there was before.
        coverage: Intervals that hold the truth, of all proofs, whatever they ended with.
        launches: Of each configuration in a proof, on average.
        relaunches: All of a proof or a study, on average.
    """

    repeats: int
    found: float
    old: float
    coverage: float
    launches: float
    relaunches: float


def run(scenario, repeats):
    """Repeat a scenario."""
    results = [_study(scenario, repeat) if scenario.study else [_proof(scenario, repeat)] for repeat in range(repeats)]
    proofs = [decision for result in results for decision in result]
    truth = scenario.ratios.get(SPEED, 1.0) - 1
    return Tally(
        repeats=repeats,
        found=fmean(any(decision.kind == "better" for decision in result) for result in results),
        old=fmean(_old(scenario, repeat) for repeat in range(repeats)),
        coverage=fmean(decision.low <= truth <= decision.high for decision in proofs),
        launches=fmean(decision.launches for decision in proofs),
        relaunches=fmean(sum(2 * decision.launches for decision in result) for result in results),
    )


def _proof(scenario, repeat, *, alpha=ALPHA, proof="first"):
    dice = random.Random(f"{scenario.noise}: proof {proof} of {repeat}")
    machine = scenario.noise.machine(dice, 2 * scenario.most)
    baseline, candidate = _sources(scenario, machine)
    return decide(
        baseline,
        candidate,
        OBJECTIVE.goals,
        scenario.limits,
        max_launches=scenario.most,
        noise={name: machine.known(name, scenario.pooled) for name in scenario.metrics} if scenario.pooled else None,
        seed=repeat,
        alpha=alpha,
    )


def _sources(scenario, machine):
    equal = dict.fromkeys(scenario.metrics, 1.0)
    return (lambda: machine.launch(equal)), (lambda: machine.launch({**equal, **scenario.ratios}))


def _study(scenario, repeat):
    """The best reading of many candidates is proven, then that of the runner-up with what is left of alpha."""
    dice = random.Random(f"{scenario.noise}: search of {repeat}")
    machine = scenario.noise.machine(dice, CANDIDATES)
    _, candidate = _sources(scenario, machine)
    readings = [candidate()[SPEED] for _ in range(CANDIDATES)]
    ranked = sorted(range(CANDIDATES), key=readings.__getitem__, reverse=True)
    first = _proof(scenario, repeat, alpha=FIRST_SHARE * ALPHA, proof=ranked[0])
    if first.kind == "better":
        return [first]
    return [first, _proof(scenario, repeat, alpha=FIRST_SHARE * (ALPHA - first.spent), proof=ranked[1])]


def _old(scenario, repeat):
    """Whether the rule of before finds a gain: two launches of each, and means further apart than either's spread."""
    dice = random.Random(f"{scenario.noise}: old rule of {repeat}")
    baseline, candidate = _sources(scenario, scenario.noise.machine(dice, 4))
    first, one, two, last = baseline(), candidate(), candidate(), baseline()
    old, new = [first, last], [one, two]
    within = all(
        limit.violation(_mean(new, name), _mean(old, name)) <= _spread(old, new, name)
        for name, limit in scenario.limits.items()
    )
    return within and _mean(new, SPEED) / _mean(old, SPEED) - 1 > _spread(old, new, SPEED)


def _mean(launches, name):
    return fmean(launch[name] for launch in launches)


def _spread(old, new, name):
    return max(abs(a[name] - b[name]) for a, b in (old, new)) / _mean(old, name)


# the rows


def promises():
    """The rows of the table of which something is promised."""
    return [*_gains(), *_limited(), *_recorded(), *_equal()]


def scenarios():
    """All rows of the table."""
    return [*promises(), *_smallest()]


def _equal():
    for shape in SHAPES:
        for drift in DRIFTS:
            for sd in SDS:
                noise = Simulated(shape, sd, drift)
                yield Scenario("equals", noise, claims=(RARELY, COVERS))
                yield Scenario(f"{CANDIDATES} equals in a study", noise, study=True, claims=(RARELY, COVERS))
        for sd in SDS:
            yield Scenario("equals, noise pooled", Simulated(shape, sd), pooled=CONTROLS, claims=(RARELY, COVERS))


def _gains():
    noise = Simulated("lognormal", 0.03)
    yield _gain("+5 %", noise, 0.05, 0.80)
    yield _gain(f"+5 %, noise pooled from {CONTROLS}", noise, 0.05, 0.80, pooled=CONTROLS)
    yield _gain(f"+5 %, noise pooled from {MANY}", noise, 0.05, 0.85, pooled=MANY)
    yield _gain("+5 % within 10", noise, 0.05, 0.90, most=10)
    yield _gain("+10 % within 4", noise, 0.10, 0.90, most=4)
    yield _gain("+10 %", noise, 0.10, 0.90, FEW)
    yield _gain(f"+10 %, noise pooled from {CONTROLS}", noise, 0.10, 0.90, FEW, pooled=CONTROLS)


def _gain(name, noise, gain, target=None, *claims, **more):
    promised = (Claim("found", target),) if target else ()
    return Scenario(name, noise, {SPEED: 1 + gain}, claims=(*promised, *claims, COVERS), **more)


def _smallest():
    """How small a gain is found at which noise; nothing is promised."""
    for sd in SDS:
        for gain in (0.02, 0.03, 0.05, 0.10, 0.20, 0.40):
            yield _gain(f"{gain:+.0%}, how often", Simulated("lognormal", sd), gain)


def _limited():
    """Under the default limits: latencies that did not change; one that is at its limit, or a tenth beyond it."""
    limit = OBJECTIVE.limits[TPOT].max
    assert limit is not None
    for sd, target in ((0.03, 0.80), (0.08, None)):
        yield _gain("+10 %, latencies equal, limits", Simulated("lognormal", sd), 0.10, target, limited=True)
    for shape in SHAPES:
        for sd in SDS:
            noise = Simulated(shape, sd)
            yield _breaking("TPOT 10 % over its limit", noise, 1.1 * limit)
            yield _breaking("TPOT at its limit, noise pooled", noise, limit, pooled=CONTROLS)


def _breaking(name, noise, tpot, **more):
    ratios = {SPEED: 1.5, TPOT: tpot}
    return Scenario(f"+50 %, {name}", noise, ratios, limited=True, claims=(RARELY, COVERS), **more)


def _recorded():
    for name in recordings():
        yield Scenario("equals", Recorded(name), claims=(RARELY, COVERS))
        yield Scenario(f"{CANDIDATES} equals in a study", Recorded(name), study=True, claims=(RARELY, COVERS))
        yield _gain("+10 %", Recorded(name), 0.10)
        yield _gain("+10 %, latencies equal, limits", Recorded(name), 0.10, limited=True)


# the table

_COLUMNS = (
    f"{'':<48}{'noise':<28}{'found':>8}{'old rule':>10}{'coverage':>10}{'launches':>10}{'relaunches':>12}  claims"
)


def _line(scenario, tally):
    figures = f"{tally.found:>8.1%}{tally.old:>10.1%}{tally.coverage:>10.1%}{tally.launches:>10.1f}"
    claims = ", ".join(f"{claim}{'' if claim.holds(tally) else ' DOES NOT HOLD'}" for claim in scenario.claims)
    return f"{scenario.name:<48}{scenario.noise!s:<28}{figures}{tally.relaunches:>12.1f}  {claims}"


def _job(job):
    return run(*job)


def table(rows, repeats):
    """Print a line a row as it is known; whether all claims hold."""
    print(
        f"{repeats:,} repeats a row ({FULL:,} where no chance is allowed for). launches: of each of the two in a proof,"
    )
    print("relaunches: all of a proof or study, on average")
    print(_COLUMNS)
    held, tallies = [], []
    with get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        for scenario, tally in zip(rows, pool.imap(_job, [(row, row.repeats(repeats)) for row in rows]), strict=True):
            print(_line(scenario, tally), flush=True)
            held += [claim.holds(tally) for claim in scenario.claims]
            tallies += [tally] if scenario.equal else []
    held += _together(tallies)
    print(f"{sum(held)} of {len(held)} claims hold")
    return all(held)


def _together(tallies):
    """All rows of equals as one, which tells more than any of them: whether its claim holds, if there are any."""
    if not tallies:
        return []
    repeats = sum(tally.repeats for tally in tallies)
    found = sum(tally.found * tally.repeats for tally in tallies) / repeats
    print(f"equals called better in all of these rows: {found:.2%} of {repeats:,} (≤ {FALSE:.1%})")
    return [found <= FALSE]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} repeats, as in CI")
    parser.add_argument("--repeats", type=int, help=f"of each row; {FULL} unless given")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    asked, begun = parser.parse_args(), time.perf_counter()
    rows = [row for row in (promises() if asked.quick else scenarios()) if asked.only in f"{row.name} {row.noise}"]
    fine = table(rows, asked.repeats or (QUICK if asked.quick else FULL))
    print(f"in {time.perf_counter() - begun:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
