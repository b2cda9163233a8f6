"""Simulated machines whose launches differ: by a noise of some shape, and by a drift while the proof lasts."""

import csv
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import stdev

from tuner.objective import direction

RECORDED = Path(__file__).parents[1] / "data" / "noise"
STATES = 0.95, 0.31
"""Bimodal: half the distance of two equally likely states, and the scatter within one; together a deviation of 1."""
OUTLIER = 0.03, 5.0
"""Rare outliers: how often, and by how many deviations such a launch is slower."""
DRIFT = 0.1
ENOUGH = 12
"""Launches of a recording; of fewer, the same ones are drawn too often."""
_SLOWEST = 0.05


def _normal(dice, sd):
    return max(1 + sd * dice.gauss(0, 1), _SLOWEST)


def _lognormal(dice, sd):
    return exp(sd * dice.gauss(0, 1))


def _bimodal(dice, sd):
    between, within = STATES
    return exp(sd * (dice.choice((-between, between)) + within * dice.gauss(0, 1)))


def _outliers(dice, sd):
    often, far = OUTLIER
    return exp(sd * (dice.gauss(0, 1) - far * (dice.random() < often)))


SHAPES = {"normal": _normal, "lognormal": _lognormal, "bimodal": _bimodal, "outliers": _outliers}
DRIFTS = "none", "linear", "step"


@dataclass(frozen=True)
class Simulated:
    """Noise of every metric on its own, and a slowdown of ``DRIFT`` that hits all of them.

    Attributes:
        shape: One of ``SHAPES``.
        sd: Standard deviation of one launch, as a share.
        drift: One of ``DRIFTS``: evenly over the launches that a proof may take, or at once at any one of them.
    """

    shape: str
    sd: float
    drift: str = "none"

    def machine(self, dice, launches):
        """The machine of one proof of at most so many launches."""
        return _SimulatedMachine(self, dice, launches, dice.randrange(1, launches))

    def __str__(self):
        return f"{self.shape} {self.sd:.0%}" + (f", {self.drift} drift" if self.drift != "none" else "")


class _SimulatedMachine:
    def __init__(self, kind, dice, launches, step):
        self._kind, self._dice, self._launches, self._step = kind, dice, launches, step
        self._draw, self._made = SHAPES[kind.shape], 0

    def launch(self, means):
        """What a configuration of these true figures measures in the next launch."""
        slowdown = 1 - DRIFT * self._drifted()
        self._made += 1
        return {name: mean * self._factor(name, slowdown) for name, mean in means.items()}

    def _factor(self, name, slowdown):
        speed = slowdown * self._draw(self._dice, self._kind.sd)
        return speed if direction(name) == "maximize" else 1 / speed

    def _drifted(self):
        match self._kind.drift:
            case "linear":
                return self._made / (self._launches - 1)
            case "step":
                return float(self._made >= self._step)
        return 0.0

    def known(self, name, launches):
        """The noise as earlier launches of one configuration, without drift, show it: deviation and freedom."""
        return stdev(log(self._draw(self._dice, self._kind.sd)) for _ in range(launches)), launches - 1


@dataclass(frozen=True)
class Recorded:
    """Launches of one configuration on a real server, drawn with replacement; a file of ``RECORDED``."""

    name: str

    def machine(self, dice, launches):
        """The machine of one proof."""
        return _RecordedMachine(recorded(self.name), dice)

    def __str__(self):
        return self.name


class _RecordedMachine:
    def __init__(self, rows, dice):
        self._rows, self._dice = rows, dice

    def launch(self, means):
        """What a configuration measures whose true figures are those that were recorded times ``means``."""
        row = self._dice.choice(self._rows)
        return {name: mean * row[name] for name, mean in means.items()}

    def known(self, name, launches):
        """The noise as earlier launches of the same configuration show it."""
        return stdev(log(self._dice.choice(self._rows)[name]) for _ in range(launches)), launches - 1


def recorded(name):
    """The launches of a recording, a mapping of metrics each; the file's header says where they come from."""
    lines = (RECORDED / f"{name}.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [{metric: float(value) for metric, value in row.items() if value and metric != "launch"} for row in rows]


def recordings():
    """The names of all recordings that hold launches enough to draw from."""
    return sorted(path.stem for path in RECORDED.glob("*.csv") if len(recorded(path.stem)) >= ENOUGH)
