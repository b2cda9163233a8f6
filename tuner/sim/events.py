"""What a start is made of: log lines, waits and progress bars, in the order in which they happen."""

from dataclasses import dataclass
from typing import Literal

Who = Literal["api", "engine", "worker", "nobody"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the start begins; faults strike here.

    Attributes:
        name: One of ``faults.PHASES``.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Log:
    """A record of vLLM's logger.

    Attributes:
        who: Which process writes it.
        source: File and line in vLLM's source.
        text: What it says.
        level: ``INFO``, ``WARNING`` or ``ERROR``.
        rank: Which worker.
    """

    who: Who
    source: str
    text: str
    level: str = "INFO"
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """Lines that do not come from the logger.

    Attributes:
        who: Which process writes them.
        text: The lines.
        rank: Which worker.
    """

    who: Who
    text: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Work that prints nothing.

    Attributes:
        seconds: How long it takes on the real machine.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Work with a progress bar.

    Attributes:
        who: Which process shows it.
        label: What it is.
        total: Number of steps.
        seconds: How long all of them take on the real machine.
    """

    who: Who
    label: str
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Compiled:
    """The compile cache is written."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The server's main process ends.

    Attributes:
        code: Its exit status.
    """

    code: int


Event = Phase | Log | Raw | Pause | Bar | Compiled | Exit
