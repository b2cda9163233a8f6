"""The concurrent stage, and those of its ladder in front of it: users in a closed loop, or arrivals in an open one."""

from dataclasses import replace
from math import ceil

from tuner.load.agents import conversations
from tuner.load.arrivals import schedule
from tuner.load.deciding import Deciding, stop_rule
from tuner.load.naming import CONCURRENT
from tuner.load.prompts import TokenCalibration
from tuner.load.requests import mixed, stage
from tuner.load.shapes import Arrivals, Trace
from tuner.load.stage import Stage, StopRule
from tuner.load.steady import PATIENCE
from tuner.load.trace import due_ms, half, measured, replayed
from tuner.load.workload import Workload


def busy_stages(
    workload: Workload,
    *,
    seed: str,
    calibration: TokenCalibration,
    clock_scale: float,
    deciding: Deciding,
    held_out: bool,
) -> list[Stage]:
    """The ladder in its order; arguments as ``plan`` has them."""
    part = f"{workload.name}/{'held out' if held_out else 'tuning'}"

    def requests(name: str, count: int) -> Stage:
        made = mixed(
            workload,
            count,
            seed=f"{seed}/{name}",
            shape=f"{part}/{name}",
            calibration=calibration,
            held_out=held_out,
        )
        return stage(workload, name, made)

    def rule(name: str) -> StopRule | None:
        return stop_rule(workload, name, deciding, clock_scale)

    if workload.trace:
        return [_replay(workload, workload.trace, seed, part, calibration, clock_scale, held_out)]
    if arrivals := workload.arrivals:
        rungs = [
            (name, rate, _count(workload, arrivals, rate, rule(name), clock_scale))
            for name, rate in zip(_names(workload), arrivals.rates, strict=True)
        ]
        return [
            replace(
                requests(name, count),
                due_ms=_due_ms(schedule(arrivals, rate, count, f"{part}/{name}/arrivals"), clock_scale),
            )
            for name, rate, count in rungs
        ]
    if agents := workload.agents:
        return [
            replace(
                stage(
                    workload,
                    name,
                    conversations(
                        workload,
                        agents,
                        workload.requests,
                        seed=f"{seed}/{name}",
                        shape=f"{part}/{name}",
                        calibration=calibration,
                        clock_scale=clock_scale,
                        held_out=held_out,
                    ),
                    streams=users,
                ),
                rule=rule(name),
            )
            for name, users in zip(_names(workload), workload.rungs, strict=True)
        ]
    return [
        replace(requests(name, workload.requests), streams=users, rule=rule(name))
        for name, users in zip(_names(workload), workload.rungs, strict=True)
    ]


def _replay(
    workload: Workload,
    trace: Trace,
    seed: str,
    part: str,
    calibration: TokenCalibration,
    clock_scale: float,
    held_out: bool,
) -> Stage:
    ends = workload.prompt_tokens, workload.output_tokens
    lines = measured(half(trace, held_out), *ends, f"{part}/{CONCURRENT}", held_out=held_out)
    made = replayed(
        lines, trace, seed=f"{seed}/{CONCURRENT}", output_tokens=workload.typical[1], calibration=calibration
    )
    return replace(stage(workload, CONCURRENT, made), due_ms=due_ms(lines, trace.speed * clock_scale))


def _names(workload: Workload) -> list[str]:
    return [*workload.ladder[:-1], CONCURRENT]


def _due_ms(schedule_s: tuple[float, ...], clock_scale: float) -> tuple[float, ...]:
    return tuple(round(due_s * 1000 / clock_scale, 3) for due_s in schedule_s)


def _count(workload: Workload, arrivals: Arrivals, rate: float, rule: StopRule | None, clock_scale: float) -> int:
    """How many requests an open loop sends: for its least time and its sample, but never beyond a sample's patience."""
    if rule is None:
        return workload.requests
    mean = (rate + (arrivals.until_rate or rate)) / 2 * clock_scale
    return min(max(rule.least_requests, ceil(mean * rule.least_s)), max(1, ceil(mean * PATIENCE * rule.most_s)))
