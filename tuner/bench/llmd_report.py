"""llm-d's Benchmark Report 0.2 of a measurement: its concurrent stage, over the requests of the steady window.

https://github.com/llm-d/llm-d-benchmark; the package ``llmd-benchmark-report`` (an extra) checks what is written. Its
schema wants a mean of every distribution, and leaves out what is not known: percentiles that the sample does not carry.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import fmean, pstdev
from uuid import uuid4

from pydantic import JsonValue

from tuner.bench.running import SavedMeasurement
from tuner.bench.saved import measurement_of, requests_of
from tuner.errors import ConfigError
from tuner.load.metrics import Measurement
from tuner.load.naming import CONCURRENT, support_of
from tuner.load.percentile import percentile
from tuner.load.records import RequestRecord
from tuner.load.shapes import Length
from tuner.load.timing import itls_ms, tpot_ms
from tuner.load.workload import Workload
from tuner.records.record import TrialRecord

_PERCENTILES = (5, 25, 50, 75, 95, 99)
_UNKNOWN = "unknown"


def report_of(measured: SavedMeasurement) -> str:
    """The report as JSON.

    Raises:
        ConfigError: The package is not installed, or the measurement does not say what it was made with.
    """
    try:
        from llmd_benchmark_report import BenchmarkReportV02
    except ImportError:
        fix = "pip install -e '.[llmd]'"
        raise ConfigError("llm-d's report needs the package llmd-benchmark-report", fix=fix) from None
    text: str = BenchmarkReportV02.model_validate(fields_of(measured)).get_json_str()
    return text


def fields_of(measured: SavedMeasurement) -> dict[str, JsonValue]:
    """The report's fields.

    Raises:
        ConfigError: The measurement does not say what it was made with, or its requests were not kept.
    """
    if measured.config is None:
        raise ConfigError(
            f"{measured.folder.path} does not say with which traffic it was measured", fix="measure again"
        )
    measurement, workload = measurement_of(measured.record), measured.config.workload
    records = [record for record in requests_of(measured.folder) if record.stage == CONCURRENT]
    return {
        "version": "0.2",
        "run": _run(measured.record),
        "scenario": {"stack": [_stack(measured)], "load": _load(measured.record, workload)},
        "results": {"request_performance": {"aggregate": _aggregate(records, measurement)}},
    }


def _run(record: TrialRecord) -> dict[str, JsonValue]:
    start = datetime.fromisoformat(record.started_at)
    end = start + timedelta(seconds=record.seconds)
    return {
        "uid": str(uuid4()),
        "time": {"start": start.isoformat(), "end": end.isoformat(), "duration": f"PT{record.seconds:.3f}S"},
    }


def _stack(measured: SavedMeasurement) -> dict[str, JsonValue]:
    """The server; its hardware and settings are not ours to know."""
    record, config = measured.record, measured.config
    assert config is not None
    version = (record.facts and record.facts.engine_version) or _UNKNOWN
    return {
        "metadata": {"label": "server", "cfg_id": record.digest},
        "standardized": {
            "kind": "generic",
            "tool": config.engine.kind,
            "tool_version": version,
            "model": config.model.served_name,
        },
        "native": {},
    }


def _load(record: TrialRecord, workload: Workload) -> dict[str, JsonValue]:
    config = workload.model_dump(mode="json")
    digest = hashlib.sha256(workload.model_dump_json().encode()).hexdigest()[:16]
    return {
        "metadata": {"cfg_id": digest, "description": f"{workload.name}, the concurrent stage"},
        "standardized": {
            "tool": "tuner",
            "tool_version": record.tuner_version,
            "source": "random",
            "input_seq_len": _lengths(workload.prompt_tokens, workload.typical[0]),
            "output_seq_len": _lengths(workload.output_tokens, workload.typical[1]),
            "concurrency": workload.users,
        },
        "native": {"config": config},
    }


def _lengths(length: Length, typical: int) -> dict[str, JsonValue]:
    return {"distribution": "fixed" if isinstance(length, int) else "other", "value": typical}


def _aggregate(records: Sequence[RequestRecord], measurement: Measurement) -> dict[str, JsonValue]:
    scale, window = measurement.clock_scale, measurement.windows.get(CONCURRENT)
    sample = [r for r in records if r.completed and (window is None or window.holds(r.started_ms))]
    return {
        "requests": {
            "total": len(records),
            "failures": sum(record.failed for record in records),
            "incomplete": sum(record.cut for record in records),
            **_distribution("input_length", "count", [float(r.prompt_tokens or 0) for r in sample]),
            **_distribution("output_length", "count", [float(r.output_tokens or 0) for r in sample]),
        },
        "latency": {
            **_distribution("time_to_first_token", "ms", _scaled([record.ttft_ms for record in sample], scale)),
            **_distribution("time_per_output_token", "ms/token", _scaled(list(map(tpot_ms, sample)), scale)),
            **_distribution("inter_token_latency", "ms/token", [g * scale for r in sample for g in itls_ms(r)]),
            **_distribution("request_latency", "ms", _scaled([record.e2e_ms for record in sample], scale)),
        },
        "throughput": {
            **_rate("output_token_rate", "tokens/s", measurement.output_tokens_per_s),
            **_rate("request_rate", "queries/s", measurement.requests_per_s),
        },
    }


def _scaled(values: Sequence[float | None], scale: float) -> list[float]:
    return [value * scale for value in values if value is not None]


def _distribution(name: str, units: str, values: Sequence[float]) -> dict[str, JsonValue]:
    """Nothing at all where nothing was measured."""
    if not values:
        return {}
    carried = [percent for percent in _PERCENTILES if len(values) >= support_of(percent)]
    return {
        name: {
            "units": units,
            "mean": fmean(values),
            "stddev": pstdev(values),
            "min": min(values),
            "max": max(values),
            **{f"p{percent}": percentile(values, percent) for percent in carried},
        }
    }


def _rate(name: str, units: str, value: float | None) -> dict[str, JsonValue]:
    return {} if value is None else {name: {"units": units, "mean": value}}
