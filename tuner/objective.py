"""What is optimised, and under which limits: a measurement becomes a verdict."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tuner.errors import ConfigError, MeasurementError, Unmeasurable
from tuner.load.deciding import Deciding, support
from tuner.load.metrics import METRICS, Measurement
from tuner.load.naming import SATURATION, canonical, comparable, counted, meaning, parse
from tuner.load.quantities import Direction as Direction
from tuner.schema import Schema, without_nulls

_TOLD = ("preemptions", "prefix_hit_rate", "kv_tokens", "kv_requests")
"""What the server itself has to say."""
_COUNT_LIMIT = "such as {max: 0}"
_MORE_IS_BETTER = ("_per_s", "kv_tokens")
_LESS_IS_BETTER = ("_ms", "_s")


def direction(name: str) -> Direction | None:
    """Which way a metric is better; of a name that only records have, by its unit; ``None`` for what is neither."""
    if found := meaning(name):
        return found.quantity.way
    if name.endswith(_MORE_IS_BETTER):
        return "maximize"
    return "minimize" if name.endswith(_LESS_IS_BETTER) else None


def metric(measurement: Measurement, name: str) -> float:
    """One number of a measurement.

    Raises:
        MeasurementError: It was not measured.
        Unmeasurable: It never will be, as this server streams.
    """
    value = measurement.numbers.get(name)
    if value is None:
        raise _missing(measurement, name)
    return value


def _missing(measurement: Measurement, name: str) -> MeasurementError:
    """Why a number is missing, and what to do."""
    size, needed, message = (
        measurement.samples.get(name, 0),
        support(name),
        f"{name} was not measured, but the objective needs it",
    )
    if 0 < size < needed:
        fix = "name the median instead (p50), or raise workload.max_duration_s"
        return MeasurementError(f"{message}: it needs a sample of {needed}, and had {size}", fix=fix)
    if (found := meaning(name)) and found.quantity.name in _TOLD:
        return MeasurementError(f"{message}: the server does not tell", fix="leave it out of the objective")
    if name == SATURATION and not measurement.warnings:
        fix = "raise workload.saturation.most_stages or begin_rate"
        return MeasurementError(f"{message}: every rate that was sent was sustained", fix=fix)
    if measurement.warnings:
        fix = "change how the server streams, or leave the metric out of the objective"
        return Unmeasurable(f"{message}: {measurement.warnings[0]}", cause=Unmeasurable.CAUSE, fix=fix)
    return MeasurementError(message, fix="let the workload measure it")


def _compared(measurement: Measurement, name: str) -> float:
    return comparable(name, metric(measurement, name))


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

    @property
    def bound(self) -> float:
        """Whichever it is."""
        bound = self.max if self.max is not None else self.min
        assert bound is not None
        return bound

    @property
    def said(self) -> str:
        """``at most 1.1 × the deployed configuration's``, ``at least 200``."""
        word = "at most" if self.max is not None else "at least"
        of = " × the deployed configuration's" if self.of == "baseline" else ""
        return f"{word} {self.bound:g}{of}"

    def on(self, name: str) -> "Limit":
        """The same limit for values as ``comparable`` has them: of a count, half-way to what is just beyond it."""
        if not counted(name):
            return self
        return Limit(max=self.max + 1.5) if self.max is not None else Limit(min=self.bound + 0.5)

    def excess(self, value: float, baseline: float) -> float:
        """By which log the value is beyond the bound; negative where the limit is kept."""
        scale = baseline if self.of == "baseline" else 1.0
        if self.max is not None:
            return log(value / (self.max * scale))
        assert self.min is not None
        return log(self.min * scale / value)

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
    goals: dict[str, Direction] = Field(min_length=1)
    limits: dict[str, Limit] = Field(default_factory=dict)
    guard: Annotated[float, Field(gt=0)] | None = 0.25
    """No metric may get worse beyond noise by more than this share, limited or not; null lets all of them."""
    unguarded: tuple[str, ...] = ()
    """Metrics that may get worse by more than the guard."""

    @field_validator("goals", "limits", mode="before")
    @classmethod
    def _one_name_each(cls, raw: Any) -> Any:
        return without_nulls(_by_one_name(raw))

    @field_validator("unguarded")
    @classmethod
    def _by_their_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical, names))

    @field_validator("goals", "limits")
    @classmethod
    def _metrics_exist(cls, by_metric: Mapping[str, object]) -> Mapping[str, object]:
        if mistakes := [text for name in by_metric if (text := _mistake(name))]:
            raise ValueError("; ".join(mistakes))
        return by_metric

    @model_validator(mode="after")
    def _counts_are_limits(self) -> "Objective":
        """What may be 0 has no ratio, neither to a baseline nor as a gain."""
        if wrong := next(filter(counted, self.goals), None):
            raise ValueError(f"{wrong} may be 0, so that no gain can be said of it: make it a limit, {_COUNT_LIMIT}")
        for name, limit in self.limits.items():
            if counted(name) and limit.of == "baseline":
                raise ValueError(f"{name} may be 0, which has no multiples: make its limit absolute, {_COUNT_LIMIT}")
            if not counted(name) and limit.bound <= 0:
                raise ValueError(f"{name}: a bound of {limit.bound:g} is never kept: give one above 0")
        return self

    def check_unguarded(self) -> None:
        """What is exempt from the guard has to be something; studies of earlier versions were not asked.

        Raises:
            ConfigError: It is not.
        """
        for name in self.unguarded:
            if mistake := _mistake(name):
                raise ConfigError(mistake, place="objective.unguarded", fix="correct the name, or leave it out")

    @property
    def deciding(self) -> Deciding:
        """The metrics that a measurement must know well enough."""
        return Deciding(tuple(self.goals), tuple(self.limits))

    @property
    def needs_baseline(self) -> bool:
        """Whether a limit is a multiple of what the baseline measured."""
        return bool(self.shares)

    @property
    def shares(self) -> list[str]:
        """The limits that are multiples of what the baseline measured."""
        return [name for name, limit in self.limits.items() if limit.of == "baseline"]

    def judge(self, measurement: Measurement, baseline: Measurement) -> Verdict:
        """The verdict on a measurement.

        Args:
            measurement: What was measured.
            baseline: What trial 0 measured, by which relative limits are scaled; the measurement itself for trial 0.

        Raises:
            MeasurementError: A metric that the objective needs was not measured.
        """
        values = tuple(metric(measurement, name) for name in self.goals)
        violations = {
            name: limit.on(name).violation(_compared(measurement, name), _compared(baseline, name))
            for name, limit in self.limits.items()
        }
        return Verdict(values=values, violations=violations, reason=self._reason(violations))

    def _reason(self, violations: Mapping[str, float]) -> str:
        missed = {name: violation for name, violation in violations.items() if violation > 0}
        if not missed:
            return "measured, all limits met"
        return "; ".join(f"{name} misses its limit by {violation:.1%}" for name, violation in missed.items())

    def gains(self, values: tuple[float, ...], over: tuple[float, ...]) -> tuple[float, ...]:
        """By which share each goal is better than in another configuration; negative where it is worse."""
        pairs = zip(self.goals.items(), values, over, strict=True)
        ratios = [(way, comparable(name, value) / comparable(name, other)) for (name, way), value, other in pairs]
        return tuple(ratio - 1 if way == "maximize" else 1 - ratio for way, ratio in ratios)


def _by_one_name(raw: Any) -> Any:
    """Goals or limits by the one name of each metric, however it is spelt; what comes later counts.

    A dot in a key of the command line begins a level: ``objective.limits.ttft_ms.p95.max=900`` is one of ``ttft_ms``.
    """
    if not isinstance(raw, Mapping):
        return raw
    found: dict[Any, Any] = {}
    for name, given in _flat(raw):
        before = found.get(name)
        found[name] = {**before, **given} if isinstance(before, Mapping) and isinstance(given, Mapping) else given
    return found


def _flat(raw: Mapping[Any, Any], place: str = "") -> Iterator[tuple[Any, Any]]:
    for key, given in raw.items():
        name = f"{place}{key}"
        if isinstance(given, Mapping) and given and not set(given) & set(Limit.model_fields):
            yield from _flat(given, f"{name}.")
        else:
            yield canonical(name), given


def _mistake(name: str) -> str | None:
    """What is wrong with a name, and what to write; ``None`` if nothing is."""
    try:
        parse(name)
    except ValueError as error:
        valid = f" (valid: {', '.join(METRICS)}, and names such as ttft_ms.p95: docs/metrics.md)"
        return f"{error}{valid if str(error).startswith('no such metric') else ''}"
    return None
