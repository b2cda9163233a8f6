"""What was screened in running servers, and how well that agreed with launches of the same configurations."""

from dataclasses import dataclass
from math import expm1, sqrt

from tuner import words
from tuner.proof.estimate import Noise, level
from tuner.records.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Agreement:
    """Screened settings against launches.

    Attributes:
        settings: How many settings were screened.
        launches: In the running servers of how many launches.
        doubted: How many of them are not believed before they have been launched.
        metric: The goal that is compared.
        ratios: Of each of the others that was launched as well, its screened reading over the launches'.
        noise: Of such a ratio, as far as it is known from launches.
    """

    settings: int
    launches: int
    doubted: int
    metric: str
    ratios: tuple[float, ...]
    noise: Noise

    @property
    def sentences(self) -> tuple[str, ...]:
        """For a person."""
        where = "one launch" if self.launches == 1 else f"{self.launches} launches"
        counted = (
            f"{self.settings} setting{'' if self.settings == 1 else 's'} screened in the running servers of {where}"
        )
        doubted = f"; {self.doubted} of them have to be launched before they are believed" if self.doubted else ""
        return (f"{counted}{doubted}.", self._compared)

    @property
    def _compared(self) -> str:
        if not self.ratios:
            return "None of them was launched as well, so that nothing tells how well screening agrees with launches."
        found = level(self.ratios, self.noise)
        mean, low, high = (words.percent(expm1(at), sign=True) for at in (found.center, *found.bounds(0.025)))
        label = words.metric(self.metric).label
        return f"{len(self.ratios)} of them launched as well: {label} read {mean} [{low}, {high}] against the launch."


def agreement(outcome: Outcome) -> Agreement | None:
    """How well they agreed; ``None`` where nothing was screened."""
    found = [each for record in outcome.records for each in record.screened]
    if not found:
        return None
    goal = next(iter(outcome.config.objective.goals))
    known = outcome.readings.noise(goal)
    pairs = [
        (each.measurement.numbers.get(goal), outcome.readings.level(each.digest, goal))
        for each in found
        if not each.doubt
    ]
    return Agreement(
        settings=len(found),
        launches=sum(bool(record.screened) for record in outcome.records),
        doubted=sum(bool(each.doubt) for each in found),
        metric=goal,
        ratios=tuple(live / launched for live, launched in pairs if live and launched),
        noise=Noise(sqrt(2) * known.sd, known.dof),
    )
