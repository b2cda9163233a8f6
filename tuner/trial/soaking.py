"""What a soak sends: the workload's own busy traffic, in rounds."""

from collections.abc import Iterator

from tuner.load.naming import SINGLE_USER, TOOL_CALL
from tuner.load.plan import Plan
from tuner.load.stage import Stage
from tuner.load.workload import Workload
from tuner.proof.soak import ROUNDS


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
