"""Writes files of which a crash, a full disk or a cut power line leave the old one or the new one, never a part."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner alone, and on the disk when this returns.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    replace_whole(path, text.encode("utf-8"), path.with_name(f".{path.name}.tmp"))


def replace_whole(path: Path, content: bytes, draft: Path, finish: Callable[[Path], None] | None = None) -> None:
    """The same for any content.

    Args:
        path: The file; no link, which would be replaced itself.
        content: What it is to hold.
        draft: Where that is written first, in the same folder; a kill may leave it there.
        finish: What is done to the draft before it takes the file's place; its owner alone can read it until then.

    Raises:
        OSError: As above.
    """
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if finish:
            finish(draft)
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
