"""Finds the few lines of many that may say anything: those that hold one of some hundred words.

A log of a gigabyte whose lines are all different would be asked for each word line by line. Here it is read a megabyte
at a time: the places at which any four bytes of interest stand are found for all words at once, and only there is a
word compared.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tuner.engines.log.lines import uncoloured
from tuner.engines.log.literals import GRAM, gram_of

if TYPE_CHECKING:
    import numpy as np

_BITS = 18
_MIX = 2654435761
"""Knuth's multiplicative hash."""


class Sieve:
    """Tells which lines hold one of some words.

    Args:
        words: In small letters; letters of the lines may be of either case.
    """

    def __init__(self, words: Collection[str]) -> None:
        self._words = [word.encode() for word in sorted(words)]
        self._short_words = [word for word in self._words if len(word) < GRAM]

    def among(self, lines: Sequence[str]) -> list[int]:
        """The places of the lines that hold a word, in order."""
        text = uncoloured("\n".join(lines))
        if text.count("\n") != len(lines) - 1:
            return list(range(len(lines)))
        data = text.encode("utf-8", "surrogatepass").lower()
        return _lines_at(sorted([*self._grams(data), *self._short(data)]), data, self._is_word)

    def _short(self, data: bytes) -> Iterator[int]:
        return (found.start() for word in self._short_words for found in re.finditer(re.escape(word), data))

    def _grams(self, data: bytes) -> Sequence[int]:
        """Where four bytes stand that may be some of a word's."""
        import numpy as np

        if len(data) < GRAM:
            return []
        grams = np.ndarray(len(data) - GRAM + 1, "<u4", data, 0, (1,))
        return np.flatnonzero(self._table[_hashed(grams)]).tolist()

    def _is_word(self, data: bytes, place: int) -> bool:
        """Whether what stands here is part of a word."""
        words = self._by_gram.get(data[place : place + GRAM], ())
        return any(data.startswith(word, max(place - offset, 0)) for word, offset in words) or any(
            data.startswith(word, place) for word in self._short_words
        )

    @cached_property
    def _by_gram(self) -> Mapping[bytes, Sequence[tuple[bytes, int]]]:
        """The words by four bytes of theirs, with the place that these have in the word."""
        grams: dict[bytes, list[tuple[bytes, int]]] = {}
        for word in self._words:
            if len(word) >= GRAM:
                gram = gram_of(word.decode()).encode()
                grams.setdefault(gram, []).append((word, word.index(gram)))
        return grams

    @cached_property
    def _table(self) -> "np.typing.NDArray[np.bool_]":
        """Whether four bytes with this hash may be some of a word's."""
        import numpy as np

        table = np.zeros(1 << _BITS, np.bool_)
        table[_hashed(np.frombuffer(b"".join(self._by_gram), "<u4"))] = True
        return table


def parted(lines: Sequence[str], places: Sequence[int]) -> Iterator[tuple[Sequence[str], str | None]]:
    """The lines at some places, each after those that were left out before it; those after the last with ``None``."""
    begin = 0
    for place in places:
        yield lines[begin:place], lines[place]
        begin = place + 1
    yield lines[begin:], None


def _hashed(grams: "np.typing.NDArray[np.uint32]") -> "np.typing.NDArray[np.uint32]":
    import numpy as np

    mixed = grams * np.uint32(_MIX)
    mixed >>= np.uint32(32 - _BITS)
    return mixed


def _lines_at(places: Sequence[int], data: bytes, is_word: Callable[[bytes, int], bool]) -> list[int]:
    """The lines in which a word stands at one of these ascending places; the rest of a told line is passed over."""
    lines: list[int] = []
    number = end = 0
    for place in places:
        if place >= end and is_word(data, place):
            number += data.count(b"\n", end, place)
            lines.append(number)
            end = data.find(b"\n", place)
            end = len(data) if end < 0 else end
    return lines
