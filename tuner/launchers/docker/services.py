"""Services that run in containers of somebody else: who holds which GPU, and stopping and starting them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from docker import DockerClient
from docker.errors import ImageNotFound, NotFound
from docker.models.containers import Container

from tuner.launchers.docker.containers import LAUNCH
from tuner.launchers.docker.daemon import translated

_COMPOSE_SERVICE = "com.docker.compose.service"
_CDI = "nvidia.com/gpu="
_NO_GPU = ("all", "none", "void", "")


@dataclass(frozen=True, slots=True)
class Service:
    """A container that runs.

    Attributes:
        id: In Docker.
        name: Its container's name.
        service: Its name in its compose file, if it has one.
        gpus: The GPUs that it was given by name, as indices or UUIDs.
        all_gpus: Whether it was given all of them, as monitoring is, too.
        ports: The host's ports that it is published on.
        restart: Its restart policy: ``no``, ``always``, ``unless-stopped``, ``on-failure``.
        retries: How often ``on-failure`` tries.
        vanishes: Whether stopping it removes it (``docker run --rm``).
        health: Docker's word: ``healthy``, ``starting``, ``unhealthy``; ``None`` without a health check.
    """

    id: str
    name: str
    service: str | None
    gpus: tuple[str, ...]
    all_gpus: bool
    ports: tuple[int, ...]
    restart: str
    retries: int
    vanishes: bool
    health: str | None

    @property
    def known_as(self) -> str:
        """How people call it."""
        return self.service or self.name


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a container runs, or ran: as it was created.

    Attributes:
        name: Its container's name.
        service: Its name in its compose file, if it has one.
        image: The image, as it was named.
        argv: Its whole command, entrypoint included; it may hold a secret.
        env: Its variables, those of its image included; secrets are among them.
        inherited: The variables that have the image's own value.
    """

    name: str
    service: str | None
    image: str
    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    inherited: frozenset[str] = frozenset()

    @property
    def known_as(self) -> str:
        """How people call it."""
        return self.service or self.name


def deployed(client: DockerClient, wanted: Collection[str]) -> list[Deployed]:
    """What the containers of these names, or of compose services of these names, run; stopped ones included."""
    with translated():
        found = client.containers.list(all=True, ignore_removed=True)
        matching = [one for one in found if {one.name, one.labels.get(_COMPOSE_SERVICE)} & set(wanted)]
        return [described(one.attrs, _image_env(client, one.attrs["Image"])) for one in matching]


def described(attrs: Mapping[str, Any], image_env: Collection[str]) -> Deployed:
    """What a container runs.

    Args:
        attrs: What ``docker inspect`` says of it.
        image_env: The variables of its image, as ``NAME=VALUE``.
    """
    config = attrs["Config"]
    env = config.get("Env") or []
    return Deployed(
        name=attrs["Name"].removeprefix("/"),
        service=(config.get("Labels") or {}).get(_COMPOSE_SERVICE),
        image=config["Image"],
        argv=(attrs["Path"], *attrs["Args"]),
        env=dict(one.partition("=")[::2] for one in env),
        inherited=frozenset(one.partition("=")[0] for one in env if one in image_env),
    )


def inspected(client: DockerClient, name: str) -> tuple[Mapping[str, Any], list[str]] | None:
    """What ``docker inspect`` says of a container by its name or compose service, and its image's variables.

    A running one counts more than one that has ended; ``None`` if there is none.
    """
    with translated():
        found = client.containers.list(all=True, ignore_removed=True)
        matching = [one for one in found if name in (one.name, one.short_id, one.id, one.labels.get(_COMPOSE_SERVICE))]
        matching.sort(key=lambda one: one.status != "running")
        return next(((one.attrs, _image_env(client, one.attrs["Image"])) for one in matching), None)


def _image_env(client: DockerClient, image: str) -> list[str]:
    """The variables that an image sets; none where it was removed under a container that is still there."""
    try:
        return client.images.get(image).attrs["Config"].get("Env") or []
    except ImageNotFound:
        return []


