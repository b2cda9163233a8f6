"""Exact copies of a deployment's files, made before a rollout, and put back after one that failed."""

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tuner.errors import InfrastructureError
from tuner.export.inplace import saving
from tuner.host.files import write_whole
from tuner.rollout.journal import Backup, Ran, RolloutFolder, SavedFile
from tuner.rollout.project import ComposeProject
from tuner.rollout.say import Say


def save(
    place: RolloutFolder,
    project: ComposeProject,
    ran: Ran,
    contents: Mapping[Path, bytes],
    before: str,
    *,
    mounted: bool = False,
) -> Backup:
    """Keep what is there: the compose files, whatever else is to change, and what runs.

    Other files are not copied: an ``.env`` that stays as it is needs no second place for the keys in it.

    Args:
        place: The service's folder.
        project: Where the service comes from.
        ran: What runs.
        contents: What is to be written.
        before: What it is saved before, for a person.
        mounted: Whether the container sees one of the files that change.

    Raises:
        InfrastructureError: A copy does not say what its file does.
    """
    number = place.next_number()
    folder = place.folder(number)
    folder.mkdir(mode=0o700)
    paths = dict.fromkeys(Path(os.path.realpath(path)) for path in (*project.files, *contents))
    real = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    files = tuple(_copied(path, folder, at, real.get(path)) for at, path in enumerate(paths))
    backup = Backup(
        number=number,
        saved_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        project=project,
        ran=ran,
        before=before,
        files=files,
        mounted=mounted,
    )
    write_whole(folder / "backup.json", backup.model_dump_json(indent=1))
    return backup


def _copied(path: Path, folder: Path, at: int, becomes: bytes | None) -> SavedFile:
    content = path.read_bytes()
    copy = folder / f"{at}-{path.name.lstrip('.')}"
    with open(copy, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if copy.read_bytes() != content:
        raise InfrastructureError(f"{copy} is no copy of {path}", fix="look at that disk")
    return SavedFile(path=path, copy_name=copy.name, becomes=_digest(content if becomes is None else becomes))


def contents(place: RolloutFolder, backup: Backup) -> dict[Path, bytes]:
    """What each file said."""
    return {one.path: (place.folder(backup.number) / one.copy_name).read_bytes() for one in backup.files}


def put_back(place: RolloutFolder, backup: Backup, say: Say) -> None:
    """Have the files say what they said; what somebody else has written there meanwhile is kept next to them."""
    for one in backup.files:
        saving.draft_of(one.path).unlink(missing_ok=True)
        old = (place.folder(backup.number) / one.copy_name).read_bytes()
        now = one.path.read_bytes() if one.path.exists() else None
        if now == old:
            continue
        if now is not None and _digest(now) != one.becomes:
            say(f"{one.path} was changed in the meantime; what it said is in {saving.backup(one.path, one.path)}")
        saving.replace(one.path, old)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
