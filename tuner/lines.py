"""Cuts a stream of bytes into lines none of which is too long to be read, however the stream comes."""

from collections.abc import Iterator, Sequence

_HALF = 64 << 10
"""What is kept of each end of a line that is longer than both: patterns take time by its length."""
_MIDDLE = " bytes are left out …] "
_ENDS = (b"\n", b"\r")


def is_cut(line: str) -> bool:
    """Whether this is what is left of a line that was too long."""
    return len(line) > _HALF and _MIDDLE in line


def cut_among(lines: Sequence[str]) -> int:
    """How many of some lines are cut; hardly ever is one long enough."""
    return sum(map(is_cut, lines)) if max(map(len, lines), default=0) > _HALF else 0


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
        if not data:
            return
        if self._returned and data.startswith(b"\n"):
            data = data[1:]
        self._returned = data.endswith(b"\r")
        if self._begun:
            first, end, data = _partition(data)
            self._hold(first)
            if not end:
                return
            yield self._held()
        last = max(map(data.rfind, _ENDS)) + 1
        yield from self._split(data[:last])
        self._hold(data[last:])

    def rest(self) -> Iterator[str]:
        """The last line, if it has no end and is not empty: nothing more will come."""
        if self._begun:
            yield self._held()

    def _split(self, data: bytes) -> Iterator[str]:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("utf-8", "replace").split("\n")
        del lines[-1]
        if max(map(len, lines), default=0) <= 2 * _HALF:
            yield from lines
            return
        for line in lines:
            if len(line) > 2 * _HALF:
                self._hold(line.encode())
                yield self._held()
            else:
                yield line

    def _hold(self, data: bytes) -> None:
        self._begun += data
        too_many = len(self._begun) - 2 * _HALF
        if too_many > 0:
            del self._begun[_HALF : _HALF + too_many]
            self._left_out += too_many

    def _held(self) -> str:
        line = bytes(self._begun)
        if self._left_out:
            line = line[:_HALF] + f" […{self._left_out:,}{_MIDDLE}".encode() + line[_HALF:]
        self._begun.clear()
        self._left_out = 0
        return line.decode("utf-8", "replace")


def _partition(data: bytes) -> tuple[bytes, bytes, bytes]:
    r"""What comes before the first line end, that end, and what comes after it."""
    places = [place for place in map(data.find, _ENDS) if place >= 0]
    if not places:
        return data, b"", b""
    end = b"\r\n" if data.startswith(b"\r\n", min(places)) else data[min(places) : min(places) + 1]
    return data[: min(places)], end, data[min(places) + len(end) :]
