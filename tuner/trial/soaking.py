"""The soak of a server after its load: the workload's own busy traffic, in rounds."""

import time
from collections.abc import Iterator, Sequence

from tuner.engines.base import Phase
from tuner.load.deciding import Deciding
from tuner.load.naming import SINGLE_USER, TOOL_CALL
from tuner.load.plan import Plan
from tuner.load.stage import Stage
from tuner.load.workload import Workload
from tuner.proof.soak import ROUNDS, Soaked, round_of
from tuner.trial.server import AGAIN, ServerUnderTest


def soak(server: ServerUnderTest) -> None:
    """Load after load until enough has gone through its KV cache, or its time is over."""
    most_s, draft = server.assignment.soak_s, server.draft
    if not most_s:
        return
    server.enter(Phase.SOAKING)
    load, begun_s = soaking(server.bench.workload, most_s * server.bench.clock_scale), time.monotonic()
    soaked = draft.soak = Soaked(kv_tokens=draft.kv_tokens, allowed=load.max_failed_share)
    while time.monotonic() - begun_s < most_s and not soaked.enough:
        number = len(soaked.rounds) + 1
        planned = server.plan(server.assignment.seed + number * AGAIN, load, Deciding())
        soaked, lasted = _round(server, soaked, list(busy(planned)), begun_s)
        draft.soak = soaked
        if not lasted:
            break


def _round(server: ServerUnderTest, soaked: Soaked, stages: Sequence[Stage], begun_s: float) -> tuple[Soaked, bool]:
    """One more round; and whether it got to its end, which too many failed requests keep it from."""
    which, scale = f", soak {len(soaked.rounds) + 1}", server.bench.clock_scale
    before, round_s = server.draft.disturbed, time.monotonic()
    results = server.send(stages, which)
    took_s = time.monotonic() - round_s
    server.draft.disturbed = before  # nothing that the proof rests on
    server.keep(results, which)
    added = round_of(results, (round_s - begun_s) * scale, took_s * scale, scale)
    lasted = bool(results) and not any(result.aborted for result in results)
    return soaked.model_copy(update={"rounds": (*soaked.rounds, added)}), lasted


def soaking(workload: Workload, most_s: float) -> Workload:
    """The traffic of one round; a trace is replayed as it is.

    Args:
        workload: The study's.
        most_s: How long the whole soak may be, in the engine's own seconds.
    """
    stages = len(workload.arrivals.rates if workload.arrivals else workload.rungs)
    each_s = most_s / ROUNDS / stages
    lasting = {"min_duration_s": each_s, "max_duration_s": each_s, "requests": max(workload.rungs)}
    return workload.model_copy(update=lasting)


def busy(planned: Plan) -> Iterator[Stage]:
    """The stages of many users."""
    return (each for each in planned.stages if each.name not in (SINGLE_USER, TOOL_CALL) and not _long_prompt(each))


def _long_prompt(stage: Stage) -> bool:
    return stage.name.startswith("ttft_")
