"""Declared caches: named volumes that outlive their containers, labelled, so that they can be listed and removed."""

from collections.abc import Iterable
from dataclasses import dataclass

from docker import DockerClient
from docker.errors import APIError

from tuner.errors import InfrastructureError
from tuner.launchers.docker.daemon import translated
from tuner.launchers.docker.options import volume_name

CACHE = "tuner.cache"


@dataclass(frozen=True, slots=True)
class CacheVolume:
    """A cache on this engine.

    Attributes:
        name: As it was declared.
        volume: Its Docker volume.
        size_bytes: What it holds; ``None`` where the engine does not say.
    """

    name: str
    volume: str
    size_bytes: int | None


def ensure(client: DockerClient, caches: Iterable[str]) -> None:
    """Make the volumes of these caches, where they are not there yet."""
    for name in caches:
        with translated("making a cache's volume"):
            client.volumes.create(volume_name(name), labels={CACHE: name})


def listed(client: DockerClient) -> list[CacheVolume]:
    """All caches on this engine, by name."""
    with translated():
        volumes = client.df()["Volumes"] or []
    found = [volume for volume in volumes if CACHE in (volume.get("Labels") or {})]
    return sorted((_described(volume) for volume in found), key=lambda cache: cache.name)


def _described(volume: dict[str, object]) -> CacheVolume:
    labels, usage = volume["Labels"], volume.get("UsageData")
    assert isinstance(labels, dict)
    size = usage.get("Size", -1) if isinstance(usage, dict) else -1
    return CacheVolume(str(labels[CACHE]), str(volume["Name"]), size if size >= 0 else None)


def remove(client: DockerClient, cache: CacheVolume) -> None:
    """Remove a cache and what it holds.

    Raises:
        InfrastructureError: A container uses it.
    """
    with translated("removing a cache"):
        try:
            client.volumes.get(cache.volume).remove()
        except APIError as error:
            if error.status_code != 409:
                raise
            said = f"the cache {cache.name} is in use: {error.explanation}"
            raise InfrastructureError(said, fix="remove the container that uses it first") from error
