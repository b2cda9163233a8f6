"""How often a launch reads what the search expected of it: drawn landscapes, other noise than its model has.

python -m tests.bench.expected [SEEDS]
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import fmean, median

import numpy as np

from tests.bench.drawn import Drawn
from tests.bench.noise import SHAPES
from tests.present import present
from tuner.engines.registry import DEFAULT, ENGINES
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Observation
from tuner.space import SearchSpace
from tuner.testing.proof import Died

LAUNCHES, NOISES, FIRST_SEED = 20, (0.01, 0.03, 0.08), 3000


def checks(case):
    """Of each measured launch but the first: why it was asked for, whether it read as expected, and the error."""
    seed, shape, noise = case
    hill, rng = Drawn(seed, noise=noise, shape=shape), np.random.default_rng(seed)
    space = SearchSpace.model_validate(hill.space)
    settings = space.settings(space.candidate(hill.deployed))
    search = AdditiveSearch(space, "maximize", settings, seed, ENGINES[DEFAULT].hints)
    seen, found = [_launch(hill, space.candidate(hill.deployed), rng)], []
    while len(seen) < LAUNCHES:
        candidate = present(search.propose(seen))
        expected = present(search.expectation(seen, candidate))
        seen.append(_launch(hill, candidate, rng))
        for value in seen[-1].values or ():
            found.append((expected.why, expected.low <= value <= expected.high, abs(value / expected.value - 1)))
    return found


def _launch(hill, candidate, rng):
    try:
        return Observation(candidate, (hill.evaluate(candidate.params, rng)["output_tokens_per_s"],))
    except Died:
        return Observation(candidate, None)


def main():
    """Print a line for each noise, shape and reason."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    cases = list(product(range(FIRST_SEED, FIRST_SEED + seeds), SHAPES, NOISES))
    with ProcessPoolExecutor() as pool:
        found = list(zip(cases, pool.map(checks, cases), strict=True))
    every = [(shape, noise, *check) for (_, shape, noise), some in found for check in some]
    print(f"{'':<16}{'launches':>10}{'inside':>10}{'median error':>15}")
    for column in (1, 0, 2):
        for kind in dict.fromkeys(row[column] for row in every):
            rows = [row for row in every if row[column] == kind]
            inside, error = fmean(row[3] for row in rows), median(row[4] for row in rows)
            print(f"{kind!s:<16}{len(rows):>10}{inside:>10.0%}{error:>15.1%}")


if __name__ == "__main__":
    main()
