"""How much others may use the machine while a stage is measured, before its numbers are no longer the server's own."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tuner.host.state import GpuState, HostState
from tuner.schema import Schema

Share = Annotated[float, Field(ge=0, le=1)]


class HostConfig(Schema):
    """When a stage counts as disturbed by the rest of the machine, and is sent again."""

    judge: bool = True
    """Whether disturbed stages are sent again; the host's state is recorded in any case."""
    max_other_cpu: Share = 0.25
    """Share of all cores that other processes may use."""
    max_steal: Share = 0.05
    """Share of all cores' time that the hypervisor may give to other guests."""
    max_other_gpu: Share = 0.1
    """Share of the time in which other processes may run kernels on one of the study's GPUs."""


def disturbance(state: HostState, limits: HostConfig) -> str | None:
    """Who used the machine more than is allowed, in a sentence; ``None`` if nobody did, or nobody can tell."""
    return "; ".join(_disturbances(state, limits)) or None if limits.judge else None


def _disturbances(state: HostState, limits: HostConfig) -> Iterator[str]:
    if state.other_cpu_cores is not None and state.cores and state.other_cpu_cores > limits.max_other_cpu * state.cores:
        yield f"other processes used {state.other_cpu_cores:.1f} of {state.cores} cores"
    if state.cpu_steal_share is not None and state.cpu_steal_share > limits.max_steal:
        yield f"the hypervisor gave {state.cpu_steal_share:.0%} of the cores' time to other guests"
    yield from (said for gpu in state.gpus if (said := _on_gpu(gpu, limits)))


def _on_gpu(gpu: GpuState, limits: HostConfig) -> str | None:
    if gpu.other_utilization is None or gpu.other_utilization <= limits.max_other_gpu:
        return None
    return f"other processes used GPU {gpu.index} for {gpu.other_utilization:.0%} of the time"
