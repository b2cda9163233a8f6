"""A server's output on its way to the disk: redacted as it comes, so that no secret is ever in the file."""

import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tuner.secrets import MASK, hidden, hide, redacted

_CHUNK = 1 << 16
_LONGEST_HELD = 1 << 20
_KEPT = 1 << 16
"""No secret is longer."""
_SHORTEST_BEGUN = 4
_LAST_WORDS_S = 5.0
"""How long the last output of a server that has ended is waited for."""


def opened(path: Path) -> BinaryIO:
    """A log that grows, and that nobody but its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


class Redacting:
    """Takes a server's output in pieces and gives what of it may be written, secrets masked.

    It holds an unfinished line, so that no secret is cut in two; of one that does not end, as little as that takes.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """What a piece completes."""
        self._held += data
        if end := max(self._held.rfind(b"\n"), self._held.rfind(b"\r")) + 1:
            return _redacted(self._taken(end))
        if len(self._held) < _LONGEST_HELD:
            return b""
        self._held[:] = _redacted(bytes(self._held))
        return self._taken(len(self._held) - _KEPT)

    def pause(self) -> bytes:
        """What is held, but for the beginning of a secret whose rest may follow."""
        return _redacted(self._taken(len(self._held) - _begun(bytes(self._held))))

    def end(self) -> bytes:
        """What is held: nothing will follow, and the beginning of a secret is masked as well."""
        begun = _begun(bytes(self._held))
        return _redacted(self._taken(len(self._held) - begun)) + (MASK.encode() if begun else b"")

    def _taken(self, length: int) -> bytes:
        taken = bytes(self._held[:length])
        del self._held[:length]
        return taken


def _begun(data: bytes) -> int:
    """How many of the last bytes are the beginning of a secret on the list."""
    for value in map(str.encode, hidden()):
        for length in range(min(len(value) - 1, len(data)), _SHORTEST_BEGUN - 1, -1):
            if data.endswith(value[:length]):
                return length
    return 0


def _redacted(data: bytes) -> bytes:
    return redacted(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


class RedactedLog:
    """A pipe for a server's output, and a thread that writes it to a file without its secrets.

    Args:
        path: The file.
        secrets: Values to mask, in addition to those of this process's environment.
    """

    def __init__(self, path: Path, secrets: Iterable[str]) -> None:
        hide(secrets)
        self._file = opened(path)
        self._outlet, self._inlet = os.pipe()
        self._cut = Redacting()
        self._at_work = threading.Lock()
        self._thread = threading.Thread(target=self._copy, name="server.log", daemon=True)

    @contextmanager
    def inlet(self) -> Iterator[int]:
        """The end that the server writes to; afterwards only the server holds it, so that its end is the log's."""
        try:
            yield self._inlet
        finally:
            os.close(self._inlet)
            self._thread.start()

    def settle(self) -> None:
        """Whatever the server had written until now is in the file when this returns."""
        waiting = struct.pack("i", 1)
        while any(waiting) and self._thread.is_alive():
            with self._at_work:
                with suppress(OSError):
                    waiting = fcntl.ioctl(self._outlet, termios.FIONREAD, waiting)
                if not any(waiting):
                    self._write(self._cut.pause())

    def __enter__(self) -> "RedactedLog":
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the server's last words."""
        if self._thread.ident is not None:
            self._thread.join(_LAST_WORDS_S)
        self._file.close()

    def _copy(self) -> None:
        while True:
            select.select([self._outlet], [], [])
            with self._at_work:
                chunk = os.read(self._outlet, _CHUNK)
                self._write(self._cut.feed(chunk) if chunk else self._cut.end())
                if not chunk:
                    return

    def _write(self, data: bytes) -> None:
        """A full disk does not stop the server: the study notices when it writes its record."""
        with suppress(OSError, ValueError):  # or the file was closed, since the last words took too long
            self._file.write(data)
