"""Records as frames: what report, export and notebooks are made of."""

from typing import TYPE_CHECKING

from tuner.errors import ConfigError
from tuner.outcome import Outcome

if TYPE_CHECKING:
    import pandas as pd


def trials_frame(outcome: Outcome) -> "pd.DataFrame":
    """One row a trial, failed attempts and relaunches included.

    Columns: ``number, attempt, role, state, feasible, cause, reason, seconds, started_at, digest``; ``param.*``, the
    values by parameter (missing where the engine decides); every number of the measurement (durations in ms,
    throughput per s); ``violation.*``, by which share a limit is missed; ``phase.*``, seconds in each phase.
    """
    import pandas as pd

    rows = []
    for record in (*outcome.records, *outcome.relaunches):
        row = record.model_dump(include={"number", "attempt", "role", "state", "feasible", "started_at", "digest"})
        row |= {"feasible": record.feasible, "seconds": record.seconds}
        if record.failure:
            row |= {"cause": record.failure.cause, "reason": record.failure.line or record.failure.message}
        row |= {f"param.{name}": value for name, value in record.params.items()}
        if record.measurement:
            row |= record.measurement.model_dump(exclude={"failures", "long_prompts"})
        if record.verdict:
            row |= {f"violation.{name}": value for name, value in record.verdict.violations.items()}
        row |= {f"phase.{span.phase}": span.seconds for span in record.phases}
        rows.append(row)
    return pd.DataFrame(rows)


def export(outcome: Outcome, to: str) -> str:
    """All trials as text.

    Args:
        outcome: The study.
        to: ``csv`` or ``json`` (a list of objects).

    Raises:
        ConfigError: Another format.
    """
    if to not in ("csv", "json"):
        raise ConfigError(f"cannot export {to!r}", place="--format", fix="csv or json")
    frame = trials_frame(outcome)
    return frame.to_csv(index=False) if to == "csv" else frame.to_json(orient="records", indent=1)
