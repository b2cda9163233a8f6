"""Folders that something is going to be written to, tried before anything depends on them."""

import tempfile
from pathlib import Path

from tuner.errors import InfrastructureError


def check_writable(folder: Path, *, place: str, fix: str) -> None:
    """Make sure that files can be made in a folder, or in what it would be made in; nothing is left there.

    Args:
        folder: It need not be there yet.
        place: What names it: a key, or a variable.
        fix: What to do if they cannot.

    Raises:
        InfrastructureError: They cannot: it is read-only, full, somebody else's, or no folder.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        raise InfrastructureError(f"{place}: {folder} cannot be written to: {error.strerror}", fix=fix) from error
