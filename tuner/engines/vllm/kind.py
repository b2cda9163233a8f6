"""vLLM as a kind of engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from tuner.engines.config import EngineConfig
from tuner.engines.kind import EngineKind, EngineLog
from tuner.engines.log.lines import LogLine
from tuner.engines.log.literals import Index
from tuner.engines.log.shapes import Shapes
from tuner.engines.vllm.commandline import CONVENTIONS
from tuner.engines.vllm.engine import VllmEngine
from tuner.engines.vllm.foresight import foresight_of
from tuner.engines.vllm.hints import HINTS
from tuner.engines.vllm.live import live_of
from tuner.engines.vllm.log import signs
from tuner.engines.vllm.log.degradations import NAMES, VllmDegradations
from tuner.engines.vllm.log.phases import phase_of
from tuner.engines.vllm.log.telling import sieve
from tuner.engines.vllm.parsers import misfits


class VllmConfig(EngineConfig):
    """vLLM, and what tuner adds to each launch of it."""

    known_degradations: ClassVar[frozenset[str]] = NAMES

    kind: Literal["vllm"] = "vllm"
    tuned_kernels: Path | None = None
    """A folder of this host with configurations of kernels for experts, as vLLM's ``benchmark_moe.py`` writes them, for
    ``VLLM_TUNED_CONFIG_FOLDER``. Containers see it under the same name."""

    @property
    def kernels(self) -> Path | None:
        """See ``EngineConfig.kernels``."""
        return None if self.tuned_kernels is None else self.tuned_kernels.expanduser().absolute()


def _announces(lines: Sequence[LogLine]) -> bool:
    return phase_of(lines) is not None


_LOG = EngineLog(signs.reader, Index([]), VllmDegradations, Shapes(_announces), sieve)

VLLM = EngineKind(VllmConfig, VllmEngine, CONVENTIONS, _LOG, foresight_of, HINTS, live_of, misfits)
"""Its logs need no signature: what no other engine wrote is vLLM's."""
