"""Which lines of vLLM's log may say anything at all."""

from functools import cache

from tuner.engines.log.literals import words_of
from tuner.engines.log.sieve import Sieve
from tuner.engines.vllm.log import degradations, jit, phases, signs


@cache
def sieve() -> Sieve:
    """Finds the lines in which a sign, a degradation or a phase may be."""
    return Sieve(words_of((*signs.READING.patterns, *degradations.PATTERNS, *phases.PATTERNS, jit.PATTERN)))
