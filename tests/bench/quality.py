"""How often equal servers are called different, and how often a server that corrupts some calls is found.

Wrong answers come alike from all questions, or unevenly: some questions are hard, and both servers fail at them.

python -m tests.bench.quality
"""

import json
import random
from collections.abc import Iterable
from itertools import product

from scipy.stats import binomtest

from tuner.composing import load
from tuner.quality.asking import Completion
from tuner.quality.cases import Ask, Quality
from tuner.quality.comparing import compared

REPEATS = 300
WRONG = (0.0, 0.02, 0.1, 0.3)
"""How often a sound model answers wrongly by itself."""


def quality() -> Quality:
    """The cases that are shipped."""
    return load(["experiment=demo", "quality=basic"]).quality


def rates(
    kinds: Iterable[tuple[float, float]], repeats: int = REPEATS, seed: int = 1, *, uneven: bool = False
) -> dict[tuple[float, float], float]:
    """Share of comparisons that end with "worse", by (own share of wrong answers, share of corrupted calls)."""
    cases = quality()
    return {
        (wrong, corrupt): sum(_worse(cases, f"{seed}/{n}", wrong, corrupt, uneven) for n in range(repeats)) / repeats
        for wrong, corrupt in kinds
    }


def _worse(cases: Quality, seed: str, wrong: float, corrupt: float, uneven: bool) -> bool:
    asks, dice = cases.asks(), random.Random(f"{seed}/{wrong}/{corrupt}")
    own = [dice.betavariate(wrong, 1 - wrong) if uneven and wrong else wrong for _ in asks]
    first = tuple(_answer(ask, dice.random() < share) for ask, share in zip(asks, own, strict=True))
    second = tuple(
        _answer(ask, dice.random() < share or (ask.case.call is not None and dice.random() < corrupt))
        for ask, share in zip(asks, own, strict=True)
    )
    return bool(compared(cases, first, first, second).worse)


def _answer(ask: Ask, wrong: bool) -> Completion:
    if ask.case.call:
        return Completion(
            name=ask.name, calls=((ask.case.call.name, "{" if wrong else json.dumps(dict(ask.arguments))),)
        )
    right = (ask.case.answer or "text").replace("\\b", "")
    return Completion(name=ask.name, content="" if wrong else right)


def main() -> None:
    """Print the table, with 95 % intervals."""
    kinds = list(product(WRONG, (0.0, 0.05, 0.1)))
    alike, uneven = rates(kinds), rates(kinds, uneven=True)
    print("| wrong by itself | corrupted | called worse, errors alike | called worse, some questions hard |")
    print("|---|---|---|---|")
    for wrong, corrupt in kinds:
        shares = " | ".join(_share(found[wrong, corrupt]) for found in (alike, uneven))
        print(f"| {wrong:.0%} | {corrupt:.0%} | {shares} |")


def _share(rate: float) -> str:
    bounds = binomtest(round(rate * REPEATS), REPEATS).proportion_ci()
    return f"{rate:.1%} [{bounds.low:.1%}, {bounds.high:.1%}]"


if __name__ == "__main__":
    main()
