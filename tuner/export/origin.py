"""Where a winner comes from: image, model, machine and traffic, as its profile keeps them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tuner.config import Config
from tuner.host.hub import commit_of
from tuner.launchers.docker.image import StudyImage
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.shapes import Documented
from tuner.load.workload import Workload
from tuner.records.folder import StudyFolder, read_json
from tuner.records.outcome import Outcome
from tuner.study.provenance import Machine, runs_of


class ProfileImage(Documented):
    """The image that its containers are made of."""

    reference: str
    """As the study names it."""
    id: str
    """What it is on this machine."""
    digest: str | None = None
    """By which a registry gives the very same one; null for one that was built here."""


class ProfileMachine(Documented):
    """What it was measured on."""

    name: str
    """The hardware, as the study calls it."""
    gpus: tuple[str, ...] = ()
    """Name, memory and driver of each GPU that it may use, as the driver says them."""
    indices: tuple[int, ...] = ()
    """Which GPUs of the host these are."""
    system: str | None = None
    """Kernel and architecture."""


class ProfileService(Documented):
    """How it is deployed."""

    name: str | None = None
    port: int = 8000
    secrets: dict[str, str] = Field(default_factory=dict)
    """Variables of the service by the name of the secret that they hold; never a value."""


def image_of(folder: StudyFolder) -> ProfileImage | None:
    """The study's image; ``None`` where it did not run in containers."""
    if not folder.image.exists():
        return None
    image = read_json(folder.image, StudyImage)
    return ProfileImage(reference=image.reference, id=image.id, digest=next(iter(image.digests), None))


def machine_of(outcome: Outcome) -> ProfileMachine:
    """The machine of the study's last run."""
    runs, hardware = runs_of(outcome.folder), outcome.config.hardware
    last = runs[-1].machine if runs else None
    gpus = [gpu for index, gpu in enumerate(last.gpus if last else ()) if index in hardware.gpus]
    system = last.system if last else None
    return ProfileMachine(name=hardware.name, gpus=tuple(gpus), indices=hardware.gpus, system=system)


def service_of(config: Config) -> ProfileService:
    """How the configuration is deployed."""
    needed = {**{name: name for name in config.secrets.trial}, **config.secrets.deployment}
    return ProfileService(name=config.model.service.name, port=config.model.service.port, secrets=needed)


def revision_of(outcome: Outcome) -> str | None:
    """The model's commit, where the cache of the study's own machine tells."""
    runs = runs_of(outcome.folder)
    config = outcome.config
    given = config.model.args.get("revision")
    if not runs or runs[-1].machine != Machine.this():
        return None
    return commit_of(config.model.id, str(given) if given else None, config.launcher.cache_here(config))


_NOT_SENT: Mapping[str, Any] = {"name": True, "slo": True, "saturation": True, "classes": {"__all__": {"slo"}}}
"""What a workload says of its traffic besides the traffic."""


def digest_of(workload: Workload) -> str:
    """Twelve hex digits that name the traffic: equal for equal workloads, whatever they are called.

    Chat is left unsaid, so that traffic has the name that versions gave it which knew no other endpoint.
    """
    unsaid = dict(_NOT_SENT) | ({"endpoint": True} if workload.endpoint is Endpoint.CHAT else {})
    said = workload.model_dump(mode="json", exclude=unsaid)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
