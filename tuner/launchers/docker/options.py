"""How a trial's container is made, as the user says it."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from tuner.host.check_result import CheckResult
from tuner.host.inside import Inside
from tuner.launchers.base import Launcher
from tuner.launchers.config import Check, LauncherConfig, Progress
from tuner.launchers.docker.carried import CarriedOptions
from tuner.launchers.export import Export
from tuner.schema import Schema, without_nulls

if TYPE_CHECKING:
    from tuner.config import Config
    from tuner.space import Settings

_MOUNT = re.compile(r"^(?P<source>[^:]+):(?P<target>/[^:]*)(?::(?P<mode>ro|rw))?$")
_VOLUME = re.compile(r"^(?P<source>[A-Za-z0-9][\w.-]*):(?P<target>/[^:]*)(?::(?P<mode>ro|rw))?$")
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


class VolumeMount(Schema):
    """A volume of Docker's inside the container."""

    name: str
    target: str
    read_only: bool


class DockerLauncherConfig(CarriedOptions, LauncherConfig):
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
    volumes: tuple[str, ...] = ()
    """Docker's volumes that are there already, ``NAME:CONTAINER`` or ``NAME:CONTAINER:ro``."""
    caches: dict[Annotated[str, Field(pattern=_CACHE_NAME)], Annotated[str, Field(pattern="^/")]] = Field(
        default_factory=dict
    )
    """Folders of the container that outlive it, by name: the compile cache. `tuner clean --caches` removes them."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of every container, the deployment's too: they say where these caches lie, wherever its home is."""
    ipc: Literal["host", "private"] = "host"
    """vLLM's workers speak through shared memory: the host's, or ``shm_gib`` of their own."""
    shm_gib: PositiveFloat = 8
    port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """The port on 127.0.0.1 that it is published on; null takes a free one."""
    network: str | None = None
    """The Docker network that it is in, so that whoever else is in it can reach it; null makes one for each launch."""
    new_privileges: bool = False
    """Whether a program in it may gain privileges that its user does not have (setuid)."""
    drop_capabilities: bool = False
    """Takes root's capabilities away; an image whose program changes its user or the owner of files needs some."""
    wrapped: bool = False
    """Whether the image's own entrypoint runs in front of the engine's command line."""

    needs: ClassVar[frozenset[str]] = frozenset({"Docker"})

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

    @field_validator("volumes")
    @classmethod
    def _volumes_parse(cls, volumes: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [volume for volume in volumes if not _VOLUME.match(volume)]:
            raise ValueError(
                f"{wrong[0]!r} is not NAME:CONTAINER or NAME:CONTAINER:ro, with CONTAINER an absolute path"
            )
        return volumes

    @field_validator("network")
    @classmethod
    def _can_be_published(cls, network: str | None) -> str | None:
        if network is not None and network.partition(":")[0] in ("host", "none", "container"):
            raise ValueError("a trial's port is published, so that it needs a bridge network; null makes one")
        return network

    @model_validator(mode="after")
    def _one_each(self) -> "DockerLauncherConfig":
        given = [bind.target for bind in self.binds] + [volume.target for volume in self.named_volumes]
        targets = [one.rstrip("/") for one in (*given, *self.caches.values())]
        if twice := {target for target in targets if targets.count(target) > 1}:
            raise ValueError(f"mounts, volumes and caches name {min(twice)} twice; null removes one that is inherited")
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
    def named_volumes(self) -> tuple[VolumeMount, ...]:
        """``volumes``, taken apart."""
        found = [_VOLUME.match(volume) for volume in self.volumes]
        return tuple(VolumeMount(name=v["source"], target=v["target"], read_only=v["mode"] == "ro") for v in found if v)

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

    def sharing(self, folder: Path | None) -> "DockerLauncherConfig":
        """See ``LauncherConfig.sharing``: read-only, unless it is mounted there already."""
        if folder is None or any(folder.is_relative_to(bind.target) for bind in self.binds):
            return self
        return self.model_copy(update={"mounts": (*self.mounts, f"{folder}:{folder}:ro")})

    def prepare(self, config: "Config", progress: Progress) -> AbstractContextManager[Launcher]:
        """See ``LauncherConfig.prepare``: image, caches and model are there, and a container sees its GPUs."""
        from tuner.launchers.docker.prepare import prepared

        return prepared(self, config, progress)

    @property
    def on_a_port_of_its_own(self) -> "DockerLauncherConfig":
        """On a free one."""
        return self.model_copy(update={"port": None})

    @property
    def where(self) -> str:
        """The image."""
        return self.image

    @property
    def container_image(self) -> str:
        """The image."""
        return self.image

    @property
    def python(self) -> str:
        """The image's own."""
        return "python3"

    @property
    def models(self) -> Path | None:
        """The host's folder of models, which containers share; ``None`` where they need none."""
        if self.hf_home is None:
            return None
        given = os.environ.get("HF_HOME") if self.hf_home == "auto" else self.hf_home
        return Path(given or "~/.cache/huggingface").expanduser().absolute() / "hub"

    def model_here(self, model: str) -> str:
        """A folder inside a container is one of this host's that is mounted there."""
        inside = Path(model)
        for bind in self.binds:
            if inside.is_relative_to(bind.target):
                return str(bind.source / inside.relative_to(bind.target))
        return model

    def cache_here(self, config: "Config") -> Mapping[str, str]:
        """A container's own variables speak of folders inside it, and say nothing of this host's."""
        return {**os.environ, "HF_HUB_CACHE": str(self.models)} if self.models else os.environ

    def inside(self, launcher: Launcher) -> Inside | None:
        """In a container of the study's image."""
        from tuner.launchers.docker.prepare import inside

        return inside(launcher)

    def checks(self) -> Mapping[str, Check]:
        """See ``LauncherConfig.checks``."""
        from tuner.launchers.docker.checks import CHECKS

        return {name: partial(check, self) for name, check in CHECKS.items()}

    def examine(self, config: "Config") -> Iterator[CheckResult]:
        """The image."""
        from tuner.launchers.docker.survey import image

        yield image(self)

    def export(self, config: "Config", settings: "Settings") -> Export | None:
        """As containers of the image that the trials ran in; ``None`` before there was one."""
        from tuner.launchers.docker.deployment import exported
        from tuner.launchers.docker.prepare import image_of

        image = image_of(config)
        return None if image is None else exported(self, image, config.hardware.gpus, settings)


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
