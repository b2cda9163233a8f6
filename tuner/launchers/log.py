"""A server's output on disk, read while it grows."""

from pathlib import Path


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
