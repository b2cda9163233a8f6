"""Who is launched when: at random, yet so that a steady drift of the machine hits both alike."""

import random


def turns(seed: str, most: int) -> tuple[bool, ...]:
    """For each launch whether the candidate is launched, else the baseline.

    Random blocks of A B B A or B A A B: after every pair as many of each, after every block no drift between them.

    Args:
        seed: Of this proof.
        most: Launches of each.
    """
    rng = random.Random(seed)
    order: list[bool] = []
    while len(order) < 2 * most:
        first = rng.random() < 0.5
        order += [first, not first, not first, first]
    return tuple(order[: 2 * most])
