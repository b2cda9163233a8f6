"""Which flags an image's own vLLM takes: asked of it once, and remembered; else from the table that ships with tuner.

``vllm serve --help=all`` costs half a minute of imports, so that its answer is kept in tuner's state folder under the
executable's path, size and time of change, or under the image's digest. An executable that is a module of some Python
(``python -m vllm...``) is not remembered by its Python's file, and not asked.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from tuner.engines.foresight import KnownFlags
from tuner.engines.vllm.flags import known_choices, known_flags, parse_help
from tuner.engines.vllm.memory.demand import release
from tuner.host.files import write_whole
from tuner.host.inside import Inside
from tuner.schema import Schema

FLAG = "--help=all"
_FEWEST = 50
"""A help text with fewer flags was cut off, or is none."""
_TIMEOUT_S = 300


class _Remembered(Schema):
    """An answer on disk."""

    asked: str
    """What was asked, for a person."""
    flags: list[str]


def of_version(version: str) -> KnownFlags:
    """The flags of a version, from the table that ships with tuner; ``0.15`` means its newest patch."""
    numbers = ".".join(map(str, release(version) or ())) or version
    return KnownFlags(known_flags(numbers), known_choices(numbers), f"tuner's table of vLLM {version}'s flags")


def of_executable(executable: Sequence[str], folder: Path) -> KnownFlags | None:
    """The flags of an executable on this host; ``None`` where it cannot be asked.

    Args:
        executable: Up to where the model would stand, ``("vllm", "serve")``.
        folder: Where answers are remembered.
    """
    program = shutil.which(executable[0])
    if program is None or "-m" in executable:
        return None
    path = Path(program).resolve()
    stat = path.stat()
    identity = f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{' '.join(executable[1:])}"
    return remembered(identity, lambda: _ask((program, *executable[1:])), folder, f"{' '.join(executable)} {FLAG}")


def inside(image: Inside, executable: Sequence[str], folder: Path) -> KnownFlags | None:
    """The flags of the vLLM inside an image, asked once for each image."""
    argv = (*executable, FLAG)
    return remembered(image.identity, lambda: image.ask(argv), folder, f"{' '.join(argv)} in {image.identity[:19]}")


def remembered(identity: str, ask: Callable[[], str | None], folder: Path, source: str) -> KnownFlags | None:
    """The flags that an answer names: asked now, or before of the same program.

    Args:
        identity: What changes with the program: an image's digest.
        ask: Runs the program; returns its help text, or ``None`` if it could not be run.
        folder: Where answers are remembered.
        source: Who is asked, for a person.
    """
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
    flags = _read(path) or parse_help(ask() or "")
    if len(flags) < _FEWEST:
        return None
    if not path.exists():
        _write(path, _Remembered(asked=source, flags=sorted(flags)))
    return KnownFlags(frozenset(flags), {}, source)


def _ask(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run([*command, FLAG], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _read(path: Path) -> frozenset[str]:
    try:
        return frozenset(_Remembered.model_validate_json(path.read_text("utf-8")).flags)
    except (OSError, ValidationError):
        return frozenset()


def _write(path: Path, answer: _Remembered) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, answer.model_dump_json(indent=1))
