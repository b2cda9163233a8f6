"""What an objective asks of a workload: how many requests, how tight, and whether the workload measures it at all."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Literal

from tuner.load.stage import StopRule
from tuner.load.workload import Workload

CONCURRENT = "concurrent"
SINGLE_USER = "single_user"
TOOL_CALL = "tool_call"

SUPPORT = {95: 100, 99: 500}
"""The smallest sample that carries a percentile: five of its values lie beyond it. Medians need none."""

_LONG_PROMPT = re.compile(r"ttft_(\d+)_(cold|cached)_ms")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a metric comes from.

    Attributes:
        stage: The stage that measures it.
        quantity: What a stage watches to know how precise it is.
        percent: Of a percentile.
        per_step: Whether its sample counts steps of the engine instead of requests.
    """

    stage: str
    quantity: Literal["rate", "ttft", "tpot"]
    percent: int | None = None
    per_step: bool = False


SOURCES = {
    "output_tokens_per_s": Source(CONCURRENT, "rate"),
    "requests_per_s": Source(CONCURRENT, "rate"),
    "ttft_p50_ms": Source(CONCURRENT, "ttft", 50),
    "ttft_p95_ms": Source(CONCURRENT, "ttft", 95),
    "itl_p50_ms": Source(CONCURRENT, "tpot", 50, per_step=True),
    "itl_p99_ms": Source(CONCURRENT, "tpot", 99, per_step=True),
    "concurrent_tpot_p50_ms": Source(CONCURRENT, "tpot", 50),
    "e2e_p50_ms": Source(CONCURRENT, "tpot", 50),
    "tpot_p50_ms": Source(SINGLE_USER, "tpot", 50),
    "tpot_p95_ms": Source(SINGLE_USER, "tpot", 95),
    "single_user_ttft_p50_ms": Source(SINGLE_USER, "ttft", 50),
}
"""The metrics of the stages that last, by name."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """The metrics that a verdict depends on.

    Attributes:
        goals: Those that are optimised.
        limits: Those that only must keep a bound.
    """

    goals: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Both."""
        return (*self.goals, *self.limits)


def stage_of(name: str) -> str | None:
    """The stage that measures a metric; ``None`` for one that is read off the server's start."""
    if long := _LONG_PROMPT.fullmatch(name):
        return f"ttft_{long[1]}"
    return TOOL_CALL if name == "tool_call_ms" else SOURCES[name].stage if name in SOURCES else None


def support(name: str) -> int:
    """The smallest sample that carries a metric."""
    source = SOURCES.get(name)
    return SUPPORT.get(source.percent or 50, 1) if source else 1


def is_long_prompt(name: str) -> bool:
    """Whether a metric is the TTFT of a long prompt: ``ttft_5000_cold_ms``, ``ttft_5000_cached_ms``."""
    return _LONG_PROMPT.fullmatch(name) is not None


def stop_rule(workload: Workload, stage: str, deciding: Deciding, clock_scale: float) -> StopRule | None:
    """When the concurrent or the single user's stage has measured enough.

    Args:
        workload: Whose stage it is.
        stage: Which of the two.
        deciding: What must be precise. A stage that decides nothing ends with its least time and requests.
        clock_scale: Seconds of a simulated engine that pass in one second of wall time.

    Returns:
        ``None`` for a workload that sends a fixed number of requests (``min_duration_s=0``).
    """
    if not workload.min_duration_s:
        return None
    own = [name for name in deciding.names if name in SOURCES and SOURCES[name].stage == stage]
    return StopRule(
        least_s=workload.min_duration_s / clock_scale,
        most_s=workload.longest_s / clock_scale,
        least_requests=max([_requests(workload, stage), *(_needed(workload, name) for name in own)]),
        rate=_precision(workload, stage, "rate", deciding),
        ttft=_precision(workload, stage, "ttft", deciding),
        tpot=_precision(workload, stage, "tpot", deciding),
    )


def _precision(workload: Workload, stage: str, quantity: str, deciding: Deciding) -> float | None:
    """The tightest that any deciding metric asks for."""

    def asked(names: Iterable[str]) -> bool:
        return any((s := SOURCES.get(name)) and (s.stage, s.quantity) == (stage, quantity) for name in names)

    wanted = [(asked(deciding.goals), workload.precision), (asked(deciding.limits), workload.limit_precision)]
    return min((precision for does, precision in wanted if does), default=None)


def _requests(workload: Workload, stage: str) -> int:
    return workload.requests if stage == CONCURRENT else workload.single_user.requests


def _needed(workload: Workload, name: str) -> int:
    """How many requests carry a metric."""
    if not SOURCES[name].per_step:
        return support(name)
    return ceil(support(name) * workload.users / (workload.typical[1] - 1))


def unmeasurable(workload: Workload, deciding: Deciding) -> tuple[str, str] | None:
    """Why a workload can never measure what decides, and what to write instead; ``None`` if it can."""
    for name in deciding.names:
        if is_long_prompt(name) and int(name.split("_")[1]) not in workload.ttft_prompt_tokens:
            length, sent = name.split("_")[1], ", ".join(map(str, workload.ttft_prompt_tokens)) or "none"
            return f"{name} is not measured: workload.ttft_prompt_tokens is {sent}", f"add {length} to it"
        if name == "tool_call_ms" and not workload.tool_call:
            return f"{name} is not measured: workload.tool_call is false", "say workload.tool_call=true"
        if name in SOURCES and (short := _too_short(workload, name)):
            return short
    return None


def _too_short(workload: Workload, name: str) -> tuple[str, str] | None:
    """What speaks against a percentile of a stage that sends a fixed number of requests."""
    stage, needed = SOURCES[name].stage, _needed(workload, name)
    sent = _requests(workload, stage)
    if workload.min_duration_s or sent >= needed:
        return None
    key = "workload.requests" if stage == CONCURRENT else "workload.single_user.requests"
    median = re.sub(r"_p\d\d_", "_p50_", name)
    return (
        f"{name} needs {needed} requests, and {key}={sent} with workload.min_duration_s=0 sends no more",
        f"say {key}={needed}, or name {median} instead",
    )
