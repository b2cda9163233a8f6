"""A server's output on disk, read while it grows."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from tuner.lines import Lines

_PIECE = 1 << 20
_KEPT, _KEPT_CHARACTERS = 5_000, 8_000
"""So many lines are kept of each end of a log, and so much of each: what a start says of the server is there."""


def begin_log(path: Path) -> None:
    """Make an empty log for a launch; what an earlier one has written there is kept as ``server.1.log`` and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        path.rename(next(free for free in _aside(path) if not free.exists()))
    path.touch()


def _aside(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(1))


class ServerLog:
    r"""Follows a log file and yields its lines once, as ``tuner.lines`` cuts them.

    An unfinished last line is held back until its end comes, or until ``finish``.

    Args:
        path: The file; its secrets were redacted when it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cutter = Lines()
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._offset = 0

    @property
    def lines(self) -> list[str]:
        """What was read so far; of a long log its first and its last lines."""
        return [*self._first, *self._last]

    @property
    def unread(self) -> int:
        """How many calls of ``read_new`` it takes to read what the file holds now."""
        try:
            return -(-(self.path.stat().st_size - self._offset) // _PIECE)
        except FileNotFoundError:
            return 0

    def read_new(self) -> list[str]:
        """The next lines, a megabyte of them at most; none if the file is not there yet, or holds no more."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_PIECE)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        return self._keep(self._cutter.feed(data))

    def finish(self) -> list[str]:
        """All lines that are left, an unfinished last one as well: nothing more will come."""
        fresh = self.read_new()
        while self.unread:
            fresh += self.read_new()
        return fresh + self._keep(self._cutter.rest())

    def _keep(self, lines: Iterable[str]) -> list[str]:
        fresh = [line for line in lines if line.strip()]
        for line in fresh:
            kept = self._first if len(self._first) < _KEPT else self._last
            kept.append(line[:_KEPT_CHARACTERS])
        return fresh
