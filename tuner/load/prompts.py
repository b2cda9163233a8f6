"""Seeded prompts of about N tokens in random words, made without the served model's tokenizer.

A prompt is a chain of random permutations of ``WORDS``. Every full permutation has the same number of tokens, whatever
the tokenizer, so that two short requests calibrate it exactly and long prompts miss their length by the rest of one
permutation at most. Two seeds begin with different words: vLLM caches prefixes in blocks of 16 tokens, and the
chance that two prompts share their first six words is one in 4e12.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

_TEXT = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work number night point home water room mother area money story fact
month lot right study book eye job word business issue side kind head house service friend father power hour game line
end member law car city community name president team minute idea kid body information back parent face others level
office door health person art war history party result change morning reason research girl guy moment air teacher
force education foot boy age policy music market sense nation plan college interest death experience effect use class
control field development role effort rate heart season north table river garden summer
"""

WORDS: tuple[str, ...] = tuple(_TEXT.split())

_ROUNDED_TOKENS = 2

Writer = Callable[[str, int], str]
"""Makes a text of a seed and a length: ``text``, or that of a ``tuner.load.prose.Prose``."""


@dataclass(frozen=True, slots=True)
class TokenCalibration:
    """How the served model's tokenizer counts our words; natural text has its length in tokens, one to a "word".

    Attributes:
        tokens_per_word: Mean over ``WORDS``.
        overhead_tokens: What the chat template adds to every prompt.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tokens_per_word: float
    overhead_tokens: float

    def words(self, tokens: int) -> int:
        """How many words make a prompt of about so many tokens, the chat template included; at least one."""
        return max(1, round((tokens - self.overhead_tokens) / self.tokens_per_word))

    def in_tokens(self) -> "TokenCalibration":
        """Of natural text: exactly one to one, unless the server counts more otherwise than a token is rounded."""
        miss = (self.tokens_per_word - 1) * len(WORDS)
        return TokenCalibration(1.0, self.overhead_tokens + miss) if abs(miss) <= _ROUNDED_TOKENS else self


def calibrate(one_permutation_tokens: int, two_permutations_tokens: int) -> TokenCalibration:
    """The line through the token counts of a prompt of ``len(WORDS)`` words and of one twice as long.

    Raises:
        ValueError: The longer prompt did not count as longer.
    """
    grown = two_permutations_tokens - one_permutation_tokens
    if grown <= 0:
        raise ValueError(f"{one_permutation_tokens} and {two_permutations_tokens} prompt tokens")
    return TokenCalibration(grown / len(WORDS), one_permutation_tokens - grown)


def text(seed: str, words: int) -> str:
    """A prompt of exactly so many words; the same for the same seed."""
    rng = random.Random(seed)
    drawn: list[str] = []
    while len(drawn) < words:
        drawn += rng.sample(WORDS, len(WORDS))
    return " ".join(drawn[:words])
