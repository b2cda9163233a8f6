"""A measurement in words: a line a number, with its unit, its interval and its sample."""

from collections.abc import Sequence

from tuner import words
from tuner.load.counters import EngineCounters
from tuner.load.deciding import stage_of, support
from tuner.load.metrics import METRICS, Measurement
from tuner.load.plan import Skipped
from tuner.records.record import TrialRecord

_LEAST = 24
"""Characters of the first column."""


def text(record: TrialRecord) -> str:
    """A measurement for a person: a line a number, with unit, interval and sample, or why there is none.

    Args:
        record: Of a trial that was measured.
    """
    measurement = record.measurement
    assert measurement is not None
    names = _names(measurement, record.skipped)
    lines = [_row(name, _said(name, measurement, record.skipped), max(map(len, names))) for name in names]
    if record.warm_up:
        lines.append(_row("prompts", record.warm_up.prompts))
    lines.append(_row("requests", f"{measurement.completed} completed, {measurement.failed} failed"))
    lines += (_row("", f"{count} × {reason}") for reason, count in measurement.failures.items())
    if measurement.engine:
        lines.append(_row("the server counted", _counted(measurement.engine)))
    return "\n".join([*lines, *(f"warning: {warning}" for warning in measurement.warnings)])


def _row(name: str, said: str, longest: int = _LEAST) -> str:
    return f"{name:<{max(longest, _LEAST)}} {said}"


def _names(measurement: Measurement, skipped: Sequence[Skipped]) -> list[str]:
    """All metrics, and the TTFTs of the long prompts that were sent or left out."""
    sent = [f"ttft_{prompt.asked_tokens}" for prompt in measurement.long_prompts]
    left_out = [each.what for each in skipped if each.what.startswith("ttft_")]
    long = (f"{stage}_{how}_ms" for stage in (*sent, *left_out) for how in ("cold", "cached"))
    return [*(name for name in METRICS if name != "startup_s"), *long, *measurement.named]


def _said(name: str, measurement: Measurement, skipped: Sequence[Skipped]) -> str:
    """One number, or why it is missing."""
    if (value := measurement.numbers.get(name)) is not None:
        return f"{_digits(value)} {words.metric(name).unit}".rstrip() + _certainty(measurement, name)
    if left_out := next((each for each in skipped if each.what == stage_of(name)), None):
        return f"skipped: {left_out.reason}"
    size, needed = measurement.samples.get(name, 0), support(name)
    too_small = f": needs a sample of {needed}, had {size}" if 0 < size < needed else ""
    return f"not measured{too_small}"


def _certainty(measurement: Measurement, name: str) -> str:
    """The interval and the sample of a number, where it has them."""
    interval, size = measurement.intervals.get(name), measurement.samples.get(name)
    between = f"  [{_digits(interval.low)}, {_digits(interval.high)}]" if interval else ""
    return between + (f"  n={size}" if size else "")


def _digits(value: float) -> str:
    """One place behind the point; three digits of what is small."""
    return f"{value:.1f}" if abs(value) >= 1 or not value else words.digits(value)


def _counted(engine: EngineCounters) -> str:
    """The server's own counters in the steady window of the concurrent stage."""
    told = (
        (engine.generation_tokens, "{:,.0f} tokens generated"),
        (engine.preemptions, "{:.0f} preemptions"),
        (engine.kv_usage_max, "{:.0%} of the KV cache at most"),
        (engine.waiting_mean, "{:.1f} requests waiting"),
    )
    return ", ".join(shown.format(value) for value, shown in told if value is not None) or "nothing"
