"""The GPUs of this host at one moment, by whichever way the driver can be asked, and over a stage."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

from tuner.host import nvidia as driver
from tuner.host.nvml import nvml
from tuner.host.state import GpuState

Ours = frozenset[int] | None
"""The processes that are tuner's or the server's; ``None`` if they are not known."""
Read = Callable[[Ours], tuple[GpuState, ...]]
"""Reads the GPUs as they are now."""

_EVERY_S = 1.0
_EVERY_WITH_PROGRAM_S = 5.0


@contextmanager
def reading(gpus: Sequence[int]) -> Iterator[tuple[Read, float]]:
    """How to read these GPUs, and how often that may be done, in seconds.

    NVML answers within milliseconds. Where it cannot be loaded, ``nvidia-smi`` is started for each reading; it does not
    tell which process used a GPU for how long.
    """
    with nvml(gpus) as library:
        if library is not None:
            yield library.read, _EVERY_S
        else:
            yield lambda ours: driver.states(gpus, ours), _EVERY_WITH_PROGRAM_S


def counts_energy(gpus: Sequence[int]) -> bool:
    """Whether each of these GPUs has a counter of the energy that it used: from Volta on, asked through NVML."""
    with reading(gpus) as (read, _):
        states = read(None)
    return len(states) == len(gpus) > 0 and all(state.energy_j is not None for state in states)


def merged(samples: Sequence[GpuState], begun_j: float | None = None) -> GpuState:
    """One GPU over a stage; see ``GpuState`` for what becomes of each field.

    Args:
        samples: One or more, the last one from the stage's end.
        begun_j: Its energy counter at the stage's beginning.
    """
    ended_j = samples[-1].energy_j
    reasons = [sample.throttle_reasons for sample in samples if sample.throttle_reasons is not None]
    return GpuState(
        index=samples[0].index,
        sm_clock_mhz=_mean(sample.sm_clock_mhz for sample in samples),
        memory_clock_mhz=_mean(sample.memory_clock_mhz for sample in samples),
        temperature_c=_most(sample.temperature_c for sample in samples),
        power_w=_mean(sample.power_w for sample in samples),
        throttle_reasons=tuple(sorted({name for names in reasons for name in names})) if reasons else None,
        utilization=_mean(sample.utilization for sample in samples),
        memory_used_mib=_most(sample.memory_used_mib for sample in samples),
        other_memory_mib=_most(sample.other_memory_mib for sample in samples),
        other_utilization=_mean(sample.other_utilization for sample in samples),
        energy_j=None if begun_j is None or ended_j is None or ended_j < begun_j else round(ended_j - begun_j, 3),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 3) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
