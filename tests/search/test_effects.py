"""What settings earn, by launches and by what was screened in their servers, against truths that are known."""

from dataclasses import dataclass
from math import log1p
from random import Random
from statistics import fmean, median

import numpy as np
import pytest

from tests.bench.drawn import HILLS, LiveDrawn
from tuner.engines.base import NO_HINTS
from tuner.proof.estimate import Noise
from tuner.search.base import LiveIn, Observation
from tuner.search.effects import Effects
from tuner.space import SearchSpace

SEEDS, LAUNCHES, SETTINGS = range(8), 6, 4
LEVEL, MIN_EFFECT = 0.05, 0.01
MOST = {"max_num_seqs": 256, "max_num_batched_tokens": 32768}
"""What all but the deployed configuration are launched with."""


@dataclass(frozen=True)
class Change:
    """What a changed setting of the winner truly earns, in logs, and what is said of it."""

    name: str
    truth: float
    low: float
    high: float

    @property
    def covered(self):
        return self.low <= self.truth <= self.high

    @property
    def held(self):
        """Whether it is held to matter."""
        return self.low > log1p(MIN_EFFECT)


class Studied:
    """Launches of a truth: the deployed one, and some with every other switch changed, in whose servers is screened."""

    def __init__(self, hill):
        self.hill, self.space = hill, SearchSpace.model_validate(hill.space)
        self.dice, self.rng = Random(f"design {hill.seed}"), np.random.default_rng(hill.seed)
        self.seen = [self.launched(hill.deployed)]
        for _ in range(LAUNCHES - 1):
            self.launch(self.drawn())

    def drawn(self):
        others = {name: self.dice.choice(self.choices(name)) for name in self.hill.deployed if name not in HILLS}
        return {**others, "enforce_eager": False, "gpu_memory_utilization": 0.9, **MOST}

    def choices(self, name):
        parameter = self.space.params[name]
        other = self.hill.worth[name][1]
        return [self.hill.deployed[name], parameter.value(other)]

    def launched(self, params):
        value = self.hill.evaluate(params, self.rng)["output_tokens_per_s"]
        return Observation(self.space.candidate(params), (value,), -0.5)

    def launch(self, params):
        self.seen.append(self.launched(params))
        server = self.seen[-1].candidate
        for _ in range(SETTINGS):
            setting = {name: most >> self.dice.randrange(5) for name, most in MOST.items()}
            if setting != MOST:
                value = self.hill.screen(params, setting, self.rng)["output_tokens_per_s"]
                candidate, where = self.space.candidate({**params, **setting}), LiveIn(server, server.digest)
                self.seen.append(Observation(candidate, (value,), -0.5, screened=True, server=where))

    def changes(self, seen):
        """What is said of the changes of the launch that read best."""
        effects = Effects(self.space, "maximize", seen, Noise(self.hill.noise, 3.0), NO_HINTS)
        winner = max((each for each in seen if not each.screened), key=lambda each: each.values).candidate
        names = list(self.space.changes(winner.params, self.hill.deployed))
        without = [{**winner.params, name: self.hill.deployed[name]} for name in names]
        whole = self.hill.effect(winner.params)
        said = effects.over(winner, map(self.space.candidate, without), LEVEL)
        truths = (whole - self.hill.effect(params) for params in without)
        return [Change(name, true, one.low, one.high) for name, true, one in zip(names, truths, said, strict=True)]


def studied(bias, together=True, shape="lognormal", noise=0.03):
    """What is said of all studies, by launches alone and with what was screened."""
    studies = [Studied(LiveDrawn(seed, noise, shape, bias=bias, together=together)) for seed in SEEDS]
    alone = [each for study in studies for each in study.changes([one for one in study.seen if not one.screened])]
    return alone, [each for study in studies for each in study.changes(study.seen)]


@pytest.mark.parametrize("bias", ["unbiased", "constant", "distant", "odd"])
def test_what_was_screened_makes_effects_better_known_and_intervals_stay_honest(bias):
    """Noise and biases are others than the model's."""
    alone, both = studied(bias)
    assert fmean(each.covered for each in both) >= 0.85
    assert [each for each in both if each.held and each.truth < MIN_EFFECT] == []
    width = [median(each.high - each.low for each in found if each.name in HILLS) for found in (alone, both)]
    assert width[1] < 0.8 * width[0]


@pytest.mark.parametrize(("shape", "noise"), [("outliers", 0.03), ("bimodal", 0.06)])
def test_readings_of_one_server_that_have_nothing_in_common_mislead_no_more(shape, noise):
    _, both = studied("odd", together=False, shape=shape, noise=noise)
    assert fmean(each.covered for each in both) >= 0.85
    assert [each for each in both if each.held and each.truth < MIN_EFFECT] == []
