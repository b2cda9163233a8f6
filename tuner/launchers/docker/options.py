"""How a trial's container is made, as the user says it."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from tuner.schema import Schema, without_nulls

_MOUNT = re.compile(r"^(?P<source>[^:]+):(?P<target>/[^:]*)(?::(?P<mode>ro|rw))?$")
_CACHE_NAME = r"^[a-z0-9][a-z0-9_.-]*$"

CONTAINER_PORT = 8000
"""Where the server listens inside the container, as vLLM's image does by default."""

HUB_FOLDER = "/cache/huggingface/hub"
"""Where the server looks for models. Only this is mounted: the folder above it on the host holds the user's token."""


class Build(Schema):
    """How the image is made, where it is not pulled."""

    dockerfile: str
    """One of tuner's own by name (``sim``, ``glm-flash``), or the path of a Dockerfile; its folder is the context."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments."""


class BindMount(Schema):
    """A file or folder of this host inside the container."""

    source: Path
    target: str
    read_only: bool


class DockerLauncherConfig(Schema):
    """The server is a container of the Docker engine on this host."""

    kind: Literal["docker"]
    image: str
    """The image's name; a moving tag stands for one image for the whole study: the one it named at the start."""
    build: Build | None = None
    """Builds the image under that name; null takes it as it is, or pulls it."""
    pull: Literal["missing", "always", "never"] = "missing"
    """When the image is pulled, at the start of a study."""
    hf_home: str | None = "auto"
    """The host's Hugging Face cache, so that nothing is downloaded twice; ``auto``: ``$HF_HOME``, or its usual place.
    Null where the server needs no model files, or finds them in ``mounts``."""
    mounts: tuple[str, ...] = ()
    """``HOST:CONTAINER`` or ``HOST:CONTAINER:ro``."""
    caches: dict[Annotated[str, Field(pattern=_CACHE_NAME)], Annotated[str, Field(pattern="^/")]] = Field(
        default_factory=dict
    )
    """Folders of the container that outlive it, by name: the compile cache. `tuner clean --caches` removes them."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of every container, the deployment's too: they say where these caches lie, wherever its home is."""
    ipc: Literal["host", "private"] = "host"
    """vLLM's workers speak through shared memory: the host's, or ``shm_gib`` of their own."""
    shm_gib: Annotated[float, Field(ge=8)] = 8
    memory_gib: PositiveFloat | None = None
    """The most host memory that a container may use."""
    port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """The port on 127.0.0.1 that it is published on; null takes a free one."""
    network: str | None = None
    """The Docker network that it is in, so that whoever else is in it can reach it; null makes one for each launch."""
    pids: PositiveInt | None = 16384
    """The most processes and threads that a container may have."""
    new_privileges: bool = False
    """Whether a program in it may gain privileges that its user does not have (setuid)."""
    drop_capabilities: bool = False
    """Takes root's capabilities away; an image whose program changes its user or the owner of files needs some."""
    security_opt: tuple[str, ...] = ()
    """Security options of the deployment, as in a compose file; what they say of new privileges counts more than
    ``new_privileges``."""
    user: str | None = None
    """The user that the program runs as, ``UID:GID``; null takes the image's."""
    devices: tuple[str, ...] = ()
    """Devices of the host, ``HOST:CONTAINER:rwm``, besides the GPUs."""

    @field_validator("caches", "env", mode="before")
    @classmethod
    def _null_removes(cls, raw: Any) -> Any:
        return without_nulls(raw)

    @field_validator("mounts")
    @classmethod
    def _mounts_parse(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [mount for mount in mounts if not _MOUNT.match(mount)]:
            raise ValueError(
                f"{wrong[0]!r} is not HOST:CONTAINER or HOST:CONTAINER:ro, with CONTAINER an absolute path"
            )
        return mounts

    @field_validator("network")
    @classmethod
    def _can_be_published(cls, network: str | None) -> str | None:
        if network is not None and network.partition(":")[0] in ("host", "none", "container"):
            raise ValueError("a trial's port is published, so that it needs a bridge network; null makes one")
        return network

    @model_validator(mode="after")
    def _one_each(self) -> "DockerLauncherConfig":
        targets = [one.target.rstrip("/") for one in self.binds] + [one.rstrip("/") for one in self.caches.values()]
        if twice := {target for target in targets if targets.count(target) > 1}:
            raise ValueError(f"mounts and caches name {min(twice)} twice; null removes one that is inherited")
        return self

    @property
    def binds(self) -> tuple[BindMount, ...]:
        """``mounts``, taken apart."""
        found = [_MOUNT.match(mount) for mount in self.mounts]
        return tuple(
            BindMount(source=Path(m["source"]).expanduser().absolute(), target=m["target"], read_only=m["mode"] == "ro")
            for m in found
            if m
        )

    @property
    def security(self) -> list[str]:
        """The engine's security options: the deployment's, and no new privileges unless they say otherwise."""
        silent = not any(option.startswith("no-new-privileges") for option in self.security_opt)
        ours = [] if self.new_privileges or not silent else ["no-new-privileges:true"]
        return [*self.security_opt, *ours]

    @property
    def environment(self) -> dict[str, str]:
        """``env``, and where the models lie."""
        return {**({} if self.hf_home is None else {"HF_HUB_CACHE": HUB_FOLDER}), **self.env}

    def hub(self, environ_hf_home: str | None) -> Path | None:
        """The host's folder of models, or ``None`` where the server needs none.

        Args:
            environ_hf_home: ``$HF_HOME``.
        """
        if self.hf_home is None:
            return None
        given = environ_hf_home if self.hf_home == "auto" else self.hf_home
        return Path(given or "~/.cache/huggingface").expanduser().absolute() / "hub"


def volume_name(cache: str) -> str:
    """The Docker volume that keeps a cache."""
    return f"tuner-cache-{cache}"


def gpu_env(gpus: tuple[int, ...], wsl: bool) -> dict[str, str]:
    """By which CUDA sees these GPUs and no others.

    A container is given its GPUs, which are then numbered from 0. WSL2's driver gives it all of the host's, under the
    host's numbers.
    """
    if not gpus:
        return {}
    visible = sorted(gpus) if wsl else range(len(gpus))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, visible))}
