"""Where servers run, if that is not this host as it is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inside:
    """An image whose programs can be asked.

    Attributes:
        identity: What changes with its programs: its digest.
        ask: Runs a command in a container of it; returns what that printed.
    """

    identity: str
    ask: Callable[[tuple[str, ...]], str]
