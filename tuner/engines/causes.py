"""Why a server failed, and what follows from it: the one table from cause to error to action.

The causes are engine-neutral; each engine brings its own log shapes (``engines/vllm/signs.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from tuner import errors
from tuner.engines.log.lines import plain


class Cause(StrEnum):
    """The root cause of a server's end, in one word; ``HEALTHY`` and ``UNKNOWN`` included."""

    CUDA_OOM = "cuda_oom"
    INSUFFICIENT_FREE_MEMORY = "insufficient_free_memory"
    NO_KV_CACHE = "no_kv_cache"
    CONTEXT_EXCEEDS_KV_CACHE = "context_exceeds_kv_cache"
    HOST_OOM = "host_oom"
    BAD_FLAG = "bad_flag"
    UNSUPPORTED = "unsupported"
    MODEL_NOT_FOUND = "model_not_found"
    DISTRIBUTED = "distributed"
    PORT_IN_USE = "port_in_use"
    DRIVER = "driver"
    DISK_FULL = "disk_full"
    ENGINE_DIED = "engine_died"
    STALLED = "stalled"
    V0_FALLBACK = "v0_fallback"
    DEGRADED = "degraded"
    HEALTHY = "healthy"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What the study does after a trial ended with a cause."""

    TEACH = "teach"
    """The configuration is at fault: prune it and let the search learn."""
    RETRY = "retry"
    """This machine may be at fault: try again, then stop the study."""
    STOP = "stop"
    """No retry can help: stop the study and say what to do."""
    NONE = "none"
    """Nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What is known of a server from elsewhere than its log.

    Attributes:
        running: Whether the process still lives.
        exit_code: Its exit status once it ended; negative for a signal, as ``subprocess`` has it.
        oom_killed: Whether the kernel or the container engine reported an out-of-memory kill.
        stalled_phase: The start-up phase whose time limit passed without progress, if one did.
    """

    running: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    stalled_phase: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one server's run; the whole input of a diagnosis.

    Attributes:
        log: The log's lines so far, without line ends, oldest first.
        running: As ``Fate`` has it, like the others.
    """

    log: Sequence[str]
    running: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    stalled_phase: str | None = None

    @property
    def fate(self) -> Fate:
        """What of it is not in the log."""
        return Fate(self.running, self.exit_code, self.oom_killed, self.stalled_phase)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the evidence says.

    Attributes:
        cause: The root cause, never the wrapper line that every failure ends in.
        line: The log line that decided it, as it stands in the log; ``None`` where no line did.
        line_number: Its place in the log, counted from 1.
        numbers: The figures in that line, by names that carry the unit (``free_gib``, ``max_model_len``).
        advice: What to do about it, in one sentence.
        engine_version: The engine's version, where the log names it.
        confidence: ``certain`` for an exact known shape, ``likely`` for a family of shapes, else ``guess``.
        machine: Whether this machine is at fault, though it usually is the configuration with this cause.
        lasting: Whether it would end so at every start: no retry can help, though the cause's name says nothing of it.
        cut: How many lines of the log were too long to be read whole.
    """

    cause: Cause
    line: str | None = None
    line_number: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""
    engine_version: str | None = None
    confidence: Literal["certain", "likely", "guess"] = "certain"
    machine: bool = False
    lasting: bool = False
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a cause means for the study."""

    error: type[errors.TrialError] | None
    action: Action


CONSEQUENCES: Mapping[Cause, Consequence] = {
    Cause.CUDA_OOM: Consequence(errors.OutOfMemory, Action.TEACH),
    Cause.INSUFFICIENT_FREE_MEMORY: Consequence(errors.OutOfMemory, Action.TEACH),
    Cause.NO_KV_CACHE: Consequence(errors.OutOfMemory, Action.TEACH),
    Cause.CONTEXT_EXCEEDS_KV_CACHE: Consequence(errors.ContextExceedsKvCache, Action.TEACH),
    Cause.HOST_OOM: Consequence(errors.HostOutOfMemory, Action.RETRY),
    Cause.BAD_FLAG: Consequence(errors.LaunchRejected, Action.TEACH),
    Cause.UNSUPPORTED: Consequence(errors.LaunchRejected, Action.TEACH),
    Cause.MODEL_NOT_FOUND: Consequence(errors.InfrastructureError, Action.STOP),
    Cause.DISTRIBUTED: Consequence(errors.InfrastructureError, Action.RETRY),
    Cause.PORT_IN_USE: Consequence(errors.PortTaken, Action.RETRY),
    Cause.DRIVER: Consequence(errors.EngineUnavailable, Action.STOP),
    Cause.DISK_FULL: Consequence(errors.InfrastructureError, Action.STOP),
    Cause.ENGINE_DIED: Consequence(errors.Unexplained, Action.RETRY),
    Cause.STALLED: Consequence(errors.NotReady, Action.TEACH),
    Cause.V0_FALLBACK: Consequence(errors.Degraded, Action.TEACH),
    Cause.DEGRADED: Consequence(errors.Degraded, Action.TEACH),
    Cause.HEALTHY: Consequence(None, Action.NONE),
    Cause.UNKNOWN: Consequence(errors.Unexplained, Action.RETRY),
}


_LASTING = Consequence(errors.LaunchRejected, Action.TEACH)
"""Of a failure without a name that this image or environment would end in at every start with these settings."""
_MACHINE = Consequence(errors.GpuBusy, Action.RETRY)
"""Of a failure that is usually the configuration's and that another process brought about."""


def consequence_of(diagnosis: Diagnosis) -> Consequence:
    """What a diagnosis means for the study."""
    if diagnosis.machine:
        return _MACHINE
    return _LASTING if diagnosis.lasting else CONSEQUENCES[diagnosis.cause]


def error_of(diagnosis: Diagnosis, message: str) -> errors.TrialError | None:
    """The error that a diagnosis stands for, or ``None`` when it is healthy."""
    kind = consequence_of(diagnosis).error
    if kind is None:
        return None
    return kind(
        message,
        cause=diagnosis.cause.value,
        line=diagnosis.line,
        numbers=diagnosis.numbers,
        fix=diagnosis.advice,
    )


def described(diagnosis: Diagnosis) -> str:
    """A diagnosis for a person: cause and certainty, the line that decided it, its figures, what to do."""
    place = "" if diagnosis.line_number is None else f" (line {diagnosis.line_number})"
    line = plain(diagnosis.line or "none decides it").strip()
    rows = [
        ("cause", f"{diagnosis.cause} ({diagnosis.confidence})"),
        ("line", f"{line}{place}"),
        ("numbers", ", ".join(f"{name} {value:g}" for name, value in diagnosis.numbers.items())),
        ("do", diagnosis.advice),
        ("engine", diagnosis.engine_version or ""),
        ("study", _CONSEQUENCE_SPOKEN[consequence_of(diagnosis).action]),
        ("note", f"{diagnosis.cut} lines were too long to be read whole" if diagnosis.cut else ""),
    ]
    return "\n".join(f"{name:<8} {text}" for name, text in rows if text)


_CONSEQUENCE_SPOKEN: Mapping[Action, str] = {
    Action.TEACH: "a trial that ends so is pruned, and the search learns from it",
    Action.RETRY: "a trial that ends so is tried again: the machine may be at fault",
    Action.STOP: "a study that meets it stops: no retry can help",
    Action.NONE: "nothing is wrong",
}
