"""Tuned kernels for experts: which file of ``VLLM_TUNED_CONFIG_FOLDER`` vLLM will look for, known before a launch.

Read in ``model_executor/layers/fused_moe/fused_moe.py`` (``get_config_file_name``, ``get_moe_configs``): a file that is
not there is passed over in silence, and the package's own or a default is taken.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tuner.engines.effective import EffectiveSetting, Status
from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.model.parts import Experts

VARIABLE = "VLLM_TUNED_CONFIG_FOLDER"
_FOUR_BITS = 4
_USED = re.compile(r"Using configuration from (?P<path>\S.*?) for MoE layer")
_DEFAULT = re.compile(r"Using default MoE config\.")


@dataclass(frozen=True, slots=True)
class KernelFile:
    """The file for one shape on one card.

    Attributes:
        name: Its name; a ``*`` stands for what is not known here.
    """

    name: str

    def is_in(self, folder: Path) -> bool:
        """Whether a folder has it."""
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:
            return False
        shape = re.compile(re.escape(self.name).replace(r"\*", ".*"))
        return any(map(shape.fullmatch, _files(folder, changed)))


@cache
def _files(folder: Path, changed: int) -> tuple[str, ...]:
    """The names in it, until it changes: every candidate of a search is asked about."""
    return tuple(path.name for path in folder.glob("*.json"))


def kernel_file(model: Architecture | None, demand: Demand, device: str | None) -> KernelFile | None:
    """What vLLM looks for; ``None`` where no kernel reads such a file: without experts, and for 4-bit weights.

    Args:
        model: The model; ``None`` where nothing is known of it.
        demand: What the settings ask for.
        device: The card as its driver names it; ``None`` where nobody knows.
    """
    if model is None or model.experts is None or _four_bits(model) or demand.online:
        return None
    count, width = _shape(model.experts, demand)
    return KernelFile(f"E={count},N={width},device_name={_device(device)}{_stored(model)}.json")


def effective_kernels(requested: str, log: Iterable[str]) -> EffectiveSetting | None:
    """What the log says of the folder that was asked for; ``None`` where it says nothing of kernels for experts."""
    for line in log:
        if found := _USED.search(line):
            ours = Path(found["path"]).is_relative_to(requested)
            status = Status.HONOURED if ours else Status.OVERRIDDEN
            taken = requested if ours else str(Path(found["path"]).parent)
            return EffectiveSetting(name=VARIABLE, requested=requested, effective=taken, status=status)
        if _DEFAULT.search(line):
            no_effect = Status.NO_EFFECT
            return EffectiveSetting(
                name=VARIABLE, requested=requested, effective=None, status=no_effect, by=line.strip()
            )
    return None


def _shape(experts: Experts, demand: Demand) -> tuple[int, int]:
    """Experts of one rank, and how wide they are there: dealt out whole, or each cut."""
    ranks = demand.experts_divided_by
    if demand.expert_parallel:
        return -(-experts.count // ranks), experts.intermediate
    return experts.count, experts.intermediate // ranks


def _device(name: str | None) -> str:
    if name is None:
        return "*"
    words = re.split(r"[\s/_]+", name)
    return "NVIDIA_H200" if "H200" in words else "_".join(words)


def _stored(model: Architecture) -> str:
    """How the weights are stored, as file names say it."""
    quantization = model.quantization
    if quantization is None:
        return ""
    if quantization.method == "fp8" and (form := quantization.format):
        return ",dtype=fp8_w8a8" + (f",block_shape=[{form.block},{form.block}]" if form.block else "")
    return "*"


def _four_bits(model: Architecture) -> bool:
    form = model.quantization.format if model.quantization else None
    return form is not None and form.bits <= _FOUR_BITS
