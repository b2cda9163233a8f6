"""How often equal servers are called different, and how often a server that corrupts some calls is found.

python -m tests.bench.quality
"""

import json
import random
from collections.abc import Iterable
from itertools import product

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
    kinds: Iterable[tuple[float, float]], repeats: int = REPEATS, seed: int = 1
) -> dict[tuple[float, float], float]:
    """Share of comparisons that end with "worse", by (own share of wrong answers, share of corrupted calls)."""
    cases = quality()
    return {
        (wrong, corrupt): sum(_worse(cases, f"{seed}/{n}", wrong, corrupt) for n in range(repeats)) / repeats
        for wrong, corrupt in kinds
    }


def _worse(cases: Quality, seed: str, wrong: float, corrupt: float) -> bool:
    asks, dice = cases.asks(), random.Random(f"{seed}/{wrong}/{corrupt}")
    first = tuple(_answer(ask, dice.random() < wrong) for ask in asks)
    second = tuple(
        _answer(ask, dice.random() < wrong or (ask.case.call is not None and dice.random() < corrupt)) for ask in asks
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
    """Print the table."""
    print("wrong by itself  corrupted  called worse")
    for (wrong, corrupt), rate in rates(product(WRONG, (0.0, 0.05, 0.1))).items():
        print(f"{wrong:>15.0%}  {corrupt:>9.0%}  {rate:>12.1%}")


if __name__ == "__main__":
    main()
