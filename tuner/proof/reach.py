"""What the configurations of a search have reached, and what further ones could reach, each at a stated error."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import fmean

from tuner.proof.estimate import Noise


@dataclass(frozen=True, slots=True)
class Reach:
    """What a search has read of one metric, on the log scale; more is better.

    Attributes:
        logs: By configuration.
        noise: Between launches of one configuration; ``None`` while none ran twice.
    """

    logs: Sequence[float]
    noise: Noise | None

    def has(self, noise: Noise, error: float) -> float:
        """What its best reaches at the least: of many readings the best one reads too high."""
        return max(self.logs) - _quantile(noise.dof, error / len(self.logs)) * noise.sd

    def could(self, noise: Noise, launches: int, error: float) -> float:
        """What its best could reach at the most, after so many further launches."""
        count, best = len(self.logs), max(self.logs)
        now = best + _quantile(noise.dof, error / count) * noise.sd
        if not launches:
            return now
        middle = fmean(self.logs)
        sd = sqrt(fsum((each - middle) ** 2 for each in self.logs) / (count - 1))
        ahead = middle + _quantile(count - 1, error / launches) * sd * sqrt(1 + 1 / count)
        return max(now, ahead)


def _quantile(dof: float, error: float) -> float:
    """Student's t, beyond which a value is by chance this rarely."""
    from scipy.special import stdtrit

    return -float(stdtrit(dof, error))
