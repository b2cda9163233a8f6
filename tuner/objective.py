"""What is optimised, and under which limits: a measurement becomes a verdict."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from tuner.load.metrics import Measurement
from tuner.schema import Schema


class Limit(Schema):
    """A bound on one metric; give ``max`` or ``min``."""

    max: float | None = None
    min: float | None = None
    of: Literal["absolute", "baseline"] = "absolute"
    """``baseline``: the bound is a multiple of what trial 0 measured."""

    def model_post_init(self, context: object) -> None:
        """Exactly one bound."""
        if (self.max is None) == (self.min is None):
            raise ValueError("give max or min, and only one of them")

    def violation(self, value: float, baseline: float) -> float:
        """By how much the value misses the bound, as a share of the bound; at most 0 when it is met."""
        scale = baseline if self.of == "baseline" else 1.0
        if self.max is not None:
            return value / (self.max * scale) - 1
        assert self.min is not None
        return 1 - value / (self.min * scale)


class Verdict(Schema):
    """What a measurement is worth.

    ``values`` are the goals' metrics in the order of the goals; ``violations`` say by which share each limit is missed
    (at most 0 when met).
    """

    values: tuple[float, ...]
    violations: dict[str, float] = Field(default_factory=dict)
    reason: str

    @property
    def feasible(self) -> bool:
        """Whether every limit is met."""
        return all(violation <= 0 for violation in self.violations.values())


class Objective(Schema):
    """Goals and limits, by the names of a measurement's metrics."""

    name: str
    goals: dict[str, Literal["maximize", "minimize"]] = Field(min_length=1)
    limits: dict[str, Limit] = Field(default_factory=dict)

    @field_validator("goals", "limits")
    @classmethod
    def _metrics_exist(cls, by_metric: Mapping[str, object]) -> Mapping[str, object]:
        if unknown := set(by_metric) - set(Measurement.metrics()):
            valid = ", ".join(Measurement.metrics())
            raise ValueError(f"no such metric: {', '.join(sorted(unknown))} (valid: {valid})")
        return by_metric

    def judge(self, measurement: Measurement, baseline: Measurement) -> Verdict:
        """The verdict on a measurement.

        Args:
            measurement: What was measured.
            baseline: What trial 0 measured, by which relative limits are scaled; the measurement itself for trial 0.

        Raises:
            MeasurementError: A metric that the objective needs was not measured.
        """
        values = tuple(measurement.value(metric) for metric in self.goals)
        violations = {
            metric: limit.violation(measurement.value(metric), baseline.value(metric))
            for metric, limit in self.limits.items()
        }
        return Verdict(values=values, violations=violations, reason=self._reason(violations))

    def _reason(self, violations: Mapping[str, float]) -> str:
        missed = {metric: violation for metric, violation in violations.items() if violation > 0}
        if not missed:
            return "measured, all limits met"
        return "; ".join(f"{metric} misses its limit by {violation:.1%}" for metric, violation in missed.items())

    def better(self, values: tuple[float, ...], than: tuple[float, ...]) -> bool:
        """Whether the first values dominate the second: no goal worse, one better."""
        pairs = [
            (value, other) if direction == "maximize" else (-value, -other)
            for direction, value, other in zip(self.goals.values(), values, than, strict=True)
        ]
        return all(value >= other for value, other in pairs) and any(value > other for value, other in pairs)
