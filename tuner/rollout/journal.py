"""What was there before a rollout, and how far one has come: on disk before each step, so that the next command knows.

Each service has a folder of its own in tuner's state folder. ``NNNN`` in it is a backup: the files as they were before
rollout N, readable by their owner alone. ``under-way.json`` names the rollout that is not over.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from shutil import rmtree
from typing import Literal, Self, TypeVar

from pydantic import ValidationError

from tuner.errors import ConfigError, InfrastructureError
from tuner.host.files import write_whole
from tuner.host.leases import state_dir
from tuner.host.owner import Owner
from tuner.reading import bytes_of
from tuner.rollout.project import ComposeProject
from tuner.schema import Schema, Stored

_LOOK_EVERY_S = 0.2
_COMPOSE_S = 900.0
"""How long a ``docker compose up`` that a killed tuner has left behind may take to end."""


class Step(StrEnum):
    """What a rollout is about to do."""

    SAVED = "saved"
    """Nothing is changed yet."""
    WRITING = "writing"
    """The files are being replaced."""
    DEPLOYING = "deploying"
    """The old container is stopped, the new one started."""
    MEASURING = "measuring"
    """The new service runs, and is not yet shown to be what was proven."""
    KEEPING = "keeping"
    """It is, and stays."""
    RESTORING = "restoring"
    """The old files and the old service are being put back."""


class SavedFile(Schema):
    """A file as it was before a rollout."""

    path: Path
    copy_name: str
    """Its copy in the backup's folder."""
    becomes: str
    """SHA-256 of what the rollout writes there."""


class Ran(Schema):
    """The container that ran before a rollout."""

    id: str
    name: str
    image: str
    image_id: str
    answered: bool
    """Whether its model answered; what did not is not waited for when it is put back."""


class Backup(Stored):
    """What was there before rollout N."""

    schema_version: Literal[1] = 1
    number: int
    saved_at: str
    """Wall clock, ISO 8601 with its zone."""
    project: ComposeProject
    ran: Ran
    before: str
    """What it was saved before: ``trial 12 of study qwen``."""
    files: tuple[SavedFile, ...]
    mounted: bool = False
    """Whether the container sees one of the files that change, which Compose does not look into."""


class Journal(Stored):
    """A rollout that is not over."""

    schema_version: Literal[1] = 1
    owner: str
    step: Step
    backup: Backup

    @property
    def abandoned(self) -> bool:
        """Whether whoever began it is gone."""
        owner = Owner.parse(self.owner)
        return owner is None or not owner.lives

    def at(self, step: Step) -> Self:
        """The same, about to do another step."""
        return self.model_copy(update={"step": step})


class RolloutFolder:
    """The folder of one service.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, project: ComposeProject) -> "RolloutFolder":
        """That of a project's service."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{project.name}-{project.service}")
        where = hashlib.sha256(str(project.directory).encode()).hexdigest()[:8]
        return cls(_root() / f"{name}-{where}")

    @property
    def under_way(self) -> Path:
        """The journal's file."""
        return self.path / "under-way.json"

    @property
    def measured(self) -> Path:
        """Where measurements of the deployed service are kept."""
        return self.path / "measured"

    def folder(self, number: int) -> Path:
        """A backup's folder."""
        return self.path / f"{number:04d}"

    def make(self) -> None:
        """Have the folder, for its owner alone."""
        for path in (_root(), self.path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write(self, journal: Journal) -> None:
        """On the disk when this returns, whole or not at all."""
        write_whole(self.under_way, journal.model_dump_json(indent=1))

    def journal(self) -> Journal | None:
        """The rollout that is not over; ``None`` if there is none."""
        return _read(self.under_way, Journal)

    def close(self) -> None:
        """The rollout is over; its backup stays."""
        self.under_way.unlink(missing_ok=True)

    def forget(self, number: int) -> None:
        """Remove a backup of which nothing is left to say."""
        rmtree(self.folder(number), ignore_errors=True)

    def backups(self) -> list[Backup]:
        """All backups, the oldest first; without that of a rollout that is not over."""
        running = self.journal()
        found = (_read(path, Backup) for path in sorted(self.path.glob("[0-9]*/backup.json")))
        return [one for one in found if one and (running is None or one.number != running.backup.number)]

    def next_number(self) -> int:
        """The number of the next rollout."""
        return 1 + max((int(path.name) for path in self.path.glob("[0-9][0-9][0-9][0-9]*")), default=0)

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Only one command at a time rolls this service out; yields the lock, which Compose inherits.

        Raises:
            InfrastructureError: Another command is at it.
        """
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(Owner.me()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        """What a killed tuner has left of Compose is waited for; a tuner that lives is not."""
        deadline = time.monotonic() + _COMPOSE_S
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = Owner.parse(os.pread(descriptor, 300, 0).decode("utf-8", "replace"))
            if (holder and holder.lives) or time.monotonic() > deadline:
                said = holder.spoken if holder else "another command"
                raise InfrastructureError(f"{said} is at this service", fix="wait for its end")
            time.sleep(_LOOK_EVERY_S)


def places() -> list[RolloutFolder]:
    """Every service that was ever rolled out."""
    return [RolloutFolder(path) for path in sorted(_root().glob("*")) if path.is_dir()]


def places_of(file: Path, service: str | None) -> list[RolloutFolder]:
    """Those that a compose file describes."""
    return [place for place in places() if (project := _project(place)) and _is_of(project, file, service)]


def _project(place: RolloutFolder) -> ComposeProject | None:
    journal = place.journal()
    return journal.backup.project if journal else next((one.project for one in reversed(place.backups())), None)


def _is_of(project: ComposeProject, file: Path, service: str | None) -> bool:
    return file.resolve() in [one.resolve() for one in project.files] and service in (None, project.service)


_Kept = TypeVar("_Kept", Journal, Backup)


def _root() -> Path:
    return state_dir() / "rollouts"


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    try:
        return kind.model_validate_json(bytes_of(path))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        fix = f"the saved files are in {path.parent}; put them back yourself, then move that folder away"
        raise ConfigError(f"{path} cannot be read: {error}", fix=fix) from error
