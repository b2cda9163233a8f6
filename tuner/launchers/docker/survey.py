"""What a Docker engine says of itself, for `tuner doctor`."""

from dataclasses import dataclass
from importlib.metadata import version

from tuner.host.check_result import CheckResult, CheckState
from tuner.launchers.docker import images, services, volumes
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.daemon import connected, engine_url, has_nvidia, is_wsl, translated
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.docker.services import Service
from tuner.launchers.docker.volumes import CacheVolume

_VLLM_VERSION = "from importlib.metadata import version; print(version('vllm'))"


@dataclass(frozen=True, slots=True)
class Survey:
    """An engine as it is now.

    Attributes:
        url: Where it listens.
        version: Its own.
        sdk: That of the Python SDK.
        system: What it runs on.
        root: Where it keeps images and volumes; inside its virtual machine, if it has one.
        nvidia: Whether it can give GPUs to containers.
        wsl: Whether it runs on WSL2.
        services: Containers that run and are not tuner's own.
        caches: Declared caches.
        built: Images that tuner has built, and their sizes in bytes.
    """

    url: str
    version: str
    sdk: str
    system: str
    root: str
    nvidia: bool
    wsl: bool
    services: tuple[Service, ...]
    caches: tuple[CacheVolume, ...]
    built: dict[str, int]


def survey() -> Survey:
    """Ask the engine.

    Raises:
        EngineUnavailable: It does not answer.
    """
    with connected() as client:
        with translated():
            info = client.info()
        return Survey(
            url=engine_url(),
            version=str(info.get("ServerVersion", "unknown")),
            sdk=version("docker"),
            system=str(info.get("OperatingSystem", "unknown")),
            root=str(info.get("DockerRootDir", "")),
            nvidia=has_nvidia(client),
            wsl=is_wsl(client),
            services=tuple(services.running(client)),
            caches=tuple(volumes.listed(client)),
            built=images.built(client),
        )


def image(options: DockerLauncherConfig) -> CheckResult:
    """The study's image: whether it is here, and which vLLM it holds."""
    if not image_is_here(options.image):
        how = "built" if options.build else "pulled" if options.pull != "never" else ""
        text = f"{options.image} is not here; it is {how} before trial 0" if how else f"{options.image} is not here"
        return CheckResult(name="image", state=CheckState.NOTE if how else CheckState.MISSING, text=text)
    version = vllm_version(options)
    text = f"{options.image} holds {f'vLLM {version}' if version else 'no vLLM that is installed as a package'}"
    return CheckResult(name="image", state=CheckState.OK, text=text)


def image_is_here(reference: str) -> bool:
    """Whether an image needs neither pulling nor building."""
    with connected() as client:
        return images.find(client, reference) is not None


def vllm_version(options: DockerLauncherConfig) -> str | None:
    """The version of the vLLM in a study's image, with its mounts; ``None`` where it has none."""
    bare = options.model_copy(update={"hf_home": None, "caches": {}, "port": None})
    launcher = DockerLauncher(Contents(options.image, bare, None, {}, wsl=False))
    ended = launcher.run("version", ("python3", "-c", _VLLM_VERSION))
    return ended.lines[-1].strip() if ended.exit_code == 0 and ended.lines else None
