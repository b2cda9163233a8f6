"""An engine in fifty lines: the simulated server behind a command line of its own; nothing is known beforehand."""

import re
from dataclasses import dataclass
from typing import Literal

from tuner.engines.base import Command, Conventions, Engine
from tuner.engines.causes import Cause
from tuner.engines.config import EngineConfig
from tuner.engines.kind import EngineKind, EngineLog
from tuner.engines.log import platform as platform_signs
from tuner.engines.log.diagnosis import DiagnosticReader
from tuner.engines.log.literals import Index
from tuner.engines.log.reader import LogGrammar
from tuner.engines.log.signs import Rank, Sign

NEVER, READY = re.compile(r"(?!)"), re.compile(r"Application startup complete|toy: ready")
NO_ROOM = Sign(Cause.CUDA_OOM, Rank.EXACT, (r"toy: no room|less than desired GPU memory",), "Ask for less.")
READING = LogGrammar((NO_ROOM, *platform_signs.SIGNS), NEVER, NEVER, NEVER, READY, READY, READY, NEVER, NEVER)


class ToyConfig(EngineConfig):
    kind: Literal["toy"] = "toy"


@dataclass(frozen=True)
class ToyEngine(Engine):
    def command(self, args, env, alias):
        names = [args.get("served_model_name") or self.model, *([alias] if alias else [])]
        flags = [word for name, value in args.items() for word in written(name, value)]
        address = ("--host={host}", "--port={port}")
        return Command((*self.executable, self.model, *flags, "--served-model-name", *names, *address), {**env})

    def reader(self):
        return DiagnosticReader(READING)


def written(name, value):
    if value is None or name == "served_model_name":
        return []
    return switch(name, value).split() if isinstance(value, bool) else [f"--{name.replace('_', '-')}={value}"]


def switch(name, on):
    return f"--{name.replace('_', '-')}" if on else ""


LOG = EngineLog(lambda: DiagnosticReader(READING), Index([(re.compile("toy: "), True)]))
TOY = EngineKind(ToyConfig, ToyEngine, Conventions(switch, lambda argv, env: None), LOG)
