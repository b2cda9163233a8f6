"""Replaces a user's files: a backup of each next to it first, whole or not at all, with its mode and owner."""

import difflib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from tuner.errors import ConfigError
from tuner.host.files import replace_whole
from tuner.secrets import is_secret, redact, redacted


def diff(old: Mapping[Path, str], new: Mapping[Path, str], secrets: Iterable[str] = ()) -> str:
    """A unified diff; the values of secrets that stand next to what changes are masked."""
    folder = Path.cwd()
    text = "".join(_diff(_named(path, folder), old[path], new[path]) for path in new)
    set_ = (found for each in old.values() for found in _SET.finditer(each) if is_secret(found["name"]))
    return redacted(redact(text, [*secrets, *(found["value"] for found in set_)]))


_SET = re.compile(r"""(?P<name>[A-Za-z_]\w*)["']?[ \t]*[=:][ \t]*["']?(?P<value>[^\s"'#$]{4,})""")
"""``NAME=value`` or ``NAME: value``."""


def _named(path: Path, folder: Path) -> str:
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _diff(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"{name}", f"{name} (winner)"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def save(old: Mapping[Path, str], new: Mapping[Path, str]) -> dict[Path, Path]:
    """Write the files; returns the backup of each.

    Raises:
        ConfigError: One has been changed in the meantime.
        OSError: One cannot be written; then all are as they were.
    """
    check_unchanged(old, new)
    real = {path: Path(os.path.realpath(path)) for path in new}
    kept = {path: backup(path, target) for path, target in real.items()}
    done: list[Path] = []
    try:
        for path, target in real.items():
            replace(target, encoded(target, new[path]))
            done.append(path)
    except OSError:
        for path in done:
            shutil.copy2(kept[path], real[path])
        raise
    return kept


def check_unchanged(old: Mapping[Path, str], paths: Iterable[Path]) -> None:
    """Make sure that files still say what they did.

    Raises:
        ConfigError: One has been changed in the meantime.
    """
    for path in paths:
        if path.read_text("utf-8") != old[path]:
            raise ConfigError("it was changed in the meantime", place=str(path), fix="run the same command again")


def backup(path: Path, target: Path) -> Path:
    """A copy next to the file, never in the place of an earlier one."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names = [f"{path.name}.bak", f"{path.name}.{stamp}.bak", *(f"{path.name}.{stamp}-{n}.bak" for n in range(1, 100))]
    for name in names:
        copy = path.with_name(name)
        with suppress(FileExistsError):
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            shutil.copy2(target, copy)
            return copy
    raise ConfigError("there are a hundred backups of this second", place=str(path))


def encoded(target: Path, text: str) -> bytes:
    """A text with the line ends of the file that it is for."""
    content = text.encode("utf-8")
    return content.replace(b"\n", b"\r\n") if b"\r\n" in target.read_bytes() else content


def draft_of(target: Path) -> Path:
    """Where new content is written first; a kill may leave it there."""
    return target.with_name(f".{target.name}.tuner.tmp")


def replace(target: Path, content: bytes) -> None:
    """Put new content in the place of a file, whole or not at all; its mode and owner stay.

    Args:
        target: The file; no link, which would be replaced itself.
        content: What it is to hold.
    """

    def as_before(draft: Path) -> None:
        shutil.copystat(target, draft)
        os.utime(draft)
        state = target.stat()
        with suppress(PermissionError):
            os.chown(draft, state.st_uid, state.st_gid)

    replace_whole(target, content, draft_of(target), as_before)
