"""How the host was during one stage of a measurement: what is kept of it in a trial's record."""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU over a stage; ``None`` where the driver does not tell.

    Attributes:
        index: In PCI bus order.
        sm_clock_mhz: Clock of its multiprocessors, mean over the samples.
        memory_clock_mhz: Clock of its memory, likewise.
        temperature_c: The highest.
        power_w: What it drew, in the mean.
        throttle_reasons: Why the driver held its clocks down, in NVML's words (``sw_power_cap``), each that was seen
            in any sample; idleness is not one.
        utilization: Share of the time in which a kernel ran on it, from 0 to 1, in the mean.
        memory_used_mib: The most that all processes together held.
        other_memory_mib: The most that processes held which are neither tuner's nor the server's.
        other_utilization: Share of the time in which such processes ran kernels, from 0 to 1, in the mean.
        energy_j: What it used, by its own counter; of a reading, since its driver was loaded.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    index: int
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    utilization: float | None = None
    memory_used_mib: float | None = None
    other_memory_mib: float | None = None
    other_utilization: float | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class HostState:
    """The host over a stage; ``None`` where it cannot be known.

    Attributes:
        seconds: How long the stage was watched.
        cores: The machine's logical cores.
        cpu_busy_share: Share of all cores' time that was spent at work, interrupts included, from 0 to 1.
        cpu_steal_share: Share of all cores' time that the hypervisor gave to other guests.
        other_cpu_cores: Cores that were busy, in the mean, with processes that are neither tuner's nor the server's.
        load_average: The kernel's one-minute load average at the stage's end.
        gpus: The GPUs that the server may use.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    seconds: float
    cores: int | None = None
    cpu_busy_share: float | None = None
    cpu_steal_share: float | None = None
    other_cpu_cores: float | None = None
    load_average: float | None = None
    gpus: tuple[GpuState, ...] = ()


@dataclass(frozen=True, slots=True)
class StageHost:
    """The host's state during one turn of a stage.

    Attributes:
        stage: The stage's name, as in its requests.
        state: How the host was.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    stage: str
    state: HostState
