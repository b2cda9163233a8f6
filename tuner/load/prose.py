"""Seeded prompts of natural text and code, exactly as long as the server's own tokenizer counts.

Speculative decoding, prefix caches and routers of experts behave otherwise on words at random: an n-gram or draft model
guesses the next word of a sentence four times as often (vllm#53906). ``corpus.txt`` holds paragraphs, sentences and
functions: tuner's own documentation and sources, and passages of books in the public domain.

Every piece begins with a capital and ends with a full stop, so that no token reaches over its ends, and a prompt has as
many tokens as its pieces have together. A prompt begins with six words that no other has (see ``tuner.load.prompts``),
continues with pieces in random order, and ends with those that fill it to the token.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from tuner.load.prompts import WORDS

_SEPARATOR = "\n%\n"
_FIRST = "On"
_NEWS_WORDS = 6


class Piece(NamedTuple):
    """A text and its tokens; with a space in front, as it stands in the middle of a prompt."""

    tokens: float
    text: str


@cache
def texts() -> tuple[str, ...]:
    """What a tokenizer has to count, in the order of ``Prose``'s counts: an opening, the words, and the corpus."""
    corpus = files("tuner.load").joinpath("corpus.txt").read_text("utf-8").strip().split(_SEPARATOR)
    return tuple(f" {each}" for each in (_opening(WORDS[:_NEWS_WORDS]), *WORDS, *corpus))


def _opening(words: Sequence[str]) -> str:
    return f"{_FIRST} {' '.join(words)}."


class Prose:
    """Makes texts of so many tokens.

    Args:
        counts: Tokens of each of ``texts()``.
    """

    def __init__(self, counts: Sequence[float]) -> None:
        opening, *rest = map(Piece, counts, texts())
        words, self._pieces = rest[: len(WORDS)], rest[len(WORDS) :]
        self._words = words
        self._opening_tokens = opening.tokens - sum(piece.tokens for piece in words[:_NEWS_WORDS])
        self._longest = max(piece.tokens for piece in self._pieces)
        self._endings = [sorted(self._pieces), sorted(words)]

    def text(self, seed: str, tokens: int) -> str:
        """A text of so many tokens, which few random words begin; the same for the same seed."""
        rng = random.Random(seed)
        news = rng.sample(self._words, _NEWS_WORDS)
        left = tokens - self._opening_tokens - sum(piece.tokens for piece in news)
        if left < 0:
            return "".join(self._ending(tokens, rng)).lstrip() or WORDS[0]
        opening = _opening([piece.text.lstrip() for piece in news])
        middle = list(self._middle(left - self._longest, rng))
        left -= sum(piece.tokens for piece in middle)
        return "".join([opening, *(piece.text for piece in middle), *self._ending(left, rng)])

    def _middle(self, tokens: float, rng: random.Random) -> Iterator[Piece]:
        """Pieces of so many tokens or a few more; none comes again before all others have."""
        deck: list[Piece] = []
        while tokens > 0:
            deck = deck or rng.sample(self._pieces, len(self._pieces))
            yield (piece := deck.pop())
            tokens -= piece.tokens

    def _ending(self, left: float, rng: random.Random) -> Iterator[str]:
        """What fills so many tokens: a piece that fits exactly if there is one, words where no piece fits."""
        for pieces in self._endings:
            while fitting := bisect_right(pieces, left, key=lambda piece: piece.tokens):
                exact = bisect_right(pieces, left - 1, hi=fitting, key=lambda piece: piece.tokens)
                piece = pieces[rng.randrange(exact if exact < fitting else 0, fitting)]
                yield piece.text
                left -= piece.tokens
