"""A workload turned into stages for one server: what to send, in which order, and what that server cannot take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tuner.load.busy import busy_stages
from tuner.load.deciding import Deciding, repeats, stop_rule
from tuner.load.naming import SINGLE_USER, TOOL_CALL
from tuner.load.prompts import TokenCalibration
from tuner.load.requests import prompts, stage
from tuner.load.stage import Request, Stage
from tuner.load.workload import Workload

SLACK_TOKENS = 16
"""By how much a prompt may miss its length (see ``tuner.load.prompts``): room that a plan leaves free."""

_TOOL_CALL_WORDS = 2
_TOOL_CALL_PROMPT_TOKENS = 250  # the tool's description included
_TOOL_CALL_OUTPUT_TOKENS = 512  # room for a reasoning model to think first


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was left out, because the server cannot take it.

    Attributes:
        what: The stage, or ``warm_up_50000``.
        reason: Which limit it exceeds, in figures.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Room:
    """What fits into a server.

    Attributes:
        context_tokens: ``max_model_len``: prompt and output of one request together; ``None`` if unknown.
        kv_tokens: What the KV cache holds; ``None`` if unknown.
    """

    context_tokens: int | None
    kv_tokens: int | None

    def objection(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """Why a request of these lengths does not fit, or ``None`` if it does."""
        needed = prompt_tokens + SLACK_TOKENS + output_tokens
        for limit, name in ((self.context_tokens, "context"), (self.kv_tokens, "KV cache")):
            if limit is not None and needed > limit:
                return (
                    f"{prompt_tokens} prompt + {output_tokens} output tokens (+ {SLACK_TOKENS} slack) "
                    f"exceed the {name} of {limit} tokens"
                )
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a measurement sends, in order, and what it leaves out."""

    stages: tuple[Stage, ...]
    skipped: tuple[Skipped, ...]


def plan(
    workload: Workload,
    *,
    seed: int,
    context_tokens: int | None,
    kv_tokens: int | None,
    calibration: TokenCalibration,
    clock_scale: float = 1.0,
    deciding: Deciding = Deciding(),  # noqa: B008 (frozen)
    held_out: bool = False,
) -> Plan:
    """The stages of one measurement: concurrent, single user, long prompts, tool call.

    Args:
        workload: The traffic.
        seed: Of this measurement. Another seed gives prompts that share no prefix with this one's; the same seed on
            the same server would measure its prefix cache.
        context_tokens: The server's ``max_model_len``; ``None`` if unknown.
        kv_tokens: The capacity of its KV cache; ``None`` if unknown.
        calibration: From its warm-up.
        clock_scale: Seconds of a simulated engine that pass in one second of wall time.
        deciding: What the objective needs: the stages last until it is known well enough.
        held_out: Whether lengths and arrivals are those that are kept from tuning, for the proof.

    Returns:
        All stages that fit, never shortened, and why the others do not.
    """
    room, left_out = Room(context_tokens, kv_tokens), list[Skipped]()
    busy = busy_stages(
        workload,
        seed=f"{seed}",
        calibration=calibration,
        clock_scale=clock_scale,
        deciding=deciding,
        held_out=held_out,
    )
    rule = stop_rule(workload, SINGLE_USER, deciding, clock_scale)
    if workload.trace:
        busy, left_out = [_fitting(busy[0], room)], _unfitting(busy[0], room)
    wanted = [*busy, replace(_alone(workload, f"{seed}", calibration), rule=rule)]
    wanted += _once(workload, f"{seed}", calibration, deciding)
    refused = {stage.name: reason for stage in wanted if (reason := _objection(room, stage))}
    fitting = [stage for stage in wanted if stage.name not in refused]
    allowed = workload.max_failed_share * sum(len(stage.requests) for stage in fitting)
    return Plan(
        tuple(replace(stage, max_failures=allowed) for stage in fitting),
        (*left_out, *(Skipped(name, reason) for name, reason in refused.items())),
    )


def _alone(workload: Workload, seed: str, calibration: TokenCalibration) -> Stage:
    single = workload.single_user
    lengths = [single.prompt_tokens] * single.requests
    return stage(workload, SINGLE_USER, prompts(f"{seed}/{SINGLE_USER}", lengths, single.output_tokens, calibration))


def _once(workload: Workload, seed: str, calibration: TokenCalibration, deciding: Deciding) -> Iterator[Stage]:
    """What does not last: the long prompts and the tool call."""
    for length in workload.ttft_prompt_tokens:
        yield _long_prompts(workload, seed, length, calibration, repeats(workload, length, deciding))
    if workload.tool_call:
        yield stage(workload, TOOL_CALL, (tool_call(f"{seed}/{TOOL_CALL}"),))


def _long_prompts(workload: Workload, seed: str, length: int, calibration: TokenCalibration, count: int) -> Stage:
    """Each prompt twice in a row: nothing of it is cached at first, all of it the second time."""
    name = ttft_stage(length)
    cold = prompts(f"{seed}/{name}", [length] * count, workload.ttft_output_tokens, calibration)
    return stage(workload, name, tuple(each for prompt in cold for each in (prompt, prompt)))


def ttft_stage(prompt_tokens: int) -> str:
    """Name of the stage that measures the TTFT of this prompt length: first cold, then cached."""
    return f"ttft_{prompt_tokens}"


def tool_call(seed: str) -> Request:
    """A short question that takes one tool call to answer."""
    return Request(seed, _TOOL_CALL_WORDS, None, _TOOL_CALL_OUTPUT_TOKENS, tool_call=True)


def _fitting(replay: Stage, room: Room) -> Stage:
    """A trace without the requests that the server cannot take; all of it, to be refused, if none is left."""
    kept = [place for place, request in enumerate(replay.requests) if not _refusal(room, request)]
    if not kept:
        return replay
    return replace(
        replay,
        requests=tuple(replay.requests[place] for place in kept),
        due_ms=tuple(replay.due_ms[place] for place in kept),
    )


def _unfitting(replay: Stage, room: Room) -> list[Skipped]:
    reasons = [reason for request in replay.requests if (reason := _refusal(room, request))]
    if not reasons or len(reasons) == len(replay.requests):
        return []
    return [Skipped(f"{len(reasons)} of {len(replay.requests)} requests of the trace", f"the first: {reasons[0]}")]


def _objection(room: Room, stage: Stage) -> str | None:
    return _refusal(room, max(stage.requests, key=lambda each: (each.prompt_tokens or 0) + each.output_tokens))


def _refusal(room: Room, request: Request) -> str | None:
    prompt_tokens = _TOOL_CALL_PROMPT_TOKENS if request.prompt_tokens is None else request.prompt_tokens
    return room.objection(prompt_tokens, request.output_tokens)
