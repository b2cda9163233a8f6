"""A driver of two GPUs that speaks pynvml's API, with the shapes and the errors of the real one."""

from types import SimpleNamespace

NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
NVML_TEMPERATURE_GPU = 0
NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED = 3, 6, 9
FUNCTIONS = [
    "nvmlInit",
    "nvmlShutdown",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetProcessUtilization",
]


class NVMLError(Exception):
    """As pynvml has it: the number is in ``value``."""

    def __init__(self, value):
        super().__init__(value)
        self.value = value


class Driver:
    """Put it in the place of the module ``pynvml``.

    Attributes:
        running: For each GPU the processes that have it open, with their memory in bytes or None.
        used: For each GPU the processes that ran kernels since the last question, in percent.
        energy_mj: What each GPU has used, in millijoules.
        unsupported: Functions that this driver does not have.
    """

    NVMLError = NVMLError

    def __init__(self):
        self.running: dict[int, dict[int, int | None]] = {0: {}, 1: {}}
        self.used: dict[int, dict[int, int]] = {0: {}, 1: {}}
        self.reasons = 0x0
        self.energy_mj = {0: 5_000_000, 1: 7_000_000}
        self.unsupported: set[str] = set()
        self.loaded = True
        self.opened = 0
        self.clock_us = 0

    def __getattr__(self, name):
        if name in globals():
            return globals()[name]
        if name not in FUNCTIONS:
            raise AttributeError(name)
        return lambda *arguments: self._call(name, *arguments)

    def _call(self, name, *arguments):
        if name in self.unsupported:
            raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
        return getattr(self, f"_{name}")(*arguments)

    def _nvmlInit(self):
        if not self.loaded:
            raise NVMLError(NVML_ERROR_DRIVER_NOT_LOADED)
        self.opened += 1

    def _nvmlShutdown(self):
        self.opened -= 1

    def _nvmlDeviceGetHandleByIndex(self, index):
        if index not in self.running:
            raise NVMLError(2)
        return index

    def _nvmlDeviceGetClockInfo(self, handle, kind):
        return {NVML_CLOCK_SM: 2520, NVML_CLOCK_MEM: 10501}[kind]

    def _nvmlDeviceGetTemperature(self, handle, sensor):
        return 61

    def _nvmlDeviceGetPowerUsage(self, handle):
        return 287_500

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.energy_mj[handle]

    def _nvmlDeviceGetMemoryInfo(self, handle):
        used = sum(held or 0 for held in self.running[handle].values())
        return SimpleNamespace(total=24 << 30, used=used, free=(24 << 30) - used)

    def _nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=93, memory=41)

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self.reasons

    _nvmlDeviceGetCurrentClocksThrottleReasons = _nvmlDeviceGetCurrentClocksEventReasons

    def _nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self.running[handle].items()]

    def _nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        return []

    def _nvmlDeviceGetProcessUtilization(self, handle, since_us):
        if not self.used[handle]:
            raise NVMLError(NVML_ERROR_NOT_FOUND)
        self.clock_us += 1
        assert since_us < self.clock_us
        return [SimpleNamespace(pid=p, timeStamp=self.clock_us, smUtil=u) for p, u in self.used[handle].items()]
