"""A server's output on disk, read while it grows."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path


def begin_log(path: Path) -> None:
    """Make an empty log for a launch; what an earlier one has written there is kept as ``server.1.log`` and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        path.rename(next(free for free in _aside(path) if not free.exists()))
    path.touch()


def _aside(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(1))


class ServerLog:
    r"""Follows a log file and yields its lines once.

    Carriage returns end a line as well, so that each step of a progress bar is seen when it is drawn. An unfinished
    last line is held back until its end comes, or until ``finish``.

    Args:
        path: The file; its secrets were redacted when it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._offset = 0

    def read_new(self) -> list[str]:
        """The lines that came since the last call; none if the file is not there yet."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._offset += end
        return self._keep(data[:end])

    def finish(self) -> list[str]:
        """Like ``read_new``, and takes an unfinished last line too: nothing more will come."""
        fresh = self.read_new()
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        return fresh + self._keep(data)

    def _keep(self, data: bytes) -> list[str]:
        text = data.decode("utf-8", "replace")
        fresh = [line for line in text.splitlines() if line.strip()]
        self.lines.extend(fresh)
        return fresh
