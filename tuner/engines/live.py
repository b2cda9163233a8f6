"""The contract of settings that a running server can change: one launch then measures several."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

Setting = Mapping[str, JsonValue]
"""Values by flag, with underscores, that are in force together."""


@dataclass(frozen=True, slots=True)
class NoLive:
    """Why the settings of a server cannot be changed while it runs."""

    reason: str


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """What a server's log says of its live settings.

    Attributes:
        most: The largest values that it takes, by setting: those of its start, where it was started with as much.
            Empty where it has said nothing.
        engines: How many engine processes have said so: with data parallelism each has a scheduler of its own.
        confirmed: How many of them have put the change that was asked about in force.
        refused: Why one of them has refused it; empty if none has.
    """

    most: Setting
    engines: int = 0
    confirmed: int = 0
    refused: str = ""


class Live(ABC):
    """How settings are changed in a running server: over files in a folder that it sees, confirmed in its log.

    Attributes:
        settings: The flags, with underscores. A server takes any value up to that of its start.
    """

    settings: tuple[str, ...]

    @property
    @abstractmethod
    def args(self) -> Mapping[str, JsonValue]:
        """Flags of a launch whose settings are to be changed; never part of a deployment."""

    @abstractmethod
    def env(self, folder: str) -> Mapping[str, str]:
        """Variables of such a launch.

        Args:
            folder: The folder as the server sees it; what is in it can be imported there.
        """

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Put what the server needs into the folder, before it is started."""

    @abstractmethod
    def ask(self, folder: Path, change: int, setting: Setting) -> None:
        """Ask for a change.

        Args:
            folder: The same.
            change: Its number, from 1.
            setting: All values that are to be in force; what is left out goes back to the value of the start.
        """

    @abstractmethod
    def status(self, log: Sequence[str], change: int = 0) -> LiveStatus:
        """What the log says, of the change of this number above all."""

    @abstractmethod
    def broke(self, log: Sequence[str]) -> bool:
        """Whether a server ended of what was added to it here, and not of its own configuration."""

    @abstractmethod
    def doubt(self, setting: Setting, started: Mapping[str, JsonValue]) -> str:
        """Why a reading of a setting is not to be believed before it has been launched; empty where it is.

        Args:
            setting: What was measured.
            started: All settings of the server that it was measured in, numbers among them.
        """
