"""What one kind of engine is made of: an engine's package says it once, and the registry lists it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from tuner.engines.base import Conventions, Engine, Hints, LogReader
from tuner.engines.config import EngineConfig
from tuner.engines.foresight import Foresight, Premises
from tuner.engines.live import Live, NoLive
from tuner.engines.log.degradations import DegradationReader
from tuner.engines.log.literals import Index
from tuner.engines.log.shapes import Shapes
from tuner.engines.log.sieve import Sieve

NOTHING = Shapes(lambda lines: False)


def no_degradations() -> DegradationReader:
    """Reads the logs of an engine whose degradations nobody has listed."""
    return DegradationReader((), NOTHING)


@dataclass(frozen=True, slots=True)
class EngineLog:
    """How the logs of one engine are recognised and read.

    Attributes:
        reader: Reads one log as it grows.
        wrote: Finds what only this engine writes.
        degradations: Keeps what it silently does slower.
        announces: Lines on the way to a server that serves.
        sieve: Makes what finds the lines that may say anything to any of these; ``None`` where all are to be read.
    """

    reader: Callable[[], LogReader]
    wrote: Index[bool]
    degradations: Callable[[], DegradationReader] = no_degradations
    announces: Shapes[bool] = NOTHING
    sieve: Callable[[], Sieve] | None = None


def _all_fit(model: str, args: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Nothing is known of models."""
    return ()


def _no_live(version: str | None, args: Mapping[str, JsonValue]) -> Live | NoLive:
    return NoLive("this engine takes no other settings while it runs")


def _nothing(premises: Premises) -> Foresight:
    return Foresight()


@dataclass(frozen=True, slots=True)
class EngineKind:
    """A kind of engine.

    Attributes:
        config: What a configuration says of it; its ``kind`` is a literal.
        engine: Makes the engine of an executable and a model.
        conventions: How its command lines and environments are written.
        log: How its logs are recognised and read.
        foresight: Makes what is known of launches before the first.
        hints: What the search knows of its settings before the first.
        live: Which settings a running server of a version can change, given the deployment's flags.
        misfits: What of a deployment's flags does not fit the model of this name, in sentences.
    """

    config: type[EngineConfig]
    engine: Callable[[tuple[str, ...], str], Engine]
    conventions: Conventions
    log: EngineLog
    foresight: Callable[[Premises], Foresight] = _nothing
    hints: Hints = field(default_factory=Hints)
    live: Callable[[str | None, Mapping[str, JsonValue]], Live | NoLive] = _no_live
    misfits: Callable[[str, Mapping[str, JsonValue]], tuple[str, ...]] = _all_fit
