"""Which kinds of engines there are. A further one is a package of its own, and a line here."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails

from tuner.engines import llamacpp, sglang
from tuner.engines.config import EngineConfig
from tuner.engines.kind import EngineKind, EngineLog
from tuner.engines.vllm.kind import VLLM

ENGINES: dict[str, EngineKind] = {
    "vllm": VLLM,
}

LOGS: tuple[EngineLog, ...] = (llamacpp.LOG, sglang.LOG)
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


def _configured(raw: Any) -> Any:
    """What is given for an engine, as the configuration of its kind."""
    if not isinstance(raw, Mapping):
        return raw
    kind = raw.get("kind", DEFAULT)
    if kind not in tuple(ENGINES):  # it may be anything, also what has no hash
        raise _no_such(kind)
    return ENGINES[kind].config.model_validate(raw)


def _no_such(kind: Any) -> ValidationError:
    expected = " or ".join(repr(name) for name in ENGINES)
    mistake = InitErrorDetails(type="literal_error", loc=("kind",), input=kind, ctx={"expected": expected})
    return ValidationError.from_exception_data("engine", [mistake])


AnyEngine = Annotated[SerializeAsAny[EngineConfig], BeforeValidator(_configured)]
"""The configuration of any kind of engine."""