def running(client: DockerClient) -> list[Service]:
    """All containers that run and are not tuner's own, by name."""
    with translated():
        found = client.containers.list(ignore_removed=True)
    return sorted((_service(one) for one in found if LAUNCH not in one.labels), key=lambda service: service.name)


def names(client: DockerClient) -> set[str]:
    """All containers and compose services, running or not."""
    with translated():
        found = client.containers.list(all=True, ignore_removed=True)
    return {str(one.name) for one in found} | {
        one.labels[_COMPOSE_SERVICE] for one in found if _COMPOSE_SERVICE in one.labels
    }


def find(client: DockerClient, container_id: str, name: str) -> Service | None:
    """A container by its id, or the one that has taken its name since; ``None`` if there is neither, or it is down."""
    container = _get(client, container_id) or _get(client, name)
    return _service(container) if container and container.attrs["State"]["Running"] else None


def stop(client: DockerClient, service: Service, grace_s: int) -> None:
    """Stop a container so that nothing brings it back before a reboot, and a reboot does.

    Docker starts a container that was stopped by hand again only with policy ``always``, and only when the engine
    itself starts.
    """
    with translated(f"stopping {service.name}"):
        container = client.containers.get(service.id)
        if service.restart != "always":
            container.update(restart_policy={"Name": "always"})
        container.stop(timeout=grace_s)


def start(client: DockerClient, container_id: str, name: str, restart: str, retries: int) -> bool:
    """Start a container that was stopped, under its own policy again; ``False`` if there is none any more.

    Args:
        client: The engine.
        container_id: The container.
        name: Its name, in case it was made anew.
        restart: Its own restart policy.
        retries: How often ``on-failure`` tries.
    """
    container = _get(client, container_id) or _get(client, name)
    if container is None:
        return False
    with translated(f"starting {name}"):
        container.start()
        if container.id == container_id:
            policy: Any = {"Name": restart, "MaximumRetryCount": retries}  # the stubs know two of the four names
            container.update(restart_policy=policy)
    return True


def _get(client: DockerClient, id_or_name: str) -> Container | None:
    with translated():
        try:
            return client.containers.get(id_or_name)
        except NotFound:
            return None


def _service(container: Container) -> Service:
    attrs = container.attrs
    host: Mapping[str, Any] = attrs["HostConfig"]
    gpus, everything = gpus_of(host, attrs["Config"].get("Env") or [])
    policy = host.get("RestartPolicy") or {}
    return Service(
        id=str(container.id),
        name=str(container.name),
        service=container.labels.get(_COMPOSE_SERVICE),
        gpus=gpus,
        all_gpus=everything,
        ports=tuple(sorted(_ports(attrs))),
        restart=policy.get("Name") or "no",
        retries=policy.get("MaximumRetryCount") or 0,
        vanishes=bool(host.get("AutoRemove")),
        health=(attrs["State"].get("Health") or {}).get("Status"),
    )


def _ports(attrs: Mapping[str, Any]) -> set[int]:
    bindings = (attrs["NetworkSettings"].get("Ports") or {}).values()
    return {int(one["HostPort"]) for binding in bindings for one in binding or []}


def gpus_of(host: Mapping[str, Any], env: list[str]) -> tuple[tuple[str, ...], bool]:
    """The GPUs given by name, and whether all were given: by device request, by CDI, or by the older NVIDIA runtime.

    Args:
        host: The container's ``HostConfig``.
        env: Its variables, as ``NAME=VALUE``, those of its image included.
    """
    named: list[str] = []
    everything = False
    for request in host.get("DeviceRequests") or []:
        ids = request.get("DeviceIDs") or []
        if request.get("Driver") == "cdi":
            named += [one.removeprefix(_CDI) for one in ids if one.startswith(_CDI)]
        elif any("gpu" in kinds for kinds in request.get("Capabilities") or []):
            named += ids
            everything = everything or not ids
    if host.get("Runtime") == "nvidia":  # often every container's, which gives nothing to those that do not ask
        asked = next((one.partition("=")[2] for one in env if one.startswith("NVIDIA_VISIBLE_DEVICES=")), "none")
        named += asked.split(",")
    return tuple(one for one in named if one not in _NO_GPU), everything or "all" in named
