"""How often `tuner watch` calls a server slow that does what was proven, and how soon it finds one that is slower.

Eight hours at a look a minute, of users who are no closed loop: their rate wanders (autocorrelated, lognormal), bursts
of minutes bring three times as many, lengths are lognormal; the machine is slower at times (autocorrelated, and others
on it for a minute now and then). Each server has a proof of its own, made with users in a closed loop on such a
machine, in a few launches of winner and baseline, each of its own speed, as the launch that serves has. The rule of
evidence was made on the first five kinds of traffic under seeds below 100; the margin, which follows what the proof's
launches differ by, on launches that differ by 3 %, 5 % and 8 % and on hours that are 5 % slower, with four launches of
each and seeds below 40: the last kinds have other noise and other proofs.

python -m tests.bench.watch [--quick] [--seed 6000]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from multiprocessing import get_context

import numpy as np
from scipy.stats import binomtest

from tuner.watch.evidence import SlownessEvidence
from tuner.watch.holding import ProofFigures, WatchState
from tuner.watch.scatter import margin
from tuner.watch.stretch import MedianBucket, Stretch

QUICK, FULL = 100, 400
HOURS = 8
CLAIM = HOURS * 60 / 5 / 10_000 + 0.01
"""Of false alarms: by chance in so many looks, and because one launch in a hundred is slower than its margin."""
USERS = 5
_TICK_S, _MINUTE = 1.0, 60
_SLOTS = 64
_PREFILL_TOKENS_PER_S, _GAP_MS, _EACH = 8000.0, 15.0, 0.03
_PROMPT, _OUTPUT = 500, 128
# vLLM's own bounds, in milliseconds
_TTFT = np.array([1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 1e4, inf])
_ITL = np.array([10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2500, inf])


@dataclass(frozen=True)
class Scenario:
    """Users and a machine.

    Attributes:
        name: Of the traffic.
        slower: By which share of the proof's speed.
        load: Rate over the proof's.
        wander: Standard deviation of its log.
        bursts: How likely one begins in a minute.
        machine: Standard deviation of the log of its speed.
        launches: Likewise of a launch's own speed.
        clock: By how much slower it is in hours in which it is hot: every other one.
        proof: Launches of the winner in its proof, and as many of the baseline.
        found: Which share of slowness is looked for in the brief form.
    """

    name: str
    slower: float = 0.0
    load: float = 1.0
    wander: float = 0.2
    bursts: float = 0.0
    machine: float = 0.03
    launches: float = 0.03
    clock: float = 0.0
    proof: int = 4
    found: float = 0.15

    def named(self, slower: float) -> "Scenario":
        return replace(self, slower=slower)


TRAFFIC = (
    Scenario("rate as proven, wanders by 20 %"),
    Scenario("wanders by 40 %, machine by 5 %", wander=0.4, machine=0.05),
    Scenario("bursts of three times as many", bursts=0.05),
    Scenario("a tenth more than proven", load=1.1),
    Scenario("two thirds of what was proven", load=0.7),
)
LAUNCHES = (
    Scenario("launches differ by 1 %, machine by 2 %", launches=0.01, machine=0.02),
    Scenario("launches differ by 4 %, proofs of three", launches=0.04, proof=3),
    Scenario("launches differ by 7 %, proofs of six", launches=0.07, proof=6, found=0.3),
    Scenario("4 % slower every other hour, machine by 4 %", machine=0.04, clock=0.04, proof=5, found=0.3),
)
"""Launches that scatter less and more, which the margin follows."""
SLOWER = (0.15, 0.3, 0.6)


class Machines:
    """So many servers at once, each with users of its own; a look is what each did in a minute."""

    def __init__(self, scenario: Scenario, count: int, seed: int, rate: np.ndarray | None) -> None:
        self.scenario, self.rate, self.dice = scenario, rate, np.random.default_rng(seed)
        self.left = np.zeros((count, _SLOTS))
        self.begins = np.zeros((count, _SLOTS))
        self.backlog = np.zeros(count)
        self.log_rate = self.dice.normal(0, scenario.wander, count)
        self.log_speed = self.dice.normal(0, scenario.machine, count)
        self.burst = np.zeros(count, dtype=bool)
        self.others = np.zeros(count, dtype=bool)
        self.launch = self.dice.lognormal(0, scenario.launches, count) * (1 + scenario.slower)
        self.now_s = 0.0

    def _minute_begins(self) -> None:
        """A wandering rate forgets half in seven minutes, the machine's speed in fourteen."""
        count, own = len(self.backlog), self.scenario
        self.log_rate = 0.9 * self.log_rate + self.dice.normal(0, own.wander * (1 - 0.81) ** 0.5, count)
        self.log_speed = 0.95 * self.log_speed + self.dice.normal(0, own.machine * (1 - 0.9025) ** 0.5, count)
        self.burst = np.where(self.burst, self.dice.random(count) < 0.67, self.dice.random(count) < own.bursts)
        self.others = self.dice.random(count) < 0.02

    def look(self) -> dict[str, np.ndarray]:
        """A minute of all of them."""
        self._minute_begins()
        count = len(self.backlog)
        zero = np.zeros(count)
        told = {
            name: zero.copy() for name in ("answered", "arrived", "prompts", "outputs", "users", "tokens", "gaps_s")
        }
        told |= {"ttft": np.zeros((count, len(_TTFT))), "itl": np.zeros((count, len(_ITL)))}
        for tick in range(_MINUTE):
            if tick % (_MINUTE // 10) == 0:
                told["users"] += (self.left > 0).sum(axis=1) / 10
            self._arrive(told)
            self._generate(told)
            self.now_s += _TICK_S
        return told

    def _pace(self) -> np.ndarray:
        hot = 1 + self.scenario.clock * (self.now_s // 3600 % 2)
        return self.launch * np.exp(self.log_speed) * np.where(self.others, 1.3, 1.0) * hot

    def _arrive(self, told: dict[str, np.ndarray]) -> None:
        busy = (self.left > 0).sum(axis=1)
        if self.rate is None:
            coming = np.maximum(0, USERS - busy)
        else:
            rate = self.rate * np.exp(self.log_rate - self.scenario.wander**2 / 2) * np.where(self.burst, 3.0, 1.0)
            coming = np.minimum(self.dice.poisson(rate * _TICK_S), _SLOTS - busy)
        while (rows := np.nonzero(coming > 0)[0]).size:
            prompt = _lengths(self.dice, _PROMPT, rows.size, self.rate is None)
            output = np.maximum(2, _lengths(self.dice, _OUTPUT, rows.size, self.rate is None))
            seconds = prompt / _PREFILL_TOKENS_PER_S * self._pace()[rows]
            self.backlog[rows] += seconds
            ttft_s = self.backlog[rows] + 0.02 * self._pace()[rows]
            slot = (self.left[rows] <= 0).argmax(axis=1)
            self.left[rows, slot] = output
            self.begins[rows, slot] = self.now_s + ttft_s
            np.add.at(told["ttft"], (rows, np.searchsorted(_TTFT, ttft_s * 1000)), 1)
            told["prompts"][rows] += prompt
            told["outputs"][rows] += output
            told["arrived"][rows] += 1
            coming[rows] -= 1

    def _generate(self, told: dict[str, np.ndarray]) -> None:
        """Prefilling takes the time that generation has not; what is generated late shows in the gaps."""
        prefilled = np.minimum(self.backlog, _TICK_S)
        self.backlog -= prefilled
        live = (self.left > 0) & (self.begins <= self.now_s)
        users = live.sum(axis=1)
        gap_s = _GAP_MS / 1000 * (1 + _EACH * users) * self._pace()
        gap_s = gap_s / np.maximum(0.1, 1 - 0.5 * prefilled / _TICK_S) * self.dice.lognormal(0, 0.05, len(users))
        made = np.where(live, np.minimum(self.left, (_TICK_S / gap_s)[:, None]), 0.0)
        self.left -= made
        ended = live & (self.left <= 1e-9)
        self.left[ended] = 0.0
        tokens = made.sum(axis=1)
        told["answered"] += ended.sum(axis=1)
        told["tokens"] += tokens
        told["gaps_s"] += tokens * gap_s
        np.add.at(told["itl"], (np.arange(len(users)), np.searchsorted(_ITL, gap_s * 1000)), tokens)


def _lengths(dice: np.random.Generator, mean: int, count: int, fixed: bool) -> np.ndarray:
    return np.full(count, float(mean)) if fixed else mean * dice.lognormal(-0.18, 0.6, count)


def proofs(count: int, scenario: Scenario, seed: int = 1) -> list[ProofFigures]:
    """What each of so many proofs showed: a few launches of winner and baseline, five users in a closed loop."""
    each = scenario.proof
    own = Scenario("proof", wander=0.0, launches=scenario.launches, machine=scenario.machine)
    machines = Machines(own, 2 * each * count, seed, None)
    machines.look()
    looks = [machines.look() for _ in range(5)]
    whole = {name: np.sum([look[name] for look in looks], axis=0) for name in looks[0]}
    sides = np.arange(2 * each * count).reshape(count, 2, each)
    return [_figures(whole, winner, baseline) for winner, baseline in sides]


def _figures(whole: dict[str, np.ndarray], winner: np.ndarray, baseline: np.ndarray) -> ProofFigures:
    ttft, itl = (whole[name][winner].sum(axis=0) for name in ("ttft", "itl"))
    tpot_ms = 1000 * whole["gaps_s"] / whole["tokens"]
    return ProofFigures(
        medians_ms=(("ttft_p50_ms", _middle(ttft, _TTFT)), ("itl_p50_ms", _middle(itl, _ITL))),
        prompt_tokens=_PROMPT,
        output_tokens=_OUTPUT,
        users=USERS,
        per_s=float(whole["answered"][winner].sum()) / (len(winner) * 5 * 60),
        tpot_ms=float(1000 * whole["gaps_s"][winner].sum() / whole["tokens"][winner].sum()),
        margins={"mean": margin(tpot_ms[winner].tolist(), tpot_ms[baseline].tolist())},
    )


def _middle(counts: np.ndarray, bounds: np.ndarray) -> float:
    """A median as a proof has it, which knows each value: here by interpolation in its bucket."""
    upto, half = np.cumsum(counts), counts.sum() / 2
    place = int(np.searchsorted(upto, half))
    low = bounds[place - 1] if place else 0.0
    return float(low + (bounds[place] - low) * (half - (upto[place] - counts[place])) / counts[place])


def alarms(scenario: Scenario, figures: Sequence[ProofFigures], seed: int) -> list[int | None]:
    """The minute in which each server is said not to do what was proven of it; ``None`` for those never."""
    count, rates = len(figures), np.array([each.per_s for each in figures])
    machines = Machines(scenario, count, seed, rates * scenario.load)
    evidence, found = [SlownessEvidence() for _ in range(count)], list[int | None]([None] * count)
    machines.look()
    for minute in range(1, HOURS * 60 + 1):
        told = machines.look()
        for row in range(count):
            judgement = figures[row].judge(_stretch(told, row))
            if judgement.state in (WatchState.HOLDS, WatchState.SLOWER):
                evidence[row].take(judgement.slower_by)
            if found[row] is None and evidence[row].enough:
                found[row] = minute
    return found


def _stretch(told: dict[str, np.ndarray], row: int) -> Stretch:
    arrived, tokens = told["arrived"][row], told["tokens"][row]
    return Stretch.model_construct(
        seconds=60.0,
        answered=float(told["answered"][row]),
        arrived=float(arrived),
        prompt_tokens=float(told["prompts"][row] / arrived) if arrived else None,
        output_tokens=float(told["outputs"][row] / arrived) if arrived else None,
        users=float(told["users"][row]),
        ttft_p50=_bucket(told["ttft"][row], _TTFT),
        itl_p50=_bucket(told["itl"][row], _ITL),
        tpot_ms=float(1000 * told["gaps_s"][row] / tokens) if tokens else None,
    )


def _bucket(counts: np.ndarray, bounds: np.ndarray) -> MedianBucket | None:
    if not counts.sum():
        return None
    place = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return MedianBucket(low_ms=float(bounds[place - 1]) if place else 0.0, high_ms=float(bounds[place]))


def _job(job: tuple[Scenario, int, int]) -> list[int | None]:
    scenario, count, seed = job
    return alarms(scenario, proofs(count, scenario, seed * 1000), seed)


def main() -> int:
    """Print the table, with 95 % intervals; 1 if sound servers are said to be slow more often than is claimed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} servers a row instead of {FULL}, and fewer rows")
    parser.add_argument("--seed", type=int, default=6000)
    asked = parser.parse_args()
    quick, count = asked.quick, QUICK if asked.quick else FULL
    kinds = (*TRAFFIC, *LAUNCHES)
    rows = [(traffic, slower) for traffic in kinds for slower in (0.0, *([traffic.found] if quick else SLOWER))]
    jobs = [(traffic.named(slower), count, asked.seed + place) for place, (traffic, slower) in enumerate(rows)]
    print(f"{count} servers a row, {HOURS} hours each, a proof of its own for each")
    print("| traffic | slower by | said to be slow | after minutes, median |")
    print("|---|---|---|---|")
    false = 0
    with get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        for (traffic, slower), found in zip(rows, pool.imap(_job, jobs), strict=True):
            when = [each for each in found if each is not None]
            false += len(when) if not slower else 0
            print(f"| {traffic.name} | {slower:.0%} | {_share(len(when), count)} | {_median(when)} |", flush=True)
    sound = count * len(kinds)
    print(f"sound servers called slow: {_share(false, sound)}, at most {CLAIM:.1%} claimed")
    return 1 if binomtest(false, sound).proportion_ci().low > CLAIM else 0


def _share(found: int, count: int) -> str:
    bounds = binomtest(found, count).proportion_ci()
    return f"{found / count:.1%} [{bounds.low:.1%}, {bounds.high:.1%}]"


def _median(when: list[int]) -> str:
    return f"{float(np.median(when)):.0f}" if when else "–"


if __name__ == "__main__":
    sys.exit(main())
