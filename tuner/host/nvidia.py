"""What the GPU driver says of this host: which GPUs there are, how much of their memory is used, and by whom.

Asked of ``nvidia-smi``, which comes with every driver. On WSL2 it knows the memory and not the processes.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.host.nvml import throttle_reasons
from tuner.host.state import GpuState

POWER_CAP = "TUNER_POWER_CAP_W"
"""The variable by which settings ask for a power cap, in watts: who launches a server sets it, no server reads it."""
_WSL_FOLDER = "/usr/lib/wsl/lib"
_TIMEOUT_S = 20
_GPU = re.compile(r"GPU\d+")
_ESCAPE = re.compile(r"\x1b\[\d*m")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it is now.

    Attributes:
        index: In PCI bus order.
        uuid: ``GPU-…``.
        name: For people.
        total_gib: Its memory.
        used_gib: What all processes together hold of it.
        processes: ``python3 (process 4242, 14.1 GiB)``, of those that compute; empty where the driver does not tell.
    """

    index: int
    uuid: str
    name: str
    total_gib: float
    used_gib: float
    processes: tuple[str, ...] = ()


def read() -> tuple[Gpu, ...]:
    """All GPUs; none where no driver answers."""
    rows = _query("--query-gpu=index,uuid,name,memory.total,memory.used")
    by_gpu = _processes() if rows else {}
    try:
        return tuple(
            Gpu(int(index), uuid, name, float(total) / 1024, float(used) / 1024, tuple(by_gpu.get(uuid, ())))
            for index, uuid, name, total, used in rows
        )
    except ValueError:
        return ()


def capabilities() -> dict[int, tuple[int, int]]:
    """The compute capability of each GPU, by its index; empty where no driver answers."""
    rows = _query("--query-gpu=index,compute_cap")
    pairs = ((index, capability.partition(".")) for index, capability in rows)
    return {int(index): (int(major), int(minor)) for index, (major, _, minor) in pairs if minor.isdigit()}


def link(gpus: Sequence[int]) -> str | None:
    """How these GPUs talk to each other, ``NVLink`` if each pair does so, else the bus; ``None`` where nobody says."""
    wanted = {*gpus}
    ours = {one: paths for one, paths in _paths().items() if one in wanted}
    pairs = [path for one, paths in ours.items() for two, path in paths.items() if one != two and two in wanted]
    if pairs and all(path.startswith("NV") for path in pairs):
        return "NVLink"
    rows = [row for row in _query("--query-gpu=index,pcie.link.gen.max,pcie.link.width.max") if int(row[0]) in gpus]
    buses = [(int(generation), int(width)) for _, generation, width in rows if generation.isdigit() and width.isdigit()]
    return "PCIe {}.0 x{}".format(*min(buses)) if buses else None


def _paths() -> dict[int, dict[int, str]]:
    """The matrix of ``nvidia-smi topo -m``: ``NV18`` for eighteen links, else how far away the other GPU is."""
    rows = [line.split() for line in _ESCAPE.sub("", _output("topo", "-m")).splitlines()]
    heads = next((row for row in rows if row and row[0] == "GPU0"), [])
    others = [int(head[3:]) for head in heads if _GPU.fullmatch(head)]
    found = {int(row[0][3:]): row[1:] for row in rows if row and row is not heads and _GPU.fullmatch(row[0])}
    return {gpu: dict(zip(others, cells, strict=False)) for gpu, cells in found.items()}


def descriptions() -> tuple[str, ...]:
    """Name, memory and driver version of each GPU, for a person; none where no driver answers."""
    rows = _query("--query-gpu=name,memory.total,driver_version")
    return tuple(f"{name}, {total} MiB, {version}" for name, total, version in rows)


_STATE = (
    "--query-gpu=index,uuid,clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active,"
    "utilization.gpu,memory.used"
)


def states(gpus: Sequence[int], ours: frozenset[int] | None) -> tuple[GpuState, ...]:
    """These GPUs as they are now, without who used them for how long, which ``nvidia-smi`` does not tell.

    Args:
        gpus: Indices, in PCI bus order.
        ours: The processes that are tuner's or the server's; ``None`` if they are not known.
    """
    rows = [row for row in (_query(_STATE) if gpus else []) if row[0].isdigit() and int(row[0]) in gpus]
    held = _query("--query-compute-apps=gpu_uuid,pid,used_memory") if rows else []
    return tuple(_state(row, [(int(pid), used) for uuid, pid, used in held if uuid == row[1]], ours) for row in rows)


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """How much one GPU may draw, in watts.

    Attributes:
        index: In PCI bus order.
        now_w: What is set.
        least_w: The least that can be set.
        most_w: The most.
        persistent: Whether the driver keeps it while nobody uses the GPU.
    """

    index: int
    now_w: float
    least_w: float
    most_w: float
    persistent: bool


def power_limits(gpus: Sequence[int]) -> tuple[PowerLimit, ...]:
    """The limits of these GPUs; without those that have none, or where no driver answers."""
    wanted = "--query-gpu=index,power.limit,power.min_limit,power.max_limit,persistence_mode"
    found = []
    for index, *watts, persistence in _query(wanted) if gpus else []:
        now, least, most = map(_number, watts)
        if index.isdigit() and int(index) in gpus and now is not None and least is not None and most is not None:
            found.append(PowerLimit(int(index), now, least, most, persistence == "Enabled"))
    return tuple(found)


def set_power(gpu: int, watts: float) -> str | None:
    """Limit what a GPU may draw; returns what the driver says against it, ``None`` if it is done."""
    program = _program()
    if program is None:
        return "there is no nvidia-smi"
    command = [program, "-i", str(gpu), "-pl", f"{watts:g}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    return None if done.returncode == 0 else said or f"exit status {done.returncode}"


def _state(row: list[str], held: list[tuple[int, str]], ours: frozenset[int] | None) -> GpuState:
    """One GPU from its row; as in NVML, nothing is said of others where none of ours is listed."""
    sm, memory, temperature, power, _, utilization, used = (_number(cell) for cell in row[2:])
    share = None if utilization is None else utilization / 100
    reasons = throttle_reasons(int(row[6], 16)) if row[6].startswith("0x") else None
    others = None
    if ours is not None and ours & {pid for pid, _ in held}:
        amounts = [_number(amount) for pid, amount in held if pid not in ours]
        others = None if None in amounts else sum(amount for amount in amounts if amount is not None)
    return GpuState(int(row[0]), sm, memory, temperature, power, reasons, share, used, others)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported]
        return None


def _processes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for uuid, pid, name, used in _query("--query-compute-apps=gpu_uuid,pid,process_name,used_memory"):
        held = f", {float(used) / 1024:.1f} GiB" if used.isdigit() else ""
        found.setdefault(uuid, []).append(f"{name.rsplit('/', 1)[-1]} (process {pid}{held})")
    return found


def _query(wanted: str) -> list[list[str]]:
    """The rows of one question; none where it cannot be answered. A cell holds no comma."""
    said = _output(wanted, "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    return [row for row in rows if len(row) == wanted.count(",") + 1]


def _output(*question: str) -> str:
    """What ``nvidia-smi`` answers; nothing where it cannot."""
    program = _program()
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *question], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _program() -> str | None:
    return shutil.which("nvidia-smi", path=os.pathsep.join([os.environ.get("PATH", os.defpath), _WSL_FOLDER]))
