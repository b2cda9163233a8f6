"""What this machine can run, and what is missing: looked at, never changed."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import clean, driver
from tuner.errors import InfrastructureError
from tuner.host.nvml import nvml
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.schema import Schema
from tuner.site import SiteConfig, holders

if TYPE_CHECKING:
    from tuner.config import Config
    from tuner.launchers.docker.survey import Survey

_ENOUGH_DISK_GB = 20.0


class CheckState(StrEnum):
    """How a finding is."""

    OK = "ok"
    NOTE = "note"
    """Something cannot be done here that may not be wanted."""
    MISSING = "missing"


class CheckResult(Schema):
    """One thing that was looked at."""

    name: str
    state: CheckState
    text: str
    fix: str = ""


def examine(config: "Config | None" = None) -> list[CheckResult]:
    """Look at everything.

    Args:
        config: A study that is to run here; without one, what only some studies need is a note.
    """
    wanted = config is not None and isinstance(config.launcher, DockerLauncherConfig)
    survey, engine = _engine(wanted)
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
        *_program(config),
        *_image(config, survey),
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


def _engine(wanted: bool) -> "tuple[Survey | None, list[CheckResult]]":
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
    options = config.launcher if config and isinstance(config.launcher, DockerLauncherConfig) else None
    hub = options.hub(os.environ.get("HF_HOME")) if options else Path("~/.cache/huggingface/hub").expanduser()
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


def _program(config: "Config | None") -> Iterator[CheckResult]:
    """The engine's executable, where it is started as a process."""
    if config is None or config.launcher.kind != "process" or config.engine.executable[0] == "{python}":
        return
    program = config.engine.executable[0]
    found = shutil.which(program)
    fix = "" if found else "activate the environment it is installed in, or set engine.executable"
    state = CheckState.OK if found else CheckState.MISSING
    yield CheckResult(name="engine", state=state, text=found or f"there is no {program}", fix=fix)


def _image(config: "Config | None", survey: "Survey | None") -> Iterator[CheckResult]:
    if config is None or survey is None or not isinstance(config.launcher, DockerLauncherConfig):
        return
    from tuner.launchers.docker.survey import image_is_here, vllm_version

    options = config.launcher
    if not image_is_here(options.image):
        how = "built" if options.build else "pulled" if options.pull != "never" else ""
        text = f"{options.image} is not here; it is {how} before trial 0" if how else f"{options.image} is not here"
        yield CheckResult(name="image", state=CheckState.NOTE if how else CheckState.MISSING, text=text)
        return
    version = vllm_version(options)
    text = f"{options.image} holds {f'vLLM {version}' if version else 'no vLLM that is installed as a package'}"
    yield CheckResult(name="image", state=CheckState.OK, text=text)


def _search() -> CheckResult:
    if all(find_spec(name) for name in ("torch", "scipy", "greenlet")):
        return CheckResult(name="search", state=CheckState.OK, text="gp (torch is installed)")
    fix = "pip install -e '.[gp]' (the CPU build of torch is enough)"
    return CheckResult(
        name="search", state=CheckState.NOTE, text="tpe; gp, which needs fewer trials, needs torch", fix=fix
    )


def _left_overs() -> Iterator[CheckResult]:
    for left in clean.left_overs():
        yield CheckResult(name="left over", state=CheckState.NOTE, text=str(left), fix="`tuner clean` removes it")
