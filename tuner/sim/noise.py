"""Chance in step times: between launches of the same configuration, and within a launch."""

import math
import random
from dataclasses import dataclass

from tuner.sim.roofline import Roofline, StepShape


@dataclass(frozen=True, slots=True)
class Noise:
    """Relative standard deviations.

    Attributes:
        launch: Of a factor that one launch keeps for all its steps.
        step: Of each step within a launch.
    """

    launch: float = 0.01
    step: float = 0.02


QUIET = Noise(0.0, 0.0)


class StepTimer:
    """Durations of one launch's steps, with noise, never below the roofline.

    Args:
        roofline: The configuration's step times.
        noise: How much chance.
        seed: The study's seed.
        launch_id: What tells this launch from others of the same seed.
    """

    def __init__(self, roofline: Roofline, noise: Noise, seed: int, launch_id: str) -> None:
        self.roofline = roofline
        self._random = random.Random(f"{seed}/{launch_id}")
        self.launch_factor = math.exp(self._random.gauss(0.0, noise.launch))
        self._step = noise.step

    def duration_s(self, shape: StepShape, steps: int = 1) -> float:
        """Seconds for ``steps`` equal steps in a row."""
        factor = self.launch_factor
        if self._step:
            factor *= 1.0 + self._random.gauss(0.0, self._step) / math.sqrt(steps)
        return steps * max(self.roofline.step_s(shape) * factor, self.roofline.floor_s(shape))
