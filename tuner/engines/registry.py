"""Which kinds of engines there are. A further one is a package of its own, and a line here."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import SerializeAsAny

from tuner.engines import sglang
from tuner.engines.config import EngineConfig
from tuner.engines.kind import EngineKind, EngineLog
from tuner.engines.llamacpp.kind import LLAMACPP
from tuner.engines.vllm.kind import VLLM
from tuner.schema import of_kind

ENGINES: dict[str, EngineKind] = {
    "vllm": VLLM,
    "llamacpp": LLAMACPP,
}

LOGS: tuple[EngineLog, ...] = (sglang.LOG,)
"""Of engines whose logs are explained, and which are not tuned."""

DEFAULT = "vllm"
"""The kind of a configuration that names none, and of a log in which no engine's words are."""


def kind_of(config: EngineConfig) -> EngineKind:
    """The kind of engine that a configuration is of."""
    return ENGINES[config.kind]


def logs() -> Iterator[EngineLog]:
    """How the logs of each engine are read."""
    yield from LOGS
    yield from (kind.log for kind in ENGINES.values())


def _classes() -> Mapping[str, type[EngineConfig]]:
    return {name: kind.config for name, kind in ENGINES.items()}


AnyEngine = Annotated[SerializeAsAny[EngineConfig], of_kind(_classes, DEFAULT)]
"""The configuration of any kind of engine."""
