"""When the client is being fooled: streams that something buffers, tokens that are counted but not sent, wrong counts.

What cannot be told from a stream is not measured, and a sentence says why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from tuner.load.records import RequestRecord, StageResult

_TELLING = 8
"""A stream of fewer tokens says nothing about how it arrives."""
_LUMP = 4
"""Chunks in one read, above which it is no coincidence: a server sends one a step, and a late client reads a few."""
_BUNDLE = 1.1
_DISAGREE = 0.05
_STRAY = 0.1
"""Share of answers that may look as if they held text back: one that ends within a character does, and hides none."""


class Delivery(StrEnum):
    """How a stage's answers arrive."""

    STREAMED = "streamed"
    """Chunk by chunk."""
    LUMPS = "lumps"
    """Many chunks at a time: something holds them back until a buffer is full."""
    ONE_PIECE = "one piece"
    """Everything at once at the end."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What a stage's answers cannot tell.

    Attributes:
        delivery: How they arrive. If not chunk by chunk, there is no TTFT, ITL or TPOT.
        hidden: How many of them count tokens that were never streamed: there is no TPOT.
        answers: How many answers there are.
    """

    delivery: Delivery
    hidden: int
    answers: int

    @property
    def no_times(self) -> bool:
        """Whether the times of single tokens are unknown."""
        return self.delivery is not Delivery.STREAMED

    @property
    def no_tpot(self) -> bool:
        """Whether the time per output token is unknown."""
        return self.no_times or self.hidden > 0

    def sentences(self) -> Iterator[str]:
        """What to tell a person, after the names of the stages that it is true of."""
        if self.no_times:
            how = "in one piece" if self.delivery is Delivery.ONE_PIECE else "in lumps of many chunks"
            yield (
                f"answers arrive {how}: something between server and client buffers the stream (a proxy such "
                "as nginx or LiteLLM); TTFT, ITL and TPOT cannot be measured. Measure the server itself, or turn the "
                "buffering off (nginx: proxy_buffering off)."
            )
        if self.hidden:
            yield (
                f"{self.hidden} of {self.answers} answers count tokens that were never streamed (hidden "
                "reasoning, or a parser that holds text back): TPOT cannot be measured."
            )


def doubt(records: Sequence[RequestRecord]) -> Doubt:
    """What completed requests of one stage leave unknown."""
    said, silent = (sum(map(hides, records)) for hides in (_says_it_hides, _says_less_than_it_counts))
    hidden = said + silent if said or silent > _STRAY * len(records) else 0
    return Doubt(_delivery([r for r in records if (r.output_tokens or 0) >= _TELLING]), hidden, len(records))


def _delivery(records: Sequence[RequestRecord]) -> Delivery:
    if not (arrived := [(len(r.chunk_ms), len(set(r.chunk_ms))) for r in records if r.chunk_ms]):
        return Delivery.STREAMED
    if median(reads for _, reads in arrived) == 1:
        return Delivery.ONE_PIECE
    return Delivery.LUMPS if median(chunks / reads for chunks, reads in arrived) > _LUMP else Delivery.STREAMED


def _says_it_hides(record: RequestRecord) -> bool:
    return record.hidden_tokens > 0


def _says_less_than_it_counts(record: RequestRecord) -> bool:
    """Several tokens a chunk make less than a character each, and the server has no word for it."""
    tokens = record.output_tokens or 0
    bundled = tokens >= 2 * _TELLING and tokens > 2 * len(record.chunk_ms)
    return not record.hidden_tokens and bundled and record.characters is not None and record.characters < tokens


def impossible(record: RequestRecord) -> str | None:
    """Why the server's token counts of a completed request cannot be true; ``None`` if they can."""
    asked, prompt = record.request.output_tokens, record.request.prompt_tokens
    tokens, chunks = record.output_tokens or 0, len(record.chunk_ms)
    if not 0 <= tokens <= asked + max(2, asked // 20):
        return f"it counts {tokens:,} output tokens where {asked} were asked for"
    if chunks > 1.5 * tokens + 2 and not record.tool_called:
        return f"it counts {tokens} output tokens in {chunks} chunks"
    if prompt is not None and not 0 <= (record.prompt_tokens or 0) <= 2 * prompt + 1000:
        return f"it counts {record.prompt_tokens:,} prompt tokens where about {prompt} were sent"
    return None


def tokens_per_chunk(records: Sequence[RequestRecord]) -> float | None:
    """Output tokens over chunks, over all requests; ``None`` without a chunk."""
    chunks = sum(len(record.chunk_ms) for record in records)
    return sum(record.output_tokens or 0 for record in records) / chunks if chunks else None


def is_short(record: RequestRecord) -> bool:
    """Whether a completed request has fewer tokens than were asked for; a tool call ends when it is complete."""
    return (
        record.completed and not record.request.tool_call and (record.output_tokens or 0) < record.request.output_tokens
    )


def about_answers(records: Sequence[RequestRecord]) -> Iterator[str]:
    """What all requests of a measurement together have to say."""
    completed = [record for record in records if record.completed and not record.request.tool_call]
    if short := [record for record in completed if is_short(record)]:
        exact = short[0].request.endpoint.is_exact
        why = (
            "the server does not honour ignore_eos" if exact else f"{short[0].request.endpoint.path} has no ignore_eos"
        )
        yield (
            f"{len(short)} of {len(completed)} answers were shorter than asked: {why}, so that configurations are "
            "compared on different work."
        )
    if resent := sum(record.resent for record in records):
        yield f"{resent} requests were sent a second time: the server had closed a connection that it promised to keep."


def about_bundles(per_chunk: float | None) -> Iterator[str]:
    """What several tokens in a chunk mean."""
    if per_chunk is not None and per_chunk > _BUNDLE:
        yield (
            f"A chunk carries {per_chunk:.1f} tokens on average (speculative decoding, --stream-interval, tokens "
            "without text, or an API process that cannot keep up): ITL is the gap between "
            "chunks, TPOT the time per token."
        )


def about_counters(result: StageResult, received: float) -> Iterator[str]:
    """Whether the server counts as many generated tokens as the client received."""
    counted = result.engine.stage_generation_tokens if result.engine else None
    if counted is None or not received:
        return
    if abs(counted - received) > _DISAGREE * max(counted, received):
        yield (
            f"{result.stage}: the server counts {counted:,.0f} generated tokens, the client {received:,.0f}: there is "
            "other traffic on the server, or one of them counts wrongly."
        )


def about_schedule(result: StageResult, limit_ms: float) -> str | None:
    """What a load client that sent too late says of an open loop's stage; ``None`` if it kept the schedule."""
    if result.send_lag_p99_ms is None or result.send_lag_p99_ms <= limit_ms:
        return None
    return (
        f"{result.stage}: the load client sent {result.send_lag_p99_ms:.0f} ms later than scheduled (p99; at most "
        f"{result.send_lag_max_ms:.0f} ms), above {limit_ms:g} ms: the server had another traffic than was asked for"
    )
