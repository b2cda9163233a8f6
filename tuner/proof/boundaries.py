"""How much evidence each look at the launches needs, so that all looks together err as rarely as promised.

Error spending after Lan and DeMets (Biometrika 70, 1983) with the family of Hwang, Shih and DeCani (Statistics in
Medicine 9, 1990); the levels come from the recursive integration of Armitage, McPherson and Rowe (JRSS A 132, 1969).
They hold for normal statistics; as nominal levels of t statistics they are Pocock's (Biometrika 64, 1977) significance
level approach, which is close where the variance is estimated from few launches.
"""

from functools import lru_cache
from math import exp

_REACH = 8.0
_STEP = 0.02


def spent(alpha: float, share: float, gamma: float) -> float:
    """How much of ``alpha`` may be spent once a ``share`` of the launches has been made.

    Args:
        alpha: One-sided error of the whole proof.
        share: Of the launches, 0 to 1.
        gamma: Shape: negative spends late, 0 evenly, positive early.
    """
    if gamma == 0:
        return alpha * share
    return alpha * (1 - exp(-gamma * share)) / (1 - exp(-gamma))


@lru_cache(maxsize=256)
def levels(alpha: float, looks: tuple[int, ...], gamma: float) -> tuple[float, ...]:
    """The one-sided nominal level at each look.

    Args:
        alpha: One-sided error of all looks together.
        looks: Launches of each configuration at which is looked, ascending; the last is the most there can be.
        gamma: As ``spent`` has it.
    """
    # imported late: only a proof needs them, and the command line starts without
    import numpy as np
    from scipy.special import ndtr, ndtri

    grid = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    shares = [look / looks[-1] for look in looks]
    found: list[float] = []
    density, before, bound, used = np.empty(0), 0.0, 0.0, 0.0
    for share in shares:
        budget = spent(alpha, share, gamma) - used
        if not found:
            density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
            bound = float(-ndtri(budget))
        else:
            inside = grid < bound  # paths that have not stopped yet
            sd = np.sqrt(share - before)
            steps = (grid[:, None] * np.sqrt(share) - grid[None, inside] * np.sqrt(before)) / sd
            kernel = np.exp(-(steps**2) / 2) / np.sqrt(2 * np.pi) * np.sqrt(share) / sd
            density = kernel @ density[inside] * _STEP
            above = np.cumsum(density[::-1])[::-1] * _STEP
            bound = float(np.interp(budget, above[::-1], grid[::-1])) + _STEP / 2
        found.append(float(ndtr(-bound)))
        before, used = share, spent(alpha, share, gamma)
    return tuple(found)
