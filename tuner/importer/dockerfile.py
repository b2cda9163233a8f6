"""What an image that a compose file builds runs by itself, read from its Dockerfile."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"^\s*(FROM|ENTRYPOINT|CMD)\s+(.*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Built:
    """The end of a Dockerfile.

    Attributes:
        base: The image that it starts from.
        entrypoint: Its entrypoint; ``None`` if it is the base's.
        command: Its command, likewise.
    """

    base: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None


def is_dockerfile(path: Path) -> bool:
    """Whether a file is one."""
    return path.name.startswith(("Dockerfile", "Containerfile")) or path.suffix == ".Dockerfile"


def read(path: Path) -> Built:
    """The last stage of a Dockerfile; nothing where there is none."""
    if not path.is_file():
        return Built()
    base, entrypoint, command = None, None, None
    text = re.sub(r"\\\s*\n", " ", path.read_text("utf-8", "replace"))
    for line in text.splitlines():
        if not (found := _INSTRUCTION.match(line)):
            continue
        match found[1].upper():
            case "FROM":
                words = [word for word in found[2].split() if not word.startswith("--")]
                base, entrypoint, command = next(iter(words), None), None, None
            case "ENTRYPOINT":
                entrypoint, command = _words(found[2]), None
            case "CMD":
                command = _words(found[2])
    return Built(base, entrypoint, command)


def _words(text: str) -> tuple[str, ...]:
    """A list, or a line for the shell."""
    try:
        listed = json.loads(text)
    except ValueError:
        return ("/bin/sh", "-c", text.strip())
    return tuple(map(str, listed)) if isinstance(listed, list) else ("/bin/sh", "-c", text.strip())
