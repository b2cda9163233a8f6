"""Landscapes drawn by chance, in which about half of the settings do nothing: what each does is known."""

import math
import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.bench.landscapes import DEPLOYED, SPACE
from tests.bench.noise import SHAPES
from tuner.space import SearchSpace
from tuner.testing.proof import Died

SIZES = (0.0, 0.0, 0.0, 0.0, 0.03, 0.1, 0.1, 0.25)
"""What a setting is worth at its best value over the deployed one, in logs."""
PAIR = 0.08
"""What two settings are worth more together, in half of the landscapes."""
HILLS = "max_num_batched_tokens", "max_num_seqs"
BIASES = {
    "unbiased": lambda steps, dice: 0.0,
    "constant": lambda steps, dice: 0.03,
    "distant": lambda steps, dice: 0.015 * min(4, steps),
    "odd": lambda steps, dice: dice.gauss(0, 0.03),
}
"""By which log a screened reading is too high: by the halvings from what the server was started with, or by chance."""


@dataclass
class Drawn:
    """Each setting has one value that is best; those of ``HILLS`` lose on the way from it to the deployed one.

    Attributes:
        seed: Draws the truth.
        noise: Standard deviation of a launch's log.
        shape: Of the noise, one of ``SHAPES``.
        seen: Every launch with what it measured; ``None`` if it died.
    """

    seed: int
    noise: float = 0.03
    shape: str = "normal"
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    deployed: dict[str, Any] = field(default_factory=lambda: DEPLOYED)
    goals: dict[str, Any] = field(default_factory=lambda: {"output_tokens_per_s": "maximize"})
    limits: dict[str, Any] = field(default_factory=lambda: {"ttft_p50_ms": {"max": 1.25, "of": "baseline"}})
    seen: list[tuple[dict[str, Any], float | None]] = field(default_factory=list)

    @cached_property
    def levels(self):
        """The space, to find the level of a value."""
        return SearchSpace.model_validate(self.space).params

    @cached_property
    def worth(self):
        """By setting: the deployed level, the best one, and what that is worth in logs."""
        dice, found = random.Random(f"truth {self.seed}"), {}
        for name, parameter in self.levels.items():
            start = parameter.level(self.deployed[name])
            best = dice.choice([level for level in range(parameter.levels) if level != start])
            found[name] = (start, best, dice.choice(SIZES) if name != "enforce_eager" else 0.0)
        return found

    def effect(self, params):
        """The log of the goal over the deployed configuration's, without noise."""
        parts = {name: self._part(name, self.levels[name].level(params[name])) for name in self.worth}
        acting = sorted(name for name, (*_, size) in self.worth.items() if size)
        both = self.seed % 2 == 0 and len(acting) > 1 and all(parts[name] > 0 for name in acting[:2])
        return sum(parts.values()) + PAIR * both - (1.6 if params["enforce_eager"] else 0.0)

    def _part(self, name, level):
        start, best, size = self.worth[name]
        if name in HILLS and size:
            return size * (1 - ((level - best) / (start - best)) ** 2)
        return size if level == best else 0.0

    def truth(self, params):
        """Goal and limited metric without noise; raises ``Died``."""
        if params["gpu_memory_utilization"] > 0.945 and params["max_num_seqs"] > 64:
            raise Died("cuda_oom")
        return {"output_tokens_per_s": 150 * math.exp(self.effect(params)), "ttft_p50_ms": 300.0}

    def evaluate(self, params, rng):
        """One launch."""
        dice = random.Random(int(rng.integers(2**63)))
        self.seen.append((dict(params), None))
        truth = self.truth(params)
        speed, first = (SHAPES[self.shape](dice, self.noise) for _ in range(2))
        self.seen[-1] = dict(params), truth["output_tokens_per_s"] * speed
        return {"output_tokens_per_s": self.seen[-1][1], "ttft_p50_ms": truth["ttft_p50_ms"] / first}


@dataclass
class LiveDrawn(Drawn):
    """The same with servers whose ``HILLS`` can be changed while they run.

    Attributes:
        bias: One of ``BIASES``.
        together: Whether a server's noise is in all of its readings; else each has its own, one and a half times that
            of a launch.
        live: What can be changed.
        screen_seconds: What a setting costs.
        screened: Every screening: what the server was started with, the setting, and what was measured.
    """

    bias: str = "distant"
    together: bool = True
    live: tuple[str, ...] = HILLS
    screen_seconds: float = 10.0
    screened: list[tuple[dict[str, Any], dict[str, Any], float]] = field(default_factory=list)

    def screen(self, params, setting, rng):
        """A setting in the running server of a launch, the last one with these parameters."""
        dice, served = random.Random(int(rng.integers(2**63))), {**params, **setting}
        own = SHAPES[self.shape](dice, self.noise if self.together else 1.5 * self.noise)
        server = self._noise_of(params) if self.together else 1.0
        steps = sum(math.log2(params[name] / setting[name]) for name in setting)
        biased = BIASES[self.bias](steps, random.Random(f"{self.seed} {sorted(setting.items())}"))
        speed = 150 * math.exp(self.effect(served) + biased) * own * server
        self.screened.append((dict(params), dict(setting), speed))
        return {"output_tokens_per_s": speed, "ttft_p50_ms": 300.0 / own}

    def _noise_of(self, params):
        values = (value for launched, value in reversed(self.seen) if launched == params)
        return next(values) / (150 * math.exp(self.effect(params)))
