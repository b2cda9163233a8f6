"""Every error that tuner raises on purpose, by who is to blame.

::

    TunerError
    ├── ConfigError              the user's YAML or command line: stop before trial 0, name the place and the fix
    ├── InfeasibleConfig         this configuration cannot run here: teach the search, continue
    │   ├── RuleViolated             a rule of the space or of the site forbids it
    │   ├── PredictedOutOfMemory     the memory model rules it out before a launch
    │   ├── LaunchRejected           the engine refused a flag, a value or a combination
    │   ├── OutOfMemory              GPU memory ran out, in start-up or under load
    │   ├── ContextExceedsKvCache    one request of max-model-len does not fit in the KV cache
    │   ├── NotReady                 a start-up phase passed its bound without progress
    │   ├── RequestsRefused          it serves, but refuses the workload's own requests, every time
    │   ├── Unmeasurable             it serves, but so that a number that decides cannot be had, every time
    │   └── Degraded                 it runs, but silently with something slower than was asked for
    ├── InfrastructureError      this machine, not this configuration: retry, then stop with what to do
    │   ├── EngineUnavailable        Docker, or the server's executable, is not there
    │   ├── ImageMissing             no such image
    │   ├── GpuBusy                  others hold the GPU or its memory
    │   ├── PortTaken                somebody listens on the port already
    │   ├── HostOutOfMemory          the host, not the GPU, ran out of memory
    │   └── Unexplained              the server died and its log does not say why: never a guess that teaches the search
    └── MeasurementError         the numbers would lie: too few completions, a saturated client, drift

``cli`` prints any of these without a traceback; anything else that escapes is a bug of ours.
"""

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, float] = MappingProxyType({})


class TunerError(Exception):
    """Base of all errors that are meant for a person.

    Args:
        message: What happened, with the offending values.
        fix: What the reader can do about it; empty when there is nothing to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class ConfigError(TunerError):
    """The user's configuration is wrong.

    Args:
        message: What is wrong, with the value given and the valid ones.
        place: Where: a dotted config key, or a file and line.
        fix: What to write instead.
    """

    exit_code = 2

    def __init__(self, message: str, *, place: str = "", fix: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message, fix=fix)
        self.place = place


class TrialError(TunerError):
    """A trial ended without a usable measurement; carries the evidence that says why.

    Args:
        message: One sentence for a person.
        cause: A word of ``tuner.engines.causes.Cause``.
        line: The log line that decided it, or ``None`` where no line did.
        numbers: What the line says in figures, with units in the names.
        fix: What the reader can do.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: str = "unknown",
        line: str | None = None,
        numbers: Mapping[str, float] = _NOTHING,
        fix: str = "",
    ) -> None:
        super().__init__(message, fix=fix)
        self.cause = cause
        self.line = line
        self.numbers = numbers


class InfeasibleConfig(TrialError):
    """This configuration cannot run here: the search learns from it."""


class RuleViolated(InfeasibleConfig):
    """A rule of the space or of the site forbids the candidate."""


class PredictedOutOfMemory(InfeasibleConfig):
    """The memory model rules the candidate out beyond its own measured error."""


class LaunchRejected(InfeasibleConfig):
    """The engine refused a flag, a value or a combination."""


class OutOfMemory(InfeasibleConfig):
    """GPU memory ran out."""


class ContextExceedsKvCache(InfeasibleConfig):
    """One request of the full context length does not fit in the KV cache."""


class NotReady(InfeasibleConfig):
    """A start-up phase passed its time limit without progress."""


class Degraded(InfeasibleConfig):
    """The engine runs, but silently with something slower than was asked for."""


class InfrastructureError(TrialError):
    """This machine is at fault, not the configuration: retried, then the study stops."""


class EngineUnavailable(InfrastructureError):
    """Docker, or the server's executable, is not there."""


class ImageMissing(InfrastructureError):
    """The container image does not exist."""


class GpuBusy(InfrastructureError):
    """Others hold the GPU or its memory."""


class PortTaken(InfrastructureError):
    """Somebody listens on the port already."""


class HostOutOfMemory(InfrastructureError):
    """The host ran out of memory."""


class Unexplained(InfrastructureError):
    """The server died or stalled and nothing says why."""


class LiveBroke(InfrastructureError):
    """The server ended of what was added to it so that its settings could be changed: it is launched without."""

    CAUSE = "live"


class MeasurementError(TrialError):
    """The numbers would lie, so there are none."""


class RequestsRefused(InfeasibleConfig, MeasurementError):
    """The server refuses the workload's own requests (HTTP 4xx), and would every time: no numbers, and no retry."""

    CAUSE = "refused"


class Unmeasurable(InfeasibleConfig, MeasurementError):
    """What the server streams has no such number (lumps, hidden tokens), and never will: no verdict, and no retry."""

    CAUSE = "unmeasurable"
