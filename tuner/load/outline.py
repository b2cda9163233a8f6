"""What a workload will send, stage by stage, before any of it is sent: lengths, moments and shared beginnings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.load.busy import busy_stages
from tuner.load.deciding import Deciding
from tuner.load.prompts import TokenCalibration
from tuner.load.stage import Request, Segment, Stage
from tuner.load.workload import Workload

_A_TOKEN_A_WORD = TokenCalibration(tokens_per_word=1.0, overhead_tokens=0.0)
_CHARACTERS = 4
"""Of a token, roughly, where a text was recorded and not its length."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One stage of the ladder.

    Attributes:
        name: Its name.
        users: How many there are; ``None`` for an open loop.
        prompts: Tokens of each prompt, in the order of sending.
        outputs: Tokens to be generated for each.
        shared: How many of each prompt's tokens an earlier request of the stage has begun with: what a prefix cache
            that is large enough finds.
        due_s: When each is sent, in the engine's own seconds; empty in a closed loop.
        lasts: Whether fresh requests of the same shape follow until it has measured enough.
    """

    name: str
    users: int | None
    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    shared: tuple[int, ...]
    due_s: tuple[float, ...]
    lasts: bool

    @property
    def shared_share(self) -> float:
        """Of all prompt tokens."""
        return sum(self.shared) / sum(self.prompts)


def outlines(workload: Workload, deciding: Deciding, *, held_out: bool = False) -> list[Outline]:
    """The concurrent stage and its ladder, with one word standing for a token."""
    stages = busy_stages(
        workload,
        seed="outline",
        calibration=_A_TOKEN_A_WORD,
        clock_scale=1.0,
        deciding=deciding,
        held_out=held_out,
    )
    return [_outline(stage) for stage in stages]


def _outline(stage: Stage) -> Outline:
    return Outline(
        name=stage.name,
        users=None if stage.due_ms else stage.streams,
        prompts=tuple(map(_tokens, stage.requests)),
        outputs=tuple(request.output_tokens for request in stage.requests),
        shared=tuple(_shared(stage.requests)),
        due_s=tuple(due_ms / 1000 for due_ms in stage.due_ms),
        lasts=stage.rule is not None,
    )


def _tokens(request: Request) -> int:
    return request.prompt_tokens or len(request.said) // _CHARACTERS or 1


def _shared(requests: Sequence[Request]) -> Iterator[int]:
    """A request that follows another shares all but its own text with it."""
    seen: set[tuple[Segment, ...]] = set()
    for request in requests:
        if request.follows:
            yield _tokens(request) - request.words
            continue
        parts = [*([request.system] if request.system else []), *request.prefix, Segment(request.seed, request.words)]
        heads = [tuple(parts[: count + 1]) for count in range(len(parts))]
        hits = [head for head in heads if head in seen] if not request.said else []
        yield min(_tokens(request), sum(piece.words for piece in hits[-1])) if hits else 0
        seen.update(heads)
