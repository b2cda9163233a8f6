"""A workload turned into stages for one server: what to send, in which order, and what that server cannot take."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tuner.load.deciding import CONCURRENT, SINGLE_USER, TOOL_CALL, Deciding, stop_rule
from tuner.load.prompts import TokenCalibration
from tuner.load.stage import Request, Stage
from tuner.load.workload import Workload

SLACK_TOKENS = 16
"""By how much a prompt may miss its length (see ``tuner.load.prompts``): room that a plan leaves free."""

_LASTING = (CONCURRENT, SINGLE_USER)
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

    Returns:
        All stages that fit, never shortened, and why the others do not.
    """
    room = Room(context_tokens, kv_tokens)
    wanted = [
        replace(stage, rule=stop_rule(workload, stage.name, deciding, clock_scale)) if stage.name in _LASTING else stage
        for stage in _stages(workload, f"{seed}", calibration)
    ]
    refused = {stage.name: reason for stage in wanted if (reason := _objection(room, stage))}
    fitting = [stage for stage in wanted if stage.name not in refused]
    allowed = workload.max_failed_share * sum(len(stage.requests) for stage in fitting)
    return Plan(
        tuple(replace(stage, max_failures=allowed) for stage in fitting),
        tuple(Skipped(name, reason) for name, reason in refused.items()),
    )


def _stages(workload: Workload, seed: str, calibration: TokenCalibration) -> list[Stage]:
    """All that the workload wants, in order. The concurrent stage first: it says most about a configuration."""
    single = workload.single_user
    busy = prompts(
        f"{seed}/{CONCURRENT}", [workload.prompt_tokens] * workload.requests, workload.output_tokens, calibration
    )
    alone = prompts(
        f"{seed}/{SINGLE_USER}", [single.prompt_tokens] * single.requests, single.output_tokens, calibration
    )
    return [
        stage(workload, CONCURRENT, busy, streams=workload.concurrency),
        stage(workload, SINGLE_USER, alone),
        *(_long_prompt(workload, seed, length, calibration) for length in workload.ttft_prompt_tokens),
        *([stage(workload, TOOL_CALL, (tool_call(f"{seed}/{TOOL_CALL}"),))] if workload.tool_call else []),
    ]


def _long_prompt(workload: Workload, seed: str, length: int, calibration: TokenCalibration) -> Stage:
    """The same prompt twice: nothing of it is cached at first, all of it the second time."""
    name = ttft_stage(length)
    cold = prompts(f"{seed}/{name}", [length], workload.ttft_output_tokens, calibration)
    return stage(workload, name, cold * 2)


def ttft_stage(prompt_tokens: int) -> str:
    """Name of the stage that measures the TTFT of this prompt length: first cold, then cached."""
    return f"ttft_{prompt_tokens}"


def stage(
    workload: Workload, name: str, requests: tuple[Request, ...], *, streams: int = 1, max_failures: float = 0
) -> Stage:
    """A stage with the workload's temperature and timeouts."""
    return Stage(
        name,
        streams,
        requests,
        workload.temperature,
        workload.request_timeout_s,
        max_failures,
        max_failed_share=workload.max_failed_share,
        silence_timeout_s=workload.silence_timeout_s,
    )


def prompts(seed: str, lengths: list[int], output_tokens: int, calibration: TokenCalibration) -> tuple[Request, ...]:
    """Fresh prompts of these lengths in tokens, each with a seed of its own."""
    return tuple(
        Request(f"{seed}/{index}", calibration.words(length), length, output_tokens)
        for index, length in enumerate(lengths)
    )


def tool_call(seed: str) -> Request:
    """A short question that takes one tool call to answer."""
    return Request(seed, _TOOL_CALL_WORDS, None, _TOOL_CALL_OUTPUT_TOKENS, tool_call=True)


def _objection(room: Room, stage: Stage) -> str | None:
    request = stage.requests[0]
    prompt_tokens = _TOOL_CALL_PROMPT_TOKENS if request.prompt_tokens is None else request.prompt_tokens
    return room.objection(prompt_tokens, request.output_tokens)
