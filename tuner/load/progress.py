"""How far a stage has come, as the load worker tells while it sends: for people to watch, never to measure with."""

import json
from dataclasses import dataclass

from tuner.load.stage import Stage

EVERY_S = 0.5
_HEAD = b'{"answered":'


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage under way.

    Attributes:
        stage: Which one.
        answered: Requests that are over, failed ones included.
        elapsed_s: Wall time since the stage was sent to the worker.
    """

    stage: Stage
    answered: int
    elapsed_s: float


def tick(answered: int) -> bytes:
    """The line that the worker writes."""
    return _HEAD + f"{answered}}}\n".encode()


def answered_of(line: bytes) -> int | None:
    """The inverse of ``tick``; ``None`` for any other line of the worker."""
    return int(json.loads(line)["answered"]) if line.startswith(_HEAD) else None
