"""All that a study in containers needs before trial 0: the image, the caches, the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuner.engines.causes import Cause
from tuner.errors import ConfigError, EngineUnavailable
from tuner.host.inside import Inside
from tuner.launchers.base import Launcher
from tuner.launchers.config import Progress
from tuner.launchers.docker import images, models, volumes
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.daemon import connected, is_wsl
from tuner.launchers.docker.image import StudyImage
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.records.folder import StudyFolder, read_json
from tuner.secrets import Secrets

if TYPE_CHECKING:
    from tuner.config import Config

_COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


class GpuCountWrong(EngineUnavailable):
    """A container sees other GPUs than it was given."""


@contextmanager
def prepared(options: DockerLauncherConfig, config: "Config", progress: Progress) -> Iterator[DockerLauncher]:
    """See ``LauncherConfig.prepare``; the study's folder keeps which image it runs in."""
    secrets, folder = config.secrets.known(), StudyFolder(config.study.path)
    image = image_for(options, config.model.id, image_of(config), progress)
    folder.write(folder.image, image.model_dump_json(indent=1) + "\n")
    launcher = launcher_for(options, image, secrets.named(config.secrets.trial), secrets)
    env = {**config.model.env, **secrets.named(config.secrets.download)}
    revision = config.model.args.get("revision")
    ensure_model(launcher, config.model.id, str(revision) if revision else None, env, progress)
    check_gpus(launcher, config.gpus)  # counting them takes none of their memory
    yield launcher


def image_of(config: "Config") -> StudyImage | None:
    """The image of the study's earlier trials."""
    path = StudyFolder(config.study.path).image
    return read_json(path, StudyImage) if path.exists() else None


def inside(launcher: Launcher) -> Inside | None:
    """A container of a launcher's image."""
    if not isinstance(launcher, DockerLauncher):
        return None

    def ask(argv: tuple[str, ...]) -> str:
        return "\n".join(launcher.run("ask", argv).lines)

    return Inside(launcher.contents.image, ask)


def image_for(options: DockerLauncherConfig, model: str, known: StudyImage | None, progress: Progress) -> StudyImage:
    """The study's image, present on the engine, and its caches' volumes.

    Args:
        options: The user's choices.
        model: The model, as the engine's command line names it.
        known: The image of the study's earlier trials.
        progress: Told how far it is.

    Raises:
        ConfigError: A mount's source is not there.
        InfrastructureError: The engine or the image cannot be had.
    """
    check_mounts(options)
    with connected() as client:
        image = images.resolve(client, options, known, progress)
        volumes.ensure(client, options.caches)
        offline = dict(models.OFFLINE) if options.models and models.is_repository(model) else {}
        return known or image.model_copy(update={"wsl": is_wsl(client), "env": offline})


def launcher_for(
    options: DockerLauncherConfig, image: StudyImage, reach: dict[str, str], known: Secrets
) -> DockerLauncher:
    """Launches containers of that image.

    Args:
        options: The user's choices.
        image: The study's.
        reach: Secrets that its containers need, by variable.
        known: All that are known here, to be cut out of what the containers say.
    """
    hub = options.models
    if hub:
        hub.mkdir(parents=True, exist_ok=True)  # the engine mounts only what is there
    contents = Contents(image.id, options, str(hub) if hub else None, {**image.env, **reach}, image.wsl)
    return DockerLauncher(contents, known.hidden)


def ensure_model(
    launcher: DockerLauncher, model: str, revision: str | None, env: dict[str, str], progress: Progress
) -> None:
    """The model's files are in the host's cache when this returns; those that are mounted are left to the user.

    Args:
        launcher: Whose containers will need them.
        model: The model, as the engine's command line names it.
        revision: A branch, tag or commit; ``main`` if none.
        env: What the download needs: a token.
        progress: Told how far it is.

    Raises:
        ModelMissing: They cannot be downloaded.
    """
    hub = launcher.contents.options.models
    if hub is None or not models.is_repository(model):
        return
    if not models.is_cached(hub, model, revision):
        models.download(launcher, model, revision, env, progress)


def check_gpus(launcher: DockerLauncher, gpus: tuple[int, ...]) -> None:
    """A container sees as many GPUs as it was given: WSL2's driver gives it all, and only CUDA_VISIBLE_DEVICES helps.

    Asked of torch in a container of the image; an image without torch cannot be asked.

    Raises:
        GpuCountWrong: It sees another number.
        InfrastructureError: The engine cannot give it any.
    """
    if not gpus:
        return
    ended = launcher.run("gpus", ("python3", "-c", _COUNT_GPUS), gpus=gpus)
    seen = next((line for line in reversed(ended.lines) if line.isdigit()), None)
    if seen is not None and int(seen) != len(gpus):
        wanted = ", ".join(map(str, gpus))
        raise GpuCountWrong(
            f"a container that was given {len(gpus)} GPUs ({wanted}) sees {seen}",
            cause=Cause.DRIVER.value,
            fix="check `nvidia-smi -L`, hardware.gpus, and that the image does not set CUDA_VISIBLE_DEVICES",
        )


def check_mounts(options: DockerLauncherConfig) -> None:
    """Make sure that what is to be mounted is there.

    Raises:
        ConfigError: It is not.
    """
    for mount in options.binds:
        if not mount.source.exists():
            fix = "correct the path; the engine would make an empty folder of it"
            raise ConfigError(f"{mount.source} is not there", place="launcher.mounts", fix=fix)
