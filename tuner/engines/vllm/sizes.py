"""Numbers as vLLM takes them from people: ``128K`` is 131,072, ``25.6k`` is 25,600."""

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_SCALE = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(text: str) -> int | None:
    """Such a number; ``None`` for anything else."""
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * _SCALE[found[2]]) if found else None
