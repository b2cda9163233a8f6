"""What an objective asks of a workload: how many requests, how tight, and whether the workload measures it at all."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from tuner.load.naming import SATURATION, SINGLE_USER, START, TOOL_CALL, MetricName, meaning, parse
from tuner.load.stage import StopRule
from tuner.load.workload import Workload

_SCRAPED = ("preemptions", "prefix_hit_rate")
_PROMISE = "workload.slo.ttft_ms=… in milliseconds, workload.slo.tpot_ms=… or workload.slo.e2e_ms=… (docs/metrics.md)"
_GOOD = 100
"""Requests that a share of them needs where it decides: of fewer, 95 % and 99 % are hardly told apart."""
_MARGIN = 1.25
"""Of an open loop as many more requests are sent than its sample needs: those before the first answer do not count."""


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
    found = meaning(name)
    return found.stage if found and found.stage != START else None


def support(name: str) -> int:
    """The smallest sample that carries a metric."""
    found = meaning(name)
    return found.support if found else 1


def is_long_prompt(name: str) -> bool:
    """Whether a metric is of a long prompt: ``ttft_5000_cold_ms``, ``tpot_ms.p50.prompt_5000.cached``."""
    found = meaning(name)
    return found is not None and found.sending is not None


def stop_rule(workload: Workload, stage: str, deciding: Deciding, clock_scale: float) -> StopRule | None:
    """When a stage that lasts has measured enough.

    Args:
        workload: Whose stage it is.
        stage: Which: the concurrent one, one of its ladder, or the single user's.
        deciding: What must be precise. A stage that decides nothing ends with its least time and requests.
        clock_scale: Seconds of a simulated engine that pass in one second of wall time.

    Returns:
        ``None`` for a workload that sends a fixed number of requests (``min_duration_s=0``).
    """
    if not workload.min_duration_s:
        return None
    own = [name for name in map(parse, deciding.names) if name.stage == stage]
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
        return any((name.stage, name.quantity.watched) == (stage, quantity) for name in map(parse, names))

    wanted = [(asked(deciding.goals), workload.precision), (asked(deciding.limits), workload.limit_precision)]
    return min((precision for does, precision in wanted if does), default=None)


def _requests(workload: Workload, stage: str) -> int:
    return workload.single_user.requests if stage == SINGLE_USER else workload.requests


def _needed(workload: Workload, name: MetricName) -> int:
    """How many requests of its stage carry a metric: of a class only some of them are."""
    requests = (_GOOD if name.quantity.promised else name.support) / workload.share_of(name.traffic)
    if name.per_step:
        requests *= _users(workload, name.stage) / (workload.typical[1] - 1)
    if workload.arrivals and name.stage != SINGLE_USER and requests > 1:
        requests *= _MARGIN
    return ceil(requests)


def _users(workload: Workload, stage: str) -> int:
    if stage == SINGLE_USER:
        return 1
    what, _, users = stage.partition("_")
    return int(users) if what in ("users", "agents") else workload.users


def repeats(workload: Workload, prompt_tokens: int, deciding: Deciding) -> int:
    """How many prompts of a length are sent: one, or as many as a percentile that decides needs."""
    names = (name for name in map(parse, deciding.names) if name.prompt_tokens == prompt_tokens)
    gaps = workload.ttft_output_tokens - 1  # of each prompt
    return max((ceil(name.support / gaps) if name.per_step and gaps else name.support for name in names), default=1)


def unmeasurable(workload: Workload, deciding: Deciding) -> tuple[str, str] | None:
    """Why a workload can never measure what decides, and what to write instead; ``None`` if it can."""
    objections = (_objection(workload, name) for name in map(parse, deciding.names))
    return next((objection for objection in objections if objection), None)


def _objection(workload: Workload, name: MetricName) -> tuple[str, str] | None:
    if name.prompt_tokens is not None and name.prompt_tokens not in workload.ttft_prompt_tokens:
        sent = ", ".join(map(str, workload.ttft_prompt_tokens)) or "none"
        return f"{name} is not measured: workload.ttft_prompt_tokens is {sent}", f"add {name.prompt_tokens} to it"
    if name.sending and workload.ttft_output_tokens == 1 and name.quantity.watched == "tpot":
        return f"{name} is not measured: workload.ttft_output_tokens is 1", "say workload.ttft_output_tokens=16"
    if name.stage == TOOL_CALL and not workload.tool_call:
        return f"{name} is not measured: workload.tool_call is false", "say workload.tool_call=true"
    if name.traffic is not None and name.traffic not in (classes := [each.name for each in workload.classes]):
        there = f"name one of {', '.join(classes)}" if classes else "leave the class out"
        return f"{name} is not measured: workload.classes has no {name.traffic!r}", f"{there}, or add it"
    if name.traffic is not None and not workload.share_of(name.traffic):
        few = f"its weight makes it none of the {workload.requests} requests that a stage repeats"
        return f"{name} is not measured: {few}", "raise workload.requests"
    if name.quantity.promised and not workload.promise(name.traffic) and (name.traffic or not workload.promises):
        return f"{name} needs to know what is promised of each request", f"say {_PROMISE}"
    if name.quantity.name == SATURATION and (workload.trace or workload.agents or not workload.promises):
        if not workload.promises:
            return f"{name} needs to know what is promised of each request", f"say {_PROMISE}"
        return f"{name} is not measured with a trace or agents, which have no rate to change", "choose other traffic"
    if name.rung and (absent := _no_such_rung(workload, name)):
        return absent
    if name.quantity.name in _SCRAPED and not workload.min_duration_s and (alone(name) or not workload.on_schedule):
        why = "the server's counters are read while a stage lasts, and workload.min_duration_s is 0"
        return f"{name} is not measured: {why}", "say workload.min_duration_s=10"
    return _too_short(workload, name)


def alone(name: MetricName) -> bool:
    """Whether it is of the single user's stage."""
    return name.stage == SINGLE_USER


def _no_such_rung(workload: Workload, name: MetricName) -> tuple[str, str] | None:
    *stages, last = workload.ladder
    if name.rung in stages:
        return None
    if name.rung == last:
        plain = MetricName(name.quantity, name.percent).text
        return f"{name}: {last} is the last rung of the ladder, the concurrent stage", f"name it {plain}"
    there = f"name one of its stages ({', '.join(stages)})" if stages else "leave the stage out"
    return f"{name} is not measured: the workload has no stage {name.rung}", f"{there}, or make a ladder with it"


def _too_short(workload: Workload, name: MetricName) -> tuple[str, str] | None:
    """What speaks against a percentile of a stage that sends a fixed number of requests."""
    if workload.min_duration_s or workload.trace or name.percent is None or name.sending:
        return None
    needed, sent = _needed(workload, name), _requests(workload, name.stage)
    if sent >= needed:
        return None
    key = "workload.single_user.requests" if name.stage == SINGLE_USER else "workload.requests"
    return (
        f"{name} needs {needed} requests, and {key}={sent} with workload.min_duration_s=0 sends no more",
        f"say {key}={needed}, or name {name.median} instead",
    )
