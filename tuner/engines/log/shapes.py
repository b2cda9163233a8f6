r"""The shape of a log line: the line with all its digits alike.

A log of a gigabyte has millions of lines and some hundred shapes. What a pattern finds in a line depends on digits only
where it spells them out (``exit code 137``); ``relaxed`` takes such a pattern to one that any digits satisfy. So a
shape in which no relaxed pattern is found needs to be looked at once, and no line of it can be a sign.
"""

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tuner.engines.log.lines import LogLine, parse_line

Kind = TypeVar("Kind")

_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_MOST, _CHARACTERS = 20_000, 8 << 20
"""So many shapes are remembered, and so many characters of them."""

_NAMES = re.compile(rb"\b(?:[0a-f]{8}-[0a-f]{4}-[0a-f]{4}-[0a-f]{4}-[0a-f]{12}|(?=[a-f]*0)[0a-f]{8,})\b")
"""What requests and caches are called: hexadecimal digits are digits as well."""
_TOKEN = re.compile(
    r"""(?P<escape>\\.)|(?P<without>\(\?<?!)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<repeat>\{\d*,?\d*\})
    |(?P<name>\(\?P<\w+>)|(?P<digit>\d)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_SET = re.compile(r"\d-\d|\d")


def relaxed(pattern: str) -> str:
    """A pattern that is found wherever the given one is found once digits are exchanged for others.

    Negative look-arounds that spell out digits are dropped, so that it may be found more often.
    """
    parts: list[str] = []
    end = 0
    for token in _TOKEN.finditer(pattern):
        if token.start() < end:
            continue
        end = token.end()
        if token["without"]:
            end = _closing(pattern, token.end())
            body = relaxed(pattern[token.end() : end - 1])
            kept = f"{token['without']}{body})" if body == pattern[token.end() : end - 1] else ""
            parts.append(kept)
        elif token["set"]:
            parts.append(_IN_SET.sub(r"\\d", token[0]))
        else:
            parts.append(r"\d" if token["digit"] else token[0])
    return "".join(parts)


def _closing(pattern: str, start: int) -> int:
    """The place after the parenthesis that closes the one open at ``start``."""
    depth = 1
    for token in _TOKEN.finditer(pattern, start):
        depth += (token[0].startswith("(")) - (token[0] == ")")
        if depth == 0:
            return token.end()
    raise ValueError(f"no closing parenthesis: {pattern}")


def shapes(lines: Sequence[str], places: Sequence[int]) -> Sequence[bytes]:
    """The shape of each of the physical lines at some places."""
    if len(places) == len(lines):
        found = _shape("\n".join(lines)).split(b"\n")
        if len(found) == len(lines):
            return found
    return [_shape(lines[place]) for place in places]


def _nameless(shape: bytes) -> bytes:
    """A shape without what requests and caches are called."""
    return _NAMES.sub(b"0", shape)


def _shape(raw: str) -> bytes:
    return raw.encode("utf-8", "surrogatepass").translate(_ALIKE)


class Shapes(Generic[Kind]):
    """What is known of each shape of line: found out once, from the first line that has it.

    Args:
        classify: What to know of a line; must say the same of all lines of one shape.
    """

    def __init__(self, classify: Callable[[Sequence[LogLine]], Kind]) -> None:
        self._classify = classify
        self._known: dict[bytes, Kind] = {}
        self._characters = 0

    def of(self, raw: str) -> Kind:
        """What is known of a physical line's shape."""
        shape = _shape(raw)
        if shape in self._known:
            return self._known[shape]
        plain = _nameless(shape)
        if plain not in self._known:
            self._remember(plain, self._classify(parse_line(raw)))
        return self._known[plain]

    def _remember(self, shape: bytes, kind: Kind) -> None:
        if len(self._known) >= _MOST or self._characters > _CHARACTERS:
            self._known.clear()
            self._characters = 0
        self._known[shape] = kind
        self._characters += len(shape)


class IdleShapes:
    """Shapes whose lines would change nothing, as long as what matters does not change."""

    def __init__(self) -> None:
        self._shapes: set[bytes] = set()
        self._characters = 0
        self._turn = 0

    def __contains__(self, shape: bytes) -> bool:
        return shape in self._shapes or _nameless(shape) in self._shapes

    def add(self, shape: bytes, turn: int) -> None:
        """A line of this shape changed nothing."""
        self.valid_at(turn)
        if self._characters > _CHARACTERS:
            self._forget()
        plain = _nameless(shape)
        self._shapes.add(plain)
        self._characters += len(plain)

    def valid_at(self, turn: int) -> None:
        """Forget what was true before something changed."""
        if turn != self._turn:
            self._turn = turn
            self._forget()

    def _forget(self) -> None:
        self._shapes.clear()
        self._characters = 0
