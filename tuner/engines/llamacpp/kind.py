"""llama.cpp's server as a kind of engine."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from tuner.engines.config import EngineConfig
from tuner.engines.kind import EngineKind, EngineLog
from tuner.engines.llamacpp.commandline import CONVENTIONS
from tuner.engines.llamacpp.engine import LlamaCppEngine
from tuner.engines.llamacpp.foresight import foresight_of
from tuner.engines.llamacpp.hints import HINTS
from tuner.engines.llamacpp.log import signs
from tuner.engines.llamacpp.log.degradations import NAMES, LlamaCppDegradations
from tuner.engines.llamacpp.log.phases import phase_of
from tuner.engines.llamacpp.log.telling import sieve
from tuner.engines.log.lines import LogLine
from tuner.engines.log.literals import Index
from tuner.engines.log.shapes import Shapes


class LlamaCppConfig(EngineConfig):
    """llama.cpp's server, and what tuner adds to each launch of it."""

    known_degradations: ClassVar[frozenset[str]] = NAMES

    kind: Literal["llamacpp"] = "llamacpp"


def _announces(lines: Sequence[LogLine]) -> bool:
    return phase_of(lines) is not None


_LOG = EngineLog(signs.reader, Index([(signs.WROTE, True)]), LlamaCppDegradations, Shapes(_announces), sieve)

LLAMACPP = EngineKind(LlamaCppConfig, LlamaCppEngine, CONVENTIONS, _LOG, foresight_of, HINTS)
"""The kind of a configuration with ``engine.kind: llamacpp``."""
