"""The containers that tuner makes and their networks: known by their labels, and ended by whoever comes first.

``python -m tuner.launchers.docker.containers LAUNCH`` ends one launch; it is the task of a launch's watchdog.
"""

import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from tuner.errors import EngineUnavailable
from tuner.host.owner import Owner
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker import networks
from tuner.launchers.docker.daemon import connected, translated
from tuner.launchers.docker.options import CONTAINER_PORT, HUB_FOLDER, DockerLauncherConfig, gpu_env, volume_name

LAUNCH = "tuner.launch"
STUDY = "tuner.study"
TRIAL = "tuner.trial"
OWNER = "tuner.owner"
CREATED = "tuner.created"

_GIB = 1 << 30
_FOLDER = "/run/tuner"
"""Where a container sees the folder that a launch shares with it."""
_IN_FLIGHT_S = 1.0
"""How long a request that a killed tuner had sent may take to become a container."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a container is made of, besides what a launch asks for.

    Attributes:
        image: The image's id.
        options: The user's choices.
        hub: The host's folder of models, or ``None``.
        env: Variables that every container of the study gets, secrets among them; never shown.
        wsl: Whether the engine runs on WSL2.
    """

    image: str
    options: DockerLauncherConfig
    hub: str | None
    env: Mapping[str, str]
    wsl: bool


def labels(launch_id: str, name: str) -> dict[str, str]:
    """By which a container is known.

    Args:
        launch_id: Names the launch.
        name: ``study/trials/0003``.
    """
    study, _, trial = name.partition("/")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {LAUNCH: launch_id, STUDY: study, TRIAL: trial, OWNER: str(Owner.me()), CREATED: created}


def create(client: DockerClient, contents: Contents, spec: LaunchSpec, launch_id: str) -> Container:
    """The container of a launch, not yet started.

    What hardens it (no new privileges, limits, its own network) the user's deployment may override: see
    ``DockerLauncherConfig``.

    Raises:
        InfrastructureError: The engine refuses.
    """
    argv = [part.replace("{host}", "0.0.0.0").replace("{port}", str(CONTAINER_PORT)) for part in spec.argv]
    options = contents.options
    known_by = labels(launch_id, spec.name)
    network = options.network or networks.create(client, launch_id, known_by)
    with translated("creating the container"):
        return client.containers.create(
            contents.image,
            entrypoint=None if options.wrapped else argv[:1],
            command=argv if options.wrapped else argv[1:],
            name=f"tuner-{launch_id}",
            labels=known_by,
            environment=_environment(client, contents, spec),
            mounts=[*mounts(options, contents.hub), *_folder(spec)],
            ports={f"{CONTAINER_PORT}/tcp": ("127.0.0.1", options.port or 0)},
            ipc_mode=options.ipc,
            shm_size=None if options.ipc == "host" else int(options.shm_gib * _GIB),
            device_requests=gpu_requests(spec.gpus),
            network=network,
            security_opt=options.security,
            cap_drop=[*(["ALL"] if options.drop_capabilities else []), *options.cap_drop],
            ulimits=[Ulimit(name=name, soft=soft, hard=hard) for name, (soft, hard) in options.ulimits.items()],
            **options.engine_options,
            init=True,
            # the engine's default may write where nothing can be read back from
            log_config=LogConfig(type=LogConfig.types.JSON),
        )


def _environment(client: DockerClient, contents: Contents, spec: LaunchSpec) -> dict[str, str]:
    options = contents.options
    env = {**options.environment, **contents.env, **spec.env, **gpu_env(spec.gpus, contents.wsl)}
    if spec.folder is None:
        return env
    built = (entry.split("=", 1) for entry in client.images.get(contents.image).attrs["Config"].get("Env") or ())
    return spec.seeing({**{name: value for name, value in built if name == "PYTHONPATH"}, **env}, _FOLDER)


def _folder(spec: LaunchSpec) -> list[Mount]:
    return [Mount(_FOLDER, str(spec.folder.resolve()), type="bind", read_only=True)] if spec.folder else []


def gpu_requests(gpus: tuple[int, ...]) -> list[DeviceRequest] | None:
    """What the engine is asked for."""
    if not gpus:
        return None
    return [DeviceRequest(driver="nvidia", device_ids=[str(gpu) for gpu in sorted(gpus)], capabilities=[["gpu"]])]


