"""How often equal servers are called different, and how often one that corrupts calls, or that drifts, is found.

Wrong answers come alike from all questions, or unevenly: some questions are hard, and both servers fail at them. Log
probabilities are off by another scale in each answer (lognormal), by Laplace's law within it, and a third of the
answers part somewhere: rounding is no normal distribution. Fails if equal servers drift in over 1 % of comparisons.

python -m tests.bench.quality
"""

import json
import random
from collections.abc import Iterable
from itertools import product

from scipy.stats import binomtest

from tuner.composing import load
from tuner.load.sse import TokenScore
from tuner.quality.asking import Completion
from tuner.quality.cases import Ask, Quality
from tuner.quality.comparing import LOG_PROBABILITIES, compared

REPEATS = 300
ROUNDING = (0.003, 0.02, 0.1)
"""Nats a token by which the median answer is off from its own repeat."""
DRIFTS = (0.0, 0.03, 0.1, 0.2)
"""Nats a token by which another server is off in addition."""
_TOKENS = 24
_FALSE = 0.01
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


def drift_rate(rounding: float, drift: float, repeats: int = REPEATS, seed: int = 1) -> float:
    """Share of comparisons in which the second server is said to drift."""
    cases = _texts()
    return (
        sum(_drifts(cases, random.Random(f"{seed}/{n}/{rounding}/{drift}"), rounding, drift) for n in range(repeats))
        / repeats
    )


def _texts() -> Quality:
    shipped = quality()
    return shipped.model_copy(update={"cases": {n: case for n, case in shipped.cases.items() if not case.tools}})


def _drifts(cases: Quality, dice: random.Random, rounding: float, drift: float) -> bool:
    first = [_scored(ask, [-dice.expovariate(2) for _ in range(_TOKENS)]) for ask in cases.asks()]
    again = [_off(dice, each, rounding, 0.0) for each in first]
    second = [_off(dice, each, rounding, drift) for each in first]
    found = compared(cases, first, again, second).families
    return any(family.worse for family in found if family.name == LOG_PROBABILITIES)


def _scored(ask: Ask, logprobs: list[float]) -> Completion:
    return Completion(name=ask.name, content="text", tokens=tuple(TokenScore("a", each) for each in logprobs))


def _off(dice: random.Random, answer: Completion, rounding: float, drift: float) -> Completion:
    scale = rounding * dice.lognormvariate(0, 1)
    parts = dice.randrange(3 * _TOKENS)
    tokens = []
    for place, token in enumerate(answer.tokens):
        logprob = token.logprob + _laplace(dice, scale) + _laplace(dice, drift)
        tokens.append(TokenScore("b", logprob, (("a", logprob),)) if place >= parts else TokenScore("a", logprob))
    return answer.model_copy(update={"tokens": tuple(tokens)})


def _laplace(dice: random.Random, scale: float) -> float:
    return dice.choice((-1, 1)) * dice.expovariate(1 / scale) if scale else 0.0


def main() -> None:
    """Print the tables, with 95 % intervals."""
    _tell_corruption()
    _tell_drift()


def _tell_drift() -> None:
    """Raises SystemExit if equal servers are said to drift too often."""
    print("\n| its own repeat is off by | drifts by | said to drift |")
    print("|---|---|---|")
    for rounding, drift in product(ROUNDING, DRIFTS):
        rate = drift_rate(rounding, drift)
        print(f"| {rounding:g} nats | {drift:g} nats | {_share(rate)} |")
        if not drift and rate > _FALSE:
            raise SystemExit(f"more than {_FALSE:.0%} of equal servers are said to drift")


def _tell_corruption() -> None:
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
