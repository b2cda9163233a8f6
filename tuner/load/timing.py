"""What the times of one request's chunks say."""

from itertools import pairwise

from tuner.load.records import RequestRecord


def itls_ms(record: RequestRecord) -> list[float]:
    """The gaps between chunks; what came in one read came together, and has no gap in between."""
    reads = sorted(set(record.chunk_ms))
    return [later - earlier for earlier, later in pairwise(reads)]


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token after the first; ``None`` for a request of fewer than two tokens."""
    if record.output_tokens is None or record.output_tokens < 2 or not record.chunk_ms:
        return None
    return (record.chunk_ms[-1] - record.chunk_ms[0]) / (record.output_tokens - 1)
