"""The simulated tokenizer: four characters a token, and words of four characters to generate.

It makes counts exact and cheap: a text of ``n`` characters has ``ceil(n / 4)`` tokens, and generated text has as many
tokens when it comes back in a prompt as when it was generated. What is generated depends on the prompt alone, so that
the same question gets the same answer from every configuration.
"""

import zlib
from collections.abc import Iterator, Sequence

CHARACTERS = 4
WORDS: tuple[bytes, ...] = tuple(
    b" %c%c%c" % (first, middle, last) for first in b"bdfgklmnprstvz" for middle in b"aeiou" for last in b"lnrst"
)
VOCABULARY = 150000


def count(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text) // CHARACTERS)


def split(text: str) -> list[str]:
    """A text's tokens."""
    return [text[start : start + CHARACTERS] for start in range(0, len(text), CHARACTERS)]


def identifier(token: str) -> int:
    """A token's number; two tokens may share one."""
    return zlib.crc32(token.encode()) % VOCABULARY


def block_hashes(prompt: str | Sequence[int], block_size: int) -> list[int]:
    """Content hashes of a prompt's full KV blocks, each with all before it; of a text or of token numbers."""
    width = block_size * CHARACTERS if isinstance(prompt, str) else block_size
    hashes: list[int] = []
    chain = 0
    for start in range(0, len(prompt) - width + 1, width):
        part = prompt[start : start + width]
        chain = hash((chain, part if isinstance(part, str) else tuple(part)))
        hashes.append(chain)
    return hashes


def seed_of(prompt: str | Sequence[int]) -> int:
    """A number that stands for a prompt, the same in every process."""
    data = prompt.encode() if isinstance(prompt, str) else repr(list(prompt)).encode()
    return zlib.crc32(data)


def generated(seed: int) -> Iterator[bytes]:
    """The words that follow a prompt, for ever."""
    state = seed
    while True:
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        yield WORDS[(state >> 16) % len(WORDS)]
