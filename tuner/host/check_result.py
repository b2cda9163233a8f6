"""What was found of this machine, for ``tuner doctor``."""

from enum import StrEnum

from tuner.schema import Schema


class CheckState(StrEnum):
    """How a finding is."""

    OK = "ok"
    NOTE = "note"
    """Something cannot be done here that may not be wanted."""
    MISSING = "missing"


class CheckResult(Schema):
    """One thing that was looked at."""

    name: str
    state: CheckState
    text: str
    fix: str = ""
