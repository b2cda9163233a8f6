"""The search for the highest rate of requests that a server sustains."""

from tuner.load.metrics import is_late, measure
from tuner.load.naming import SATURATION
from tuner.load.records import StageResult
from tuner.load.saturation import next_rate, rate_stage
from tuner.load.stage import Stage
from tuner.trial.server import ServerUnderTest


def saturate(
    server: ServerUnderTest, sent: tuple[StageResult, ...], seed: int, which: str = ""
) -> tuple[StageResult, ...]:
    """Search for the highest rate that is sustained, where it decides.

    Args:
        server: Which server.
        sent: The stages before, which say where to begin.
        seed: Seeds the prompts.
        which: Tells its stages from others of their name.
    """
    bench, results = server.bench, tuple[StageResult, ...]()
    if SATURATION not in bench.objective.deciding.names:
        return results
    begin = measure(sent, bench.workload, bench.clock_scale).requests_per_s
    while rate := next_rate(results, bench.workload, begin, bench.clock_scale):
        results += server.send([_stage(server, rate, seed)], which)
        if is_late(results[-1], bench.workload):
            break
    return results


def _stage(server: ServerUnderTest, rate: float, seed: int) -> Stage:
    assert server.draft.warm_up is not None
    return rate_stage(
        server.bench.workload,
        rate,
        seed=f"{seed}",
        calibration=server.draft.warm_up.calibration,
        clock_scale=server.bench.clock_scale,
        held_out=server.assignment.proof is not None,
    )
