"""Requested is not always effective: what became of each setting of a launch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue

from tuner.schema import Schema


class Status(StrEnum):
    """What became of a setting."""

    HONOURED = "honoured"
    OVERRIDDEN = "overridden"
    """The engine runs with another value."""
    NO_EFFECT = "no effect"
    """The engine took it, and nothing reads it in this configuration."""
    UNKNOWN = "unknown"
    """The engine does not say."""


class EffectiveSetting(Schema):
    """One setting: what was asked, what runs."""

    name: str
    """Flag with underscores, dotted into a flag's JSON, or environment variable."""
    requested: JsonValue
    effective: JsonValue
    """Null where it is not known."""
    status: Status
    by: str | None = None
    """What overrode it, where the engine says so."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What a running server says of itself.

    Attributes:
        log: Its start-up lines.
        server_info: The body of its configuration endpoint; ``None`` if it has none.
        metrics: The body of its metrics endpoint; ``None`` if it has none.
    """

    log: Sequence[str]
    server_info: str | None = None
    metrics: str | None = None
