"""What this machine can run, and what is missing: looked at, never changed."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.config import SiteConfig
from tuner.engines.registry import kind_of
from tuner.errors import InfrastructureError
from tuner.host import nvidia as driver
from tuner.host.check_result import CheckResult, CheckState
from tuner.host.nvml import nvml
from tuner.site import clean
from tuner.site.gpus import holders

if TYPE_CHECKING:
    from tuner.config import Config
    from tuner.launchers.docker.survey import Survey

_ENOUGH_DISK_GB = 20.0


def examine(config: "Config | None" = None) -> list[CheckResult]:
    """Look at everything.

    Args:
        config: A study that is to run here; without one, what only some studies need is a note.
    """
    survey, engine = _engine(wanted=config is not None and "Docker" in config.launcher.needs)
    site = config.site if config else SiteConfig()
    return [
        _python(),
        _system(),
        *engine,
        *_gpus(site, config, survey),
        *_gpu_readings(),
        *_ports(config, survey),
        *_disks(config, survey),
        *_caches(survey),
        *(config.launcher.examine(config) if config and _can_be_asked(config, survey) else ()),
        *(_parsers(config) if config else ()),
        _search(),
        *_left_overs(),
    ]


def _python() -> CheckResult:
    return CheckResult(
        name="Python", state=CheckState.OK, text=f"{platform.python_version()} (3.11 or newer is needed)"
    )


def _system() -> CheckResult:
    name = "system"
    if platform.system() == "Windows":
        fix = "install WSL2 (`wsl --install`), and tuner in it"
        return CheckResult(name=name, state=CheckState.MISSING, text="Windows: run inside WSL2", fix=fix)
    if "microsoft" in platform.release().lower():
        return CheckResult(name=name, state=CheckState.OK, text=f"WSL2, {platform.release()}")
    return CheckResult(
        name=name, state=CheckState.OK, text=f"{platform.system()} {platform.release()} {platform.machine()}"
    )


def _can_be_asked(config: "Config", survey: "Survey | None") -> bool:
    """Without what it needs a launcher has nothing to look into."""
    return survey is not None or "Docker" not in config.launcher.needs


def _engine(*, wanted: bool) -> "tuple[Survey | None, list[CheckResult]]":
    """The Docker engine and its NVIDIA runtime."""
    from tuner.launchers.docker.survey import survey

    try:
        found = survey()
    except InfrastructureError as error:
        state = CheckState.MISSING if wanted else CheckState.NOTE
        return None, [CheckResult(name="Docker", state=state, text=error.message, fix=error.fix)]
    text = f"{found.version} on {found.system}, at {found.url} (SDK {found.sdk}){', on WSL2' if found.wsl else ''}"
    runtime = CheckResult(name="NVIDIA runtime", state=CheckState.OK, text="Docker can give containers GPUs")
    if not found.nvidia:
        fix = "nvidia-container-toolkit, then `sudo nvidia-ctk runtime configure --runtime=docker`, and restart Docker"
        runtime = CheckResult(name="NVIDIA runtime", state=CheckState.NOTE, text="Docker does not know of one", fix=fix)
    return found, [CheckResult(name="Docker", state=CheckState.OK, text=text), runtime]


def _gpus(site: SiteConfig, config: "Config | None", survey: "Survey | None") -> Iterator[CheckResult]:
    seen = driver.read()
    services = survey.services if survey else ()
    needed = config.gpus if config else ()
    for gpu in needed or tuple(one.index for one in seen):
        yield _gpu(gpu, seen, [holder.who for holder in holders([gpu], services, seen, site.idle_gib)])
    if not seen:
        fix = "install the NVIDIA driver (`nvidia-smi` must answer); experiment=demo needs no GPU"
        state = CheckState.MISSING if needed else CheckState.NOTE
        yield CheckResult(name="GPU driver", state=state, text="no driver answers", fix=fix)


def _gpu_readings() -> Iterator[CheckResult]:
    """How the GPUs' state is recorded while a stage is measured; nothing is said where there is no GPU."""
    gpus = [gpu.index for gpu in driver.read()]
    if not gpus:
        return
    with nvml(gpus) as library:
        if library is not None:
            yield CheckResult(name="GPU readings", state=CheckState.OK, text="NVML answers")
            return
    fix = "make libnvidia-ml.so.1, which comes with the driver, known to the dynamic linker"
    text = "NVML does not answer; nvidia-smi does not tell how much others use a GPU"
    yield CheckResult(name="GPU readings", state=CheckState.NOTE, text=text, fix=fix)


