"""Which flags an engine's own program takes: asked of it once, and remembered.

A help text may cost half a minute, so that what it says is kept in tuner's state folder under the executable's path,
size and time of change, or under the image's digest.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from tuner.engines.foresight import KnownFlags
from tuner.host.files import write_whole
from tuner.host.inside import Inside
from tuner.reading import bytes_of
from tuner.schema import Schema

_FEWEST = 50
"""A help text with fewer flags was cut off, or is none."""
_TIMEOUT_S = 300

Choices = Mapping[str, tuple[str, ...]]


class _Remembered(Schema):
    """An answer on disk."""

    asked: str
    """What was asked, for a person."""
    flags: list[str]
    choices: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def _no_choices(text: str) -> Choices:
    return {}


@dataclass(frozen=True, slots=True)
class Help:
    """How an engine's program is asked for its flags.

    Attributes:
        flag: Makes it print them.
        flags: The long flags in what it prints.
        choices: The values to which it says a flag is limited.
    """

    flag: str
    flags: Callable[[str], frozenset[str]]
    choices: Callable[[str], Choices] = _no_choices

    def of_executable(self, executable: Sequence[str], folder: Path) -> KnownFlags | None:
        """The flags of an executable on this host; ``None`` where it cannot be asked.

        A module of some Python (``python -m vllm...``) is not remembered by its Python's file, and not asked.

        Args:
            executable: Up to where the command line of one configuration begins, ``("vllm", "serve")``.
            folder: Where answers are remembered.
        """
        program = shutil.which(executable[0])
        if program is None or "-m" in executable:
            return None
        path = Path(program).resolve()
        stat = path.stat()
        identity = f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{' '.join(executable[1:])}"
        command = (program, *executable[1:], self.flag)
        return self.remembered(identity, lambda: _ask(command), folder, f"{' '.join(executable)} {self.flag}")

    def inside(self, image: Inside, executable: Sequence[str], folder: Path) -> KnownFlags | None:
        """The flags of the engine inside an image, asked once for each image."""
        argv = (*executable, self.flag)
        return self.remembered(
            image.identity, lambda: image.ask(argv), folder, f"{' '.join(argv)} in {image.identity[:19]}"
        )

    def remembered(self, identity: str, ask: Callable[[], str | None], folder: Path, source: str) -> KnownFlags | None:
        """The flags that an answer names: asked now, or before of the same program.

        Args:
            identity: What changes with the program: an image's digest.
            ask: Runs the program; returns its help text, or ``None`` if it could not be run.
            folder: Where answers are remembered.
            source: Who is asked, for a person.
        """
        path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
        known = _read(path)
        if known is None:
            text = ask() or ""
            known = _Remembered(asked=source, flags=sorted(self.flags(text)), choices=dict(self.choices(text)))
        if len(known.flags) < _FEWEST:
            return None
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, known.model_dump_json(indent=1))
        return KnownFlags(frozenset(known.flags), known.choices, source)


def _ask(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _read(path: Path) -> _Remembered | None:
    try:
        return _Remembered.model_validate_json(bytes_of(path))
    except (OSError, ValidationError):
        return None
