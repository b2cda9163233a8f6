"""Landscapes drawn by chance, in which many settings do nothing: what each does is known."""

import math
import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.bench.landscapes import DEPLOYED, SPACE
from tuner.space import SearchSpace
from tuner.testing.proof import Died

SIZES = (0.0, 0.0, 0.0, 0.0, 0.03, 0.1, 0.1, 0.25)
"""What a setting is worth at its best value over the deployed one, in logs; half of them nothing."""


@dataclass
class Drawn:
    """Each setting has one value that is best, and loses what it is worth on the way to the deployed one.

    Attributes:
        seed: Draws the truth.
        noise: Standard deviation of a launch's log.
        shape: Of the noise: ``normal``, ``heavy`` (Student's t with three degrees of freedom) or ``two speeds``.
        crossed: Whether two settings change what each other is worth.
    """

    seed: int
    noise: float = 0.03
    shape: str = "normal"
    crossed: bool = False
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    deployed: dict[str, Any] = field(default_factory=lambda: DEPLOYED)
    goals: dict[str, Any] = field(default_factory=lambda: {"output_tokens_per_s": "maximize"})
    limits: dict[str, Any] = field(default_factory=lambda: {"ttft_p50_ms": {"max": 1.25, "of": "baseline"}})

    @cached_property
    def worth(self):
        """By setting: its best level and what that is worth in logs."""
        dice, space = random.Random(f"truth {self.seed}"), SearchSpace.model_validate(self.space)
        found = {}
        for name, parameter in space.params.items():
            start = parameter.level(self.deployed[name])
            best = dice.choice([level for level in range(parameter.levels) if level != start])
            found[name] = (start, best, dice.choice(SIZES) if name != "enforce_eager" else 0.0)
        return found

    def effect(self, params):
        """The log of the goal over the deployed configuration's, without noise."""
        space = SearchSpace.model_validate(self.space)
        parts = {name: self._part(name, space.params[name].level(params[name])) for name in self.worth}
        total = sum(parts.values()) - (1.6 if params["enforce_eager"] else 0.0)
        if self.crossed and len(acting := sorted(name for name, (*_, size) in self.worth.items() if size)) > 1:
            total += 0.08 * all(parts[name] > 0 for name in acting[:2])
        return total

    def _part(self, name, level):
        start, best, size = self.worth[name]
        if name in ("max_num_batched_tokens", "max_num_seqs"):
            # a hill in levels: the slope goes on below the deployed value
            return size * (1 - ((level - best) / (start - best)) ** 2) if size else 0.0
        return size if level == best else 0.0

    def evaluate(self, params, rng):
        """One launch."""
        if params["gpu_memory_utilization"] > 0.945 and params["max_num_seqs"] > 64:
            raise Died("cuda_oom")
        speed = 5.0 + self.effect(params) + self.noise * self._chance(rng)
        return {"output_tokens_per_s": math.exp(speed), "ttft_p50_ms": 300 * math.exp(self.noise * self._chance(rng))}

    def _chance(self, rng):
        """Noise of variance 1."""
        if self.shape == "heavy":
            return rng.standard_t(3) / math.sqrt(3)
        return rng.normal() if self.shape == "normal" else rng.choice([-1.0, 1.0])
