"""Thousands of configurations held against the world: how many doomed ones are ruled out, and how many others."""

import random
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Tally:
    """What became of the configurations that were asked about.

    Attributes:
        asked: All of them.
        doomed: Those that do not start, with a filled compile cache.
        caught: Doomed ones that were ruled out.
        foreseen: Doomed ones that the best guess sees, margin or not.
        wronged: Ruled out, though they start.
        beyond: Their KV cache turned out larger than the prediction and its margin.
        errors: Of the KV cache that was predicted, as a share of what there was.
    """

    asked: int = 0
    doomed: int = 0
    caught: int = 0
    foreseen: int = 0
    wronged: int = 0
    beyond: int = 0
    errors: list[float] = field(default_factory=list)

    def __add__(self, other):
        names = ("asked", "doomed", "caught", "foreseen", "wronged", "beyond", "errors")
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def row(self):
        """For a table: shares of the doomed ones, counts of what must not be, and the median error."""
        error = f"{median(map(abs, self.errors)):.1%}" if self.errors else "–"
        shares = [f"{part / max(self.doomed, 1):.0%}" for part in (self.caught, self.foreseen)]
        return [str(self.asked), str(self.doomed), *shares, str(self.wronged), str(self.beyond), error]


COLUMNS = ("asked", "doomed", "ruled out", "foreseen", "wronged", "beyond", "KV error")


def replay(world, calibrating: int, warm: bool, configurations: int, seed: int) -> Tally:
    """Start some configurations, then ask about others.

    Args:
        world: Where.
        calibrating: How many are started first.
        warm: Whether their compile cache is filled.
        configurations: How many are asked about.
        seed: Of both.
    """
    dice = random.Random(f"{seed}:{world.name}")
    calibration = world.calibration([world.start(world.draw(dice), warm) for _ in range(calibrating)])
    tally = Tally()
    for _ in range(configurations):
        args = world.draw(dice)
        _count(tally, world.plan(args), calibration.predict(world.demand(args)))
    return tally


def _count(tally, plan, prediction):
    tally.asked += 1
    if plan.starts:
        tally.wronged += prediction.ruled_out is not None
        tally.beyond += plan.kv_gib > prediction.terms.kv_gib + prediction.margin_gib
        tally.errors.append(prediction.terms.kv_gib / plan.kv_gib - 1)
        return
    tally.doomed += 1
    tally.caught += prediction.ruled_out is not None
    tally.foreseen += prediction.terms.shortage is not None
