"""Cuts a stream of bytes into lines none of which is too long to be read, however the stream comes."""

from collections.abc import Iterator

_HALF = 64 << 10
"""What is kept of each end of a line that is longer than both: patterns take time by its length."""


def is_cut(line: str) -> bool:
    """Whether this is what is left of a line that was too long."""
    return len(line) > 2 * _HALF and _MIDDLE in line[_HALF // 4 : -_HALF // 4]


_MIDDLE = " bytes are left out …] "


class Lines:
    r"""Takes the pieces of a stream and gives its lines, without their ends.

    Carriage returns end a line as well, so that each step of a progress bar is seen when it is drawn. Of a line that is
    longer than 128 KiB only both ends are kept, with a word between them that says how much is missing.
    """

    def __init__(self) -> None:
        self._begun = bytearray()
        self._left_out = 0
        self._returned = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that a piece completes."""
        if self._returned and data.startswith(b"\n"):
            data = data[1:]
        self._returned = data.endswith(b"\r")
        for piece in data.splitlines(keepends=True):
            if piece.endswith((b"\n", b"\r")):
                yield self._line(piece.rstrip(b"\r\n"))
            else:
                self._hold(piece)

    def rest(self) -> Iterator[str]:
        """The last line, if it has no end and is not empty: nothing more will come."""
        if self._begun:
            yield self._line(b"")

    def _line(self, last: bytes) -> str:
        if not self._begun and len(last) <= 2 * _HALF:
            return last.decode("utf-8", "replace")
        self._hold(last)
        line, left_out = bytes(self._begun), self._left_out
        self._begun.clear()
        self._left_out = 0
        if left_out:
            said = f" […{left_out:,}{_MIDDLE}".encode()
            line = line[:_HALF] + said + line[_HALF:]
        return line.decode("utf-8", "replace")

    def _hold(self, data: bytes) -> None:
        self._begun += data
        too_many = len(self._begun) - 2 * _HALF
        if too_many > 0:
            del self._begun[_HALF : _HALF + too_many]
            self._left_out += too_many
