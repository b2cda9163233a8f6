"""The GPUs that a server may use, as far as a prediction needs to know them.

What the engine itself printed counts most, then ``nvidia-smi``, then the user's configuration. For simulated hardware
nobody asks this host: its real GPUs are not the ones meant.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator

from tuner.host import nvidia as driver
from tuner.schema import Schema

if TYPE_CHECKING:
    from tuner.engines.base import StartupFacts

Number = TypeVar("Number", int, float)
Source = Literal["the engine's log", "nvidia-smi", "the configuration"]

_SMI_OVERSTATES = 0.025
"""nvidia-smi counts memory that CUDA never sees: 2.0 % of an RTX 4090 (24,564 MiB against 23.52 GiB in vllm#33920),
0.6 % of an H100."""
_MULTIPROCESSORS = {
    "RTX 4090": 128,
    "RTX 3090": 82,
    "RTX 5090": 170,
    "L40S": 142,
    "A100": 108,
    "H100 PCIe": 114,
    "H100": 132,
    "H200": 132,
}
"""Streaming multiprocessors, from the vendor's data sheets: nvidia-smi does not tell."""
_BANDWIDTH_GB_S = {
    "RTX 4090": 1008.0,
    "RTX 3090": 936.0,
    "RTX 5090": 1792.0,
    "RTX 6000 Ada": 960.0,
    "L40": 864.0,
    "L4": 300.0,
    "A100 80": 1935.0,
    "A100-SXM4-80GB": 2039.0,
    "A100": 1555.0,
    "A10": 600.0,
    "GH200 144": 4900.0,
    "GH200": 4000.0,
    "H100 PCIe": 2000.0,
    "H100 NVL": 3938.0,
    "H100": 3350.0,
    "H200": 4800.0,
    "B200": 8000.0,
}
"""Memory bandwidth, from the same; a name's first match counts."""


class GpuConfig(Schema):
    """What is known of one of the machine's GPUs; what the driver or the engine itself says counts more."""

    total_gib: PositiveFloat | None = None
    """Memory, as the engine prints it."""
    free_gib: PositiveFloat | None = None
    """Memory that is free when a server starts, likewise."""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    multiprocessors: PositiveInt | None = None
    """Streaming multiprocessors, as the vendor's data sheet has them."""
    device_name: str | None = None
    """Its name as the driver has it, ``NVIDIA H100 80GB HBM3``: files with tuned kernels are named after it."""
    bandwidth_gb_s: PositiveFloat | None = None
    """Memory bandwidth, likewise, in 1e9 bytes a second."""
    link: str | None = None
    """How they talk to each other, and to the host: ``NVLink``, ``PCIe 4.0 x16``."""

    @field_validator("compute_capability", mode="before")
    @classmethod
    def _text(cls, raw: Any) -> Any:
        return str(raw) if isinstance(raw, float) else raw

    @property
    def capability(self) -> tuple[int, int] | None:
        """The compute capability as numbers that can be compared."""
        if self.compute_capability is None:
            return None
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


class HardwareConfig(Schema):
    """The machine, as far as a study needs to know it."""

    name: str
    """For people."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Indices, in PCI bus order, of the GPUs that the study may use; empty for none."""
    gpu: GpuConfig = GpuConfig()
    """What each of them is; the smallest, where they differ."""
    price_per_hour: PositiveFloat | None = None
    """What the machine costs an hour, all of these GPUs together, in any currency: for the cost of tokens."""
    simulated: dict[str, JsonValue] = Field(default_factory=dict)
    """What the simulated engine is told of its hardware."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of one server; memory is that of the smallest.

    Attributes:
        name: For people.
        gpus: How many the server may use; 0 for a machine without.
        total_gib: Memory in all; ``None`` where nobody knows.
        free_gib: Memory that is free when a server starts.
        capability: Compute capability.
        multiprocessors: Streaming multiprocessors of one GPU.
        source: Who says total and free.
        bandwidth_gb_s: Memory bandwidth of one GPU.
        linked: Whether all of them are joined by NVLink; ``None`` where nobody knows.
        device_name: What the driver calls each of them; ``None`` where nobody knows, or they differ.
    """

    name: str
    gpus: int
    total_gib: float | None = None
    free_gib: float | None = None
    capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    source: Source = "the configuration"
    bandwidth_gb_s: float | None = None
    linked: bool | None = None
    device_name: str | None = None

    @property
    def least_total_gib(self) -> float | None:
        """The least that ``total_gib`` may really be, of which the engine takes its share."""
        if self.total_gib is None or self.source != "nvidia-smi":
            return self.total_gib
        return self.total_gib * (1 - _SMI_OVERSTATES)

    def learned(self, starts: "Iterable[StartupFacts]") -> "Hardware":
        """What starts on it said of its memory put in: the total, and the most that was ever free at a start.

        The most, since memory that others held at one start may be free at the next.
        """
        said = [(facts.total_gib, facts.free_gib) for facts in starts]
        totals, frees = [total for total, _ in said if total], [free for _, free in said if free]
        if not totals:
            return self
        if self.source == "the engine's log" and self.free_gib:
            frees.append(self.free_gib)
        return replace(self, total_gib=totals[-1], free_gib=max(frees, default=None), source="the engine's log")


def hardware_of(config: HardwareConfig) -> Hardware:
    """The hardware of a study: asked of this host's driver where it is real, else as configured."""
    stated = stated_hardware(config)
    return stated if config.simulated or not config.gpus else _asked(stated, config.gpus)


def stated_hardware(config: HardwareConfig) -> Hardware:
    """The hardware as configured, whether it is this host's or not."""
    facts, simulated = config.gpu, config.simulated
    count = simulated.get("count", 1) if simulated else len(config.gpus)
    return Hardware(
        name=config.name,
        gpus=count if isinstance(count, int) else 1,
        total_gib=facts.total_gib,
        free_gib=facts.free_gib,
        capability=facts.capability,
        multiprocessors=facts.multiprocessors,
        bandwidth_gb_s=facts.bandwidth_gb_s or _of_name(config.name, _BANDWIDTH_GB_S),
        linked=None if facts.link is None else facts.link.startswith("NVLink"),
        device_name=facts.device_name,
    )


def found_hardware(indices: Sequence[int] = ()) -> HardwareConfig:
    """What the driver says of this host: its GPUs, their memory, and how they are linked.

    Args:
        indices: The GPUs that are meant; all of them by default.
    """
    seen = [gpu for gpu in driver.read() if not indices or gpu.index in indices]
    if not seen:
        return HardwareConfig(name="CPU (no GPU driver answers)")
    known, smallest = driver.capabilities(), min(seen, key=lambda gpu: gpu.total_gib)
    capability = min((known[gpu.index] for gpu in seen if gpu.index in known), default=None)
    facts = GpuConfig(
        total_gib=round(smallest.total_gib, 2),
        compute_capability=None if capability is None else "{}.{}".format(*capability),
        multiprocessors=_of_name(smallest.name, _MULTIPROCESSORS),
        bandwidth_gb_s=_of_name(smallest.name, _BANDWIDTH_GB_S),
        link=driver.link([gpu.index for gpu in seen]),
        device_name=_one_name(seen),
    )
    return HardwareConfig(name=_called(seen, facts.link), gpus=tuple(gpu.index for gpu in seen), gpu=facts)


def _called(seen: Sequence[driver.Gpu], link: str | None) -> str:
    """``2 x NVIDIA H200, NVLink``; where there are several kinds, each with its number."""
    counts = Counter(gpu.name for gpu in seen)
    names = " + ".join(f"{count} x {name}" if len(seen) > 1 else name for name, count in counts.items())
    return f"{names}, {link}" if link else names


def _asked(stated: Hardware, indices: Sequence[int]) -> Hardware:
    seen = [gpu for gpu in driver.read() if gpu.index in indices]
    if not seen:
        return stated
    known = driver.capabilities()
    return replace(
        stated,
        total_gib=min(gpu.total_gib for gpu in seen),
        free_gib=min(gpu.total_gib - gpu.used_gib for gpu in seen),
        capability=min((known[gpu.index] for gpu in seen if gpu.index in known), default=stated.capability),
        multiprocessors=stated.multiprocessors or _of_name(seen[0].name, _MULTIPROCESSORS),
        bandwidth_gb_s=stated.bandwidth_gb_s or _of_name(seen[0].name, _BANDWIDTH_GB_S),
        source="nvidia-smi",
        device_name=_one_name(seen),
    )


def _one_name(seen: Sequence[driver.Gpu]) -> str | None:
    names = {gpu.name for gpu in seen}
    return names.pop() if len(names) == 1 else None


def _of_name(name: str, known: Mapping[str, Number]) -> Number | None:
    return next((value for part, value in known.items() if part in name), None)
