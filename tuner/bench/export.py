"""A measurement of a running server in the formats of other tools."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tuner.bench.llmd_report import report_of
from tuner.bench.running import SavedMeasurement
from tuner.bench.saved import kept, vllm_of
from tuner.errors import ConfigError


def _vllm(measured: SavedMeasurement) -> str:
    return vllm_of(measured).to_json()


_FORMATS: Mapping[str, Callable[[SavedMeasurement], str]] = {"vllm": _vllm, "llm-d": report_of}


def exported(result: Path, to: str) -> str:
    """A measurement as text.

    Args:
        result: Its folder, or the record in it.
        to: Name of the format.

    Raises:
        ConfigError: There is no such format or measurement, or the measurement lacks what the format needs.
    """
    if to not in _FORMATS:
        raise ConfigError(f"no such format {to!r} (valid: {', '.join(_FORMATS)})", place="--format")
    return _FORMATS[to](kept(result if result.is_dir() else result.parent))
