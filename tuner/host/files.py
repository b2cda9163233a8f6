"""Writes files of which a crash, a full disk or a cut power line leave the old one or the new one, never a part."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner alone, and on the disk when this returns.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        with suppress(OSError):  # some network file systems do not sync folders
            _sync(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """The new name of a file lasts only once its folder is on the disk as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
