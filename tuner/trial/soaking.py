"""What a soak sends: the workload's own busy traffic, in rounds."""

from collections.abc import Iterator

from tuner.load.deciding import SINGLE_USER, TOOL_CALL
from tuner.load.plan import Plan
from tuner.load.stage import Stage
from tuner.load.workload import Workload
from tuner.proof.soak import ROUNDS


def soaking(workload: Workload, most_s: float) -> Workload:
    """The traffic of one round; one that sends a fixed number of requests, or a trace, is sent as it is.

    Args:
        workload: The study's.
        most_s: How long the whole soak may be, in the engine's own seconds.
    """
    if not workload.min_duration_s:
        return workload
    stages = len(workload.arrivals.rates if workload.arrivals else workload.rungs)
    each_s = min(workload.min_duration_s, most_s / ROUNDS / stages)
    return workload.model_copy(
        update={"min_duration_s": each_s, "max_duration_s": each_s, "requests": max(workload.rungs)}
    )


def busy(planned: Plan) -> Iterator[Stage]:
    """The stages of many users."""
    return (each for each in planned.stages if each.name not in (SINGLE_USER, TOOL_CALL) and not _long_prompt(each))


def _long_prompt(stage: Stage) -> bool:
    return stage.name.startswith("ttft_")