def _gpu(gpu: int, seen: tuple[driver.Gpu, ...], held_by: list[str]) -> CheckResult:
    name = f"GPU {gpu}"
    state = next((one for one in seen if one.index == gpu), None)
    text = f"{state.name}, {state.used_gib:.1f} of {state.total_gib:.1f} GiB in use" if state else "not to be seen"
    if held_by:
        fix = "site.stop=[NAME] stops a service for a study, and starts it again in the end"
        return CheckResult(name=name, state=CheckState.NOTE, text=f"{text}; held by {', '.join(held_by)}", fix=fix)
    return CheckResult(name=name, state=CheckState.OK if state else CheckState.MISSING, text=text)


def _ports(config: "Config | None", survey: "Survey | None") -> Iterator[CheckResult]:
    """Trials take any free port of the loopback interface; the deployment wants its own back."""
    taken = {port: service.known_as for service in (survey.services if survey else ()) for port in service.ports}
    listed = ", ".join(f"{port} {name}" for port, name in sorted(taken.items()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    text = f"free ones on 127.0.0.1{f'; containers publish {listed}' if listed else ''}"
    yield CheckResult(name="ports", state=CheckState.OK, text=text)
    if config and config.model.service.port in taken:
        port = config.model.service.port
        yield CheckResult(name=f"port {port}", state=CheckState.OK, text=f"the deployment's; {taken[port]} has it now")


def _disks(config: "Config | None", survey: "Survey | None") -> Iterator[CheckResult]:
    hub = config.launcher.models if config else Path("~/.cache/huggingface/hub").expanduser()
    places = {"studies": config.study.folder if config else Path("studies"), "models": hub}
    if survey and Path(survey.root).is_dir():
        places["Docker"] = Path(survey.root)
    for name, folder in places.items():
        if folder is not None:
            yield _disk(name, folder)


def _disk(name: str, folder: Path) -> CheckResult:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if name == "studies" and not os.access(there, os.W_OK):
        fix = "make it writable, or choose another study.folder"
        return CheckResult(
            name=f"disk for {name}", state=CheckState.MISSING, text=f"{there} cannot be written", fix=fix
        )
    free_gb = shutil.disk_usage(there).free / 1e9
    enough = free_gb >= _ENOUGH_DISK_GB
    text = f"{free_gb:.0f} GB free for {name} in {folder}"
    fix = "" if enough else "an image of vLLM takes about 10 GB, a model its own size"
    return CheckResult(name=f"disk for {name}", state=CheckState.OK if enough else CheckState.NOTE, text=text, fix=fix)


def _caches(survey: "Survey | None") -> Iterator[CheckResult]:
    if survey is None:
        return
    kept = [f"{cache.name} {(cache.size_bytes or 0) / 1e9:.2f} GB" for cache in survey.caches]
    kept += [f"image {name} {size / 1e9:.2f} GB" for name, size in survey.built.items()]
    text = ", ".join(kept) or "none yet"
    yield CheckResult(
        name="caches", state=CheckState.OK, text=text, fix="`tuner clean --caches` removes them" if kept else ""
    )


def _parsers(config: "Config") -> Iterator[CheckResult]:
    """Whether tool calls and reasoning are read as this model writes them."""
    for misfit in kind_of(config.engine).misfits(config.model.id, config.model.args):
        fix = "correct model.args; `tuner quality run URL` shows what comes of it"
        yield CheckResult(name="parsers", state=CheckState.NOTE, text=misfit, fix=fix)


def _search() -> CheckResult:
    torch = all(find_spec(name) for name in ("torch", "scipy", "greenlet"))
    text = (
        "auto needs nothing more; search=gp can be had" if torch else "auto needs nothing more; search=gp needs torch"
    )
    return CheckResult(name="search", state=CheckState.OK, text=text)


def _left_overs() -> Iterator[CheckResult]:
    for left in clean.left_overs():
        yield CheckResult(name="left over", state=CheckState.NOTE, text=str(left), fix="`tuner clean` removes it")
