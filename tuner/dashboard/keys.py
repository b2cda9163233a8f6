"""The names under which optuna-dashboard 0.21 looks for things in a storage.

They are no public interface, so they are here and nowhere else. ``tests/dashboard/test_dashboard_keys.py`` checks each
of them against Optuna and the dashboard themselves, and pyproject.toml bounds the dashboard's version.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def constraints(violations: Iterable[float]) -> tuple[str, list[float]]:
    """A trial's system attribute with its violated limits; the dashboard still reads Optuna 4's name for it."""
    return "constraints", list(violations)


def artifact(identity: str, filename: str, mimetype: str) -> tuple[str, str]:
    """The system attribute of an artifact: what ``optuna.artifacts.upload_artifact`` writes.

    That function would copy the file and choose an id of its own.
    """
    meta = {"artifact_id": identity, "filename": filename, "mimetype": mimetype, "encoding": None}
    return f"artifacts:{identity}", json.dumps(meta)


def has_note(of_study: Mapping[str, Any], trial_id: int) -> bool:
    """Whether a trial has a note, by the system attributes of its study."""
    return f"dashboard:{trial_id}:note_ver" in of_study