def mounts(options: DockerLauncherConfig, hub: str | None) -> list[Mount]:
    """The user's mounts, the models, and the caches."""
    binds = [Mount(m.target, str(m.source), type="bind", read_only=m.read_only) for m in options.binds]
    models = [Mount(HUB_FOLDER, hub, type="bind")] if hub else []
    caches = [Mount(target, volume_name(name), type="volume") for name, target in options.caches.items()]
    volumes = [Mount(v.target, v.name, type="volume", read_only=v.read_only) for v in options.named_volumes]
    return [*binds, *volumes, *models, *caches]


def published_port(container: Container) -> int | None:
    """The port on the loopback interface, which is another at each start; ``None`` while it is not running."""
    with translated():
        container.reload()
    found = (container.attrs["NetworkSettings"]["Ports"] or {}).get(f"{CONTAINER_PORT}/tcp")
    return int(found[0]["HostPort"]) if found else None


def host_pids(container: Container) -> tuple[int, ...] | None:
    """The process of this host whose descendants are the container's; ``None`` where its ids are not this host's.

    It is the container's shim, the parent of its first process: what is executed in the container later on descends
    from it as well. An engine in a virtual machine has process ids of its own: no shim of that container is found.
    """
    try:
        stat = Path(f"/proc/{container.attrs['State']['Pid']}/stat").read_text()
        shim = int(stat.rpartition(")")[2].split()[1])
        command = Path(f"/proc/{shim}/cmdline").read_bytes()
    except (OSError, IndexError):
        return None
    return (shim,) if str(container.id).encode() in command else None


def stop(container: Container, grace_s: float) -> None:
    """SIGTERM, a grace period, SIGKILL; nothing happens if it has ended."""
    with translated("stopping the container"), suppress(NotFound):
        container.stop(timeout=math.ceil(grace_s))


def end(client: DockerClient, launch_id: str) -> None:
    """Remove every container of a launch, at once, and its network.

    Raises:
        InfrastructureError: One of them resists.
    """
    _end_labelled(client, f"{LAUNCH}={launch_id}")


def end_of(client: DockerClient, owner: str) -> None:
    """Remove every container of an owner, at once, and their networks.

    Raises:
        InfrastructureError: One of them resists.
    """
    _end_labelled(client, f"{OWNER}={owner}")


def _end_labelled(client: DockerClient, label: str) -> None:
    with translated():
        found = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    for container in found:
        remove(container)
    networks.remove(client, label)


def remove(container: Container) -> None:
    """Remove a container with its anonymous volumes, running or not."""
    with translated("removing the container"):
        for _ in range(50):
            try:
                return container.remove(force=True, v=True)
            except NotFound:
                return None
            except APIError as error:
                if error.status_code != 409:  # somebody else is removing it
                    raise
                time.sleep(0.1)
        return container.remove(force=True, v=True)


@dataclass(frozen=True, slots=True)
class StrayContainer:
    """A container, or a network without one, of a launch whose owner is gone, or may be.

    Attributes:
        launch_id: Its launch.
        name: Its name in Docker.
        study: The study that it belongs to.
        state: Docker's word: ``running``, ``exited``; ``network`` for a network.
        owner: Who made it; ``None`` if its label does not say.
    """

    launch_id: str
    name: str
    study: str
    state: str
    owner: Owner | None

    @property
    def orphaned(self) -> bool:
        """Whether nobody looks after it any more."""
        return self.owner is None or not self.owner.lives


def ours(client: DockerClient) -> list[StrayContainer]:
    """All containers that a tuner on this host has made, and the networks of launches that have none."""
    with translated():
        found = client.containers.list(all=True, filters={"label": LAUNCH}, ignore_removed=True)
        containers = [_described(one.labels, str(one.name), one.status) for one in found]
        made = [_described(labels, name, "network") for name, labels in networks.listed(client, LAUNCH)]
    contained = {one.launch_id for one in containers}
    return [*containers, *(one for one in made if one.launch_id not in contained)]


def _described(held: Mapping[str, str], name: str, state: str) -> StrayContainer:
    return StrayContainer(held[LAUNCH], name, held.get(STUDY, ""), state, Owner.parse(held.get(OWNER, "")))


def main(launch_id: str, patience_s: float = 90.0) -> None:
    """End a launch whose tuner is gone, waiting for an engine that is just starting again."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with connected() as client:
                end(client, launch_id)
                time.sleep(_IN_FLIGHT_S)
                return end(client, launch_id)
        except EngineUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])
