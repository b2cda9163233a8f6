"""A result that was saved: a measurement of tuner's own, or the file of ``vllm bench serve``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from tuner import composing
from tuner.bench import vllm_result
from tuner.bench.running import SavedMeasurement
from tuner.errors import ConfigError
from tuner.load.metrics import Measurement
from tuner.load.records import RequestRecord, read_records
from tuner.load.workload import Workload
from tuner.reading import bytes_of
from tuner.records.folder import TrialFolder
from tuner.records.readings import numbers
from tuner.records.record import TrialRecord
from tuner.schema import config_error


@dataclass(frozen=True, slots=True)
class Saved:
    """One result.

    Attributes:
        path: Where it is.
        numbers: By metric.
        workload: The traffic that it was measured with; ``None`` where nobody wrote it down.
        by_vllm: Whether its numbers are by vLLM's definitions; else by tuner's.
        model: The model's name.
    """

    path: Path
    numbers: Mapping[str, float]
    workload: Workload | None
    by_vllm: bool
    model: str | None

    def same_kind(self, measured: SavedMeasurement) -> Mapping[str, float]:
        """The numbers of a measurement by the definitions of this result."""
        if self.by_vllm:
            return vllm_of(measured).numbers
        return numbers(measurement_of(measured.record))


def read(path: Path) -> Saved:
    """Read a result: the folder or ``record.json`` of a measurement, or a result file of ``vllm bench serve``.

    Raises:
        ConfigError: It is neither, or holds no measurement.
    """
    file = path / "record.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"{file} is not there", fix="name a URL, a folder in studies/bench/trials, or a result file")
    if "tuner_version" not in _keys(file):
        theirs = vllm_result.read(file)
        return Saved(file, theirs.numbers, theirs.workload, by_vllm=True, model=theirs.model_id)
    measured = kept(file.parent)
    own = numbers(measurement_of(measured.record))
    workload = measured.config.workload if measured.config else None
    return Saved(file, own, workload, by_vllm=False, model=_model(measured))


def kept(folder: Path) -> SavedMeasurement:
    """Read the folder of a measurement.

    Raises:
        ConfigError: Its record or configuration cannot be read by this version of tuner.
    """
    place = TrialFolder(folder)
    try:
        record = TrialRecord.model_validate_json(bytes_of(place.record))
    except ValidationError as error:
        raise ConfigError(f"{place.record} is no trial record of this version: {config_error(error)}") from error
    except FileNotFoundError:
        raise ConfigError(f"{place.record} is not there", fix="name the folder of a measurement") from None
    return SavedMeasurement(place, record, composing.read(place.config) if place.config.exists() else None)


def measurement_of(record: TrialRecord) -> Measurement:
    """The measurement of a record.

    Raises:
        ConfigError: It has none.
    """
    if record.measurement is None:
        said = record.failure.message if record.failure else "nothing was measured"
        raise ConfigError(f"this result holds no measurement: {said}")
    return record.measurement


def requests_of(folder: TrialFolder) -> list[RequestRecord]:
    """Every request of a measurement.

    Raises:
        ConfigError: They were not kept, or their file is damaged.
    """
    if not folder.requests.exists():
        raise ConfigError(f"{folder.requests} is not there: without its requests a result has only its own numbers")
    return read_records(folder.requests)


def vllm_of(measured: SavedMeasurement) -> vllm_result.VllmResult:
    """What ``vllm bench serve`` would have written of a measurement.

    Raises:
        ConfigError: Its requests were not kept.
        MeasurementError: Nothing of its concurrent stage completed.
    """
    record = measured.record
    scale = measurement_of(record).clock_scale
    when = datetime.fromisoformat(record.started_at)
    return vllm_result.result_of(
        requests_of(measured.folder),
        model=_model(measured) or "",
        when=when,
        scale=scale,
        note=f"tuner {record.tuner_version}",
        workload=measured.config.workload if measured.config else None,
    )


def _model(measured: SavedMeasurement) -> str | None:
    return measured.config.model.served_name if measured.config else None


def _keys(file: Path) -> Mapping[str, object]:
    try:
        raw = json.loads(bytes_of(file))
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} is no result: it holds a {type(raw).__name__}")
    return raw
