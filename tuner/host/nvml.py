"""The GPUs as NVML tells of them, through nvidia-ml-py: the one module that speaks with it.

https://docs.nvidia.com/deploy/nvml-api. Indices are in PCI bus order. What a driver or a GPU does not support is
``None``: consumer cards and WSL2 know less than a data centre's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tuner.host.state import GpuState

THROTTLE_REASONS: Mapping[int, str] = {
    0x02: "applications_clocks_setting",
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""NVML's ``nvmlClocksEventReasons`` by their bit, as nvidia-smi spells them; 0x01 says that the GPU is idle."""

_MIB = 1 << 20


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """The names of the reasons in a mask."""
    return tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit)


@contextmanager
def nvml(gpus: Sequence[int]) -> "Iterator[Nvml | None]":
    """These GPUs for as long as the block lasts; ``None`` where the library or the driver is not there."""
    library = _started() if gpus else None
    if library is None:
        yield None
        return
    try:
        yield Nvml(library, gpus)
    finally:
        with suppress(library.NVMLError):
            library.nvmlShutdown()


def _started() -> Any:
    """The library, ready to be asked, or ``None``."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


class Nvml:
    """Reads GPUs; valid within ``nvml``'s block."""

    def __init__(self, library: Any, gpus: Sequence[int]) -> None:
        self._library = library
        self._gpus = tuple(gpus)
        self._seen_us = dict.fromkeys(gpus, 0)

    def read(self, ours: frozenset[int] | None) -> tuple[GpuState, ...]:
        """The GPUs as they are now; one that the driver does not have is left out.

        Args:
            ours: The processes that are tuner's or the server's; ``None`` if they are not known.
        """
        ask = self._ask
        handles = ((index, ask("nvmlDeviceGetHandleByIndex", index)) for index in self._gpus)
        return tuple(self._state(index, handle, ours) for index, handle in handles if handle is not None)

    def _state(self, index: int, handle: Any, ours: frozenset[int] | None) -> GpuState:
        ask, lib = self._ask, self._library
        energy_mj = ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        power_mw = ask("nvmlDeviceGetPowerUsage", handle)
        bits = self._reasons(handle)
        memory = ask("nvmlDeviceGetMemoryInfo", handle)
        rates = ask("nvmlDeviceGetUtilizationRates", handle)
        other_mib, other_share = self._others(index, handle, ours)
        return GpuState(
            index=index,
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, lib.NVML_CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, lib.NVML_CLOCK_MEM),
            temperature_c=ask("nvmlDeviceGetTemperature", handle, lib.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1000,
            throttle_reasons=None if bits is None else throttle_reasons(bits),
            utilization=None if rates is None else rates.gpu / 100,
            memory_used_mib=None if memory is None else memory.used / _MIB,
            other_memory_mib=other_mib,
            other_utilization=other_share,
            energy_j=None if energy_mj is None else energy_mj / 1000,
        )

    def _reasons(self, handle: Any) -> int | None:
        """The mask of throttle reasons; drivers before 535 know it by its older name."""
        bits: int | None = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        return self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle) if bits is None else bits

    def _others(self, index: int, handle: Any, ours: frozenset[int] | None) -> tuple[float | None, float | None]:
        """Memory in MiB and share of the time of processes that are not ours.

        Nothing can be said where none of ours is listed. In a container NVML lists nobody, or by the host's process
        ids, which are not those that we know; our own server would then be taken for somebody else's.
        """
        used_us = self._utilizations(index, handle)  # asked in any case: the next answer begins where this one ends
        listed = self._listed(handle)
        if ours is None or not ours & set(listed):
            return None, None
        share = None if used_us is None else sum(used for pid, used in used_us.items() if pid not in ours)
        return _sum(used for pid, used in listed.items() if pid not in ours), share

    def _listed(self, handle: Any) -> dict[int, float | None]:
        """The memory of each process that has the GPU open, in MiB, where it is known."""
        kinds = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        found = [process for kind in kinds for process in self._ask(kind, handle) or ()]
        return {one.pid: None if one.usedGpuMemory is None else one.usedGpuMemory / _MIB for one in found}

    def _utilizations(self, index: int, handle: Any) -> dict[int, float] | None:
        """The share of the time since the last reading in which each process ran kernels; ``None`` if unsupported.

        The driver keeps one value for each process that ran any, and has none to give where nobody did.
        """
        lib = self._library
        try:
            samples = lib.nvmlDeviceGetProcessUtilization(handle, self._seen_us[index])
        except lib.NVMLError as error:
            return {} if error.value == lib.NVML_ERROR_NOT_FOUND else None
        self._seen_us[index] = max((sample.timeStamp for sample in samples), default=self._seen_us[index])
        return {sample.pid: sample.smUtil / 100 for sample in samples if 0 <= sample.smUtil <= 100}

    def _ask(self, function: str, *arguments: Any) -> Any:
        """What a function of NVML's returns, or ``None`` where it is not supported."""
        try:
            call: Callable[..., Any] = getattr(self._library, function)
            return call(*arguments)
        except self._library.NVMLError:
            return None


def _sum(values: Iterable[float | None]) -> float | None:
    """``None`` if any of them is not known."""
    known = list(values)
    return None if any(value is None for value in known) else sum(value for value in known if value is not None)
