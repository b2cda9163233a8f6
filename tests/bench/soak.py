"""How often a soak calls a steady server a growing one, and how often it finds one whose latency grows.

Ten rounds of half a minute. Noise is the standard deviation between the medians of rounds, which are independent or
inherit half of the deviation of the round before.

python -m tests.bench.soak
"""

import random
from itertools import product
from math import exp

from scipy.stats import binomtest

from tuner.proof.soak import ROUNDS, Soaked, SoakRound

REPEATS = 500
GROWTH = (0.0, 0.1, 0.2, 0.3, 0.5)
NOISE = (0.02, 0.05, 0.1)
_FALSE = 0.01


def rate(growth: float, noise: float, carried: float, repeats: int = REPEATS) -> float:
    """Share of soaks that are failed.

    Args:
        growth: By which share the last round is slower than the first.
        noise: Between rounds.
        carried: Which share of a round's deviation the next one inherits.
        repeats: Of soaks.
    """
    return sum(bool(_soak(growth, noise, carried, seed).faults) for seed in range(repeats)) / repeats


def _soak(growth: float, noise: float, carried: float, seed: int) -> Soaked:
    dice, rounds, off = random.Random(f"{growth}/{noise}/{carried}/{seed}"), list[SoakRound](), [0.0, 0.0]
    for n in range(ROUNDS):
        off = [carried * each + dice.gauss(0, noise * (1 - carried**2) ** 0.5) for each in off]
        ttft, tpot = ((1 + growth) ** (n / (ROUNDS - 1)) * exp(each) for each in off)
        rounds.append(SoakRound(began_s=30.0 * n, seconds=30.0, requests=40, ttft_ms=300 * ttft, tpot_ms=20 * tpot))
    return Soaked(rounds=tuple(rounds))


def main() -> None:
    """Print the table, with 95 % intervals; fails if steady servers are called growing in more than 1 % of soaks."""
    print("| noise between rounds | grows by | failed, rounds independent | failed, half inherited |")
    print("|---|---|---|---|")
    for noise, growth in product(NOISE, GROWTH):
        rates = [rate(growth, noise, carried) for carried in (0.0, 0.5)]
        print(f"| {noise:.0%} | {growth:.0%} | {' | '.join(map(_share, rates))} |")
        if not growth and max(rates) > _FALSE:
            raise SystemExit(f"more than {_FALSE:.0%} of steady servers are failed")


def _share(found: float) -> str:
    bounds = binomtest(round(found * REPEATS), REPEATS).proportion_ci()
    return f"{found:.1%} [{bounds.low:.1%}, {bounds.high:.1%}]"


if __name__ == "__main__":
    main()
