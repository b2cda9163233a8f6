"""What a container of a trial is made of, as parts of a Compose service."""

from collections.abc import Mapping
from typing import Any

from tuner.launchers.docker.image import StudyImage
from tuner.launchers.docker.options import (
    CONTAINER_PORT,
    HUB_FOLDER,
    DockerLauncherConfig,
    gpu_env,
    volume_name,
)
from tuner.launchers.export import Export, plain
from tuner.space import Settings


def exported(options: DockerLauncherConfig, image: StudyImage, gpus: tuple[int, ...], settings: Settings) -> Export:
    """The part of a Compose service that makes its containers like those of the trials.

    Args:
        options: How the trials' containers are made.
        image: Which image they are made of.
        gpus: The GPUs of the host that the service gets.
        settings: The flags and variables of the configuration.
    """
    own = {name: value for name, value in settings.env.items() if value is not None}
    return Export(
        image=image.digests[0] if image.digests else image.reference,
        origin=f"{image.reference}, {image.id}",
        port=CONTAINER_PORT,
        environment={**options.environment, **image.env, **own, **gpu_env(gpus, image.wsl)},
        service={"volumes": _volumes(options), **_shared_memory(options), **options.compose_options, **_gpus(gpus)},
        volumes={
            **{one.name: {"name": one.name, "external": True} for one in options.named_volumes},
            **{cache: {"name": volume_name(cache)} for cache in options.caches},
        },
        wrapped=options.wrapped,
    )


def _shared_memory(options: DockerLauncherConfig) -> Mapping[str, Any]:
    return {"ipc": "host"} if options.ipc == "host" else {"shm_size": f"{options.shm_gib:g}gb"}


def _volumes(options: DockerLauncherConfig) -> list[Mapping[str, Any]]:
    binds = [_bind(plain(str(one.source)), one.target, one.read_only) for one in options.binds]
    caches = [{"type": "volume", "source": name, "target": target} for name, target in options.caches.items()]
    volumes = [_volume(one.name, one.target, one.read_only) for one in options.named_volumes]
    return [*binds, *volumes, *_models(options), *caches]


def _models(options: DockerLauncherConfig) -> list[Mapping[str, Any]]:
    if options.hf_home is None:
        return []
    home = "${HF_HOME:-~/.cache/huggingface}" if options.hf_home == "auto" else plain(options.hf_home)
    return [_bind(f"{home}/hub", HUB_FOLDER, False)]


def _volume(name: str, target: str, read_only: bool) -> Mapping[str, Any]:
    return {"type": "volume", "source": name, "target": target, **({"read_only": True} if read_only else {})}


def _bind(source: str, target: str, read_only: bool) -> Mapping[str, Any]:
    return {"type": "bind", "source": source, "target": target, **({"read_only": True} if read_only else {})}


def _gpus(gpus: tuple[int, ...]) -> Mapping[str, Any]:
    if not gpus:
        return {}
    ids = [str(gpu) for gpu in sorted(gpus)]
    device = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}
