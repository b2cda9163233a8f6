"""A scheduler of the user's own, as ``--scheduler-cls`` names it: made as vLLM makes it, and heard as vLLM's own is."""

import logging
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from tuner.sim import log
from tuner.sim.log import Process
from tuner.sim.memory import MemoryPlan
from tuner.sim.scheduler import Scheduler, SchedulerConfig
from tuner.sim.settings import Settings


class _Config:
    """What a scheduler is made of: the part of vLLM's configuration that one may look at."""

    def __init__(self, settings: Settings, plan: MemoryPlan) -> None:
        self.settings, self.plan = settings, plan
        self.model_config = SimpleNamespace(is_diffusion=False)
        self.scheduler_config = _Choosing(settings)


class _Choosing(SchedulerConfig):
    def get_scheduler_cls(self) -> type[Scheduler]:
        """The engine's own choice."""
        return _Own


class _Own(Scheduler):
    """The engine's own scheduler, made as a foreign one makes its base."""

    def __init__(self, vllm_config: _Config) -> None:
        super().__init__(vllm_config.settings, vllm_config.plan)


def scheduler_of(settings: Settings, plan: MemoryPlan, name: str | None) -> Scheduler:
    """The engine's own scheduler, or the one of this name, ``module.Class``.

    Raises:
        ImportError: There is no such module.
    """
    if name is None:
        return Scheduler(settings, plan)
    module, _, attribute = name.rpartition(".")
    make: Any = getattr(import_module(module), attribute)
    made: Scheduler = make(vllm_config=_Config(settings, plan))
    return made


class _Lines(logging.Handler):
    """Writes what is logged below ``vllm`` as vLLM does."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        log.line(self._process, record.levelname, f"{record.filename}:{record.lineno}", record.getMessage())


def schedulers_log(process: Process) -> None:
    """From now on a scheduler's log lines are the engine's."""
    vllm = logging.getLogger("vllm")
    vllm.setLevel(logging.INFO)
    vllm.addHandler(_Lines(process))
