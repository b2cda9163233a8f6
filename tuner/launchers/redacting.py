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

from tuner.secrets import hide, redacted

_CHUNK = 1 << 16
_LAST_WORDS_S = 5.0
"""How long the last output of a server that has ended is waited for."""


def opened(path: Path) -> BinaryIO:
    """A log that grows, and that nobody but its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


def whole_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text of a stream in pieces that end where a line does, so that no secret is cut in two."""
    held = b""
    for chunk in chunks:
        held += chunk
        end = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
        if end:
            yield held[:end].decode("utf-8", "surrogateescape")
            held = held[end:]
    if held:
        yield held.decode("utf-8", "surrogateescape")


def redacted_bytes(text: str) -> bytes:
    """A piece of a log as it may be written."""
    return redacted(text).encode("utf-8", "surrogateescape")


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
        self._held = b""
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
                    self._flush(len(self._held))

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
                if not chunk:
                    self._flush(len(self._held))
                    return
                self._held += chunk
                self._flush(max(self._held.rfind(b"\n"), self._held.rfind(b"\r")) + 1)

    def _flush(self, end: int) -> None:
        """Write what is held up to there: once, whoever comes first."""
        self._write(self._held[:end])
        self._held = self._held[end:]

    def _write(self, data: bytes) -> None:
        """A full disk does not stop the server: the study notices when it writes its record."""
        with suppress(OSError, ValueError):  # or the file was closed, since the last words took too long
            self._file.write(redacted_bytes(data.decode("utf-8", "surrogateescape")))
