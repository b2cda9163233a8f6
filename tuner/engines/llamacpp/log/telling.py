"""Which lines of llama.cpp's log may say anything at all."""

from functools import cache

from tuner.engines.llamacpp.log import degradations, phases, signs
from tuner.engines.log.literals import words_of
from tuner.engines.log.sieve import Sieve


@cache
def sieve() -> Sieve:
    """Finds the lines in which a sign, a degradation or a phase may be."""
    return Sieve(words_of((*signs.READING.patterns, *degradations.PATTERNS, *phases.PATTERNS)))
