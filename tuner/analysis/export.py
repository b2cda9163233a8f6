"""The frames as files for other programs."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from tuner.analysis import frames
from tuner.errors import ConfigError
from tuner.records.outcome import Outcome

TABLES: Mapping[str, Callable[[Outcome], pd.DataFrame]] = {
    "trials": frames.trials,
    "requests": frames.requests,
    "phases": frames.phases,
    "failures": frames.failures,
}
"""What can be exported, by name."""

FORMATS = ("csv", "json", "parquet")


def export(outcome: Outcome, to: str, path: Path | None = None, table: str = "trials") -> str | None:
    """Write one of the frames, with the columns that ``documented`` explains.

    Args:
        outcome: The study.
        to: ``csv``, ``json`` (a list of objects) or ``parquet``.
        path: Where to; ``None`` returns the text instead.
        table: A key of ``TABLES``.

    Raises:
        ConfigError: Another format or table, parquet without a file or without pyarrow.
    """
    _check(to, path, table)
    frame = TABLES[table](outcome)
    if to == "parquet":
        _plain(frame).to_parquet(path, index=False)
        return None
    text = frame.to_csv(index=False) if to == "csv" else frame.to_json(orient="records", indent=1) + "\n"
    if path is None:
        return str(text)
    path.write_text(text, encoding="utf-8")
    return None


def _check(to: str, path: Path | None, table: str) -> None:
    if to not in FORMATS:
        raise ConfigError(f"cannot export {to!r}", place="--format", fix=", ".join(FORMATS))
    if table not in TABLES:
        raise ConfigError(f"there is no table {table!r}", place="--table", fix=", ".join(TABLES))
    if to == "parquet" and find_spec("pyarrow") is None:
        raise ConfigError("parquet needs pyarrow", place="--format", fix="pip install -e '.[parquet]', or csv, json")
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder", place="--output", fix="make it, or write elsewhere")
    if to == "parquet" and path is None:
        raise ConfigError("parquet is no text", place="--format", fix="say --output FILE")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of one kind each, as parquet needs them: where words, switches and numbers mix, all become words."""
    plain = frame.copy()
    for name in frame.columns:
        kinds = {type(cell) for cell in frame[name].dropna()}
        if len(kinds) > 1 and not kinds <= {int, float}:
            plain[name] = [None if pd.isna(cell) else str(cell) for cell in frame[name]]
    return plain
