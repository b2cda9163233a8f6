"""By how much a sound server may be slower than the mean of its proof: launches differ, and one of them serves.

What the proof's launches of both configurations differ by is pooled, as in the proof itself, with a little of what
launches usually differ by: from two of each nobody could tell. A change between them is not taken out: it is one of the
reasons why a server is slower next week.
"""

from collections.abc import Sequence
from math import exp, sqrt

from tuner.proof.estimate import Estimate, Noise, Point, level, ratio

_USUAL = Noise(0.03, 3)
"""Between launches, where the proof does not tell otherwise, and how much that weighs."""
_TAIL = 0.01
"""One sound launch in a hundred is slower than that from its start to its end."""
_HOURS = 0.01
"""And no two hours of a launch are alike."""


def margin(winner: Sequence[float], baseline: Sequence[float]) -> float:
    """The share by which one more launch of the winner may be above the mean of its launches.

    Args:
        winner: A metric in each of its launches; none where nobody says.
        baseline: The same metric in each launch of what was deployed.
    """
    launches = [each for each in winner if each > 0]
    others = [each for each in baseline if each > 0]
    if not launches:
        return 0.0
    found = _scatter(launches, others)
    noise = found.noise or 0.0
    one_more = Estimate(0.0, noise * sqrt(1 + 1 / len(launches)), found.dof, noise)
    return exp(one_more.bounds(_TAIL)[1]) - 1 + _HOURS


def _scatter(winner: Sequence[float], baseline: Sequence[float]) -> Estimate:
    if not baseline:
        return level(winner, _USUAL)
    points = [
        Point(candidate=is_winner, value=each) for is_winner, own in ((True, winner), (False, baseline)) for each in own
    ]
    return ratio(points, _USUAL, in_turns=False)
