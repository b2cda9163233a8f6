"""A measurement as a person reads it."""

from tests.simulated import simulated_study
from tuner.bench.text import text
from tuner.load.intervals import Interval
from tuner.load.plan import Skipped


def test_numbers_have_units_intervals_samples_or_the_reason_why_they_are_missing(tmp_path):
    record = simulated_study(tmp_path, 1).records[0]
    known = {"output_tokens_per_s": 190.0, "intervals": {"output_tokens_per_s": Interval(186.0, 194.0, 25)}}
    more = {"samples": {"output_tokens_per_s": 25, "ttft_p95_ms": 25}, "warnings": ("in lumps",), "tool_call_ms": None}
    measurement = record.measurement.model_copy(update={**known, **more, "ttft_p95_ms": None})
    skipped = (Skipped("tool_call", "too long"), Skipped("ttft_90000", "too long as well"))
    lines = text(record.model_copy(update={"measurement": measurement, "skipped": skipped})).splitlines()
    assert "output_tokens_per_s      190.0 tokens/s  [186.0, 194.0]  n=25" in lines
    assert "ttft_p95_ms              not measured: needs a sample of 100, had 25" in lines
    assert "tool_call_ms             skipped: too long" in lines
    assert "ttft_90000_cold_ms       skipped: too long as well" in lines
    assert lines[-1] == "warning: in lumps"
