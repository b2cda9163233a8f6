"""What a plan makes sure of before a study in containers starts: nothing is pulled, built, started or changed."""

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import ConfigError, PortTaken
from tuner.launchers.docker.daemon import connected
from tuner.launchers.docker.images import missing
from tuner.launchers.docker.models import is_cached, is_repository
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.docker.prepare import check_mounts

if TYPE_CHECKING:
    from tuner.config import Config


def _engine(options: DockerLauncherConfig, config: "Config") -> Iterator[str]:
    with connected():
        pass
    yield from ()


def _image(options: DockerLauncherConfig, config: "Config") -> Iterator[str]:
    check_mounts(options)
    if how := missing(options):
        yield f"{options.image} is {how} before the first launch"


def _model(options: DockerLauncherConfig, config: "Config") -> Iterator[str]:
    """A model that is named by a folder is there; one that is named by its repository may have to be downloaded."""
    model, revision = options.model_here(config.model.id), config.model.args.get("revision")
    if model.startswith(("/", "./", "../", "~")):
        if model == config.model.id:
            yield f"{model} is a folder inside the image"
        elif not Path(model).exists():
            raise ConfigError(f"{model} is not there", place="model.id", fix="correct the path, or launcher.mounts")
    elif is_repository(model) and not _is_here(options, model, str(revision) if revision else None):
        yield f"{model} is downloaded before the first launch"


def _is_here(options: DockerLauncherConfig, model: str, revision: str | None) -> bool:
    return options.models is None or is_cached(options.models, model, revision)


def _gpus(options: DockerLauncherConfig, config: "Config") -> Iterator[str]:
    if config.gpus:
        yield "how many a container sees is asked in one, at the start"


def _port(options: DockerLauncherConfig, config: "Config") -> Iterator[str]:
    if options.port is not None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", options.port))
            except OSError as error:
                message = f"port {options.port} of 127.0.0.1: {error.strerror}"
                raise PortTaken(message, fix="end what listens there, or choose another launcher.port") from error
    yield from ()


CHECKS: Mapping[str, Callable[[DockerLauncherConfig, "Config"], Iterator[str]]] = {
    "engine": _engine,
    "image": _image,
    "model": _model,
    "GPUs in a container": _gpus,
    "port": _port,
}
