"""Small things that several sources write alike: sizes, ports, mounts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tuner.importer.container import Mount, Port

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
_SCALE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PORT = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^:]*):)?(?P<host>\d+)(?:-\d+)?:(?P<inside>\d+)(?:-\d+)?(?:/(?:tcp|udp))?", re.ASCII
)
_NAMED = re.compile(r"[A-Za-z0-9][\w.-]*")


def size(text: str) -> int | None:
    """``16gb``, ``8G``, ``2Gi``, ``1073741824`` in bytes; ``None`` for anything else."""
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * _SCALE[found[2].lower()]) if found else None


def devices(given: Iterable[str]) -> tuple[str, ...]:
    """Devices of the host by path, ``HOST:CONTAINER:rwm`` each; those that CDI names are GPUs, and left out."""
    parts = (one.split(":") for one in given if one.startswith("/"))
    return tuple(":".join([*each, *[each[0], "rwm"][len(each) - 1 :]]) for each in parts)


def port(text: str) -> Port | None:
    """``127.0.0.1:5002:8000``; ``None`` where no port of the host is named."""
    found = _PORT.fullmatch(text.strip())
    return Port(int(found["host"]), int(found["inside"])) if found else None


def mount(text: str, folder: Path, home: str, volumes: Mapping[str, str] | None = None) -> Mount | None:
    """``SOURCE:TARGET[:ro]``; ``None`` for a volume without a name.

    Args:
        text: As Docker takes it.
        folder: Relative paths start here.
        home: What ``~`` stands for.
        volumes: Names of volumes in Docker, where they have other names in the file.
    """
    parts = re.split(r":(?![\\/](?![^:]*:/))", text) if re.match(r"[A-Za-z]:[\\/]", text) else text.split(":")
    if len(parts) < 2:
        return None
    source, target, *modes = parts
    read_only = "ro" in ",".join(modes).split(",")
    if _NAMED.fullmatch(source):
        return Mount(source, target, read_only, (volumes or {}).get(source, source))
    return Mount(host_path(source, folder, home), target, read_only)


def host_path(source: str, folder: Path, home: str) -> str:
    """A path of the host, absolute."""
    if source == "~" or source.startswith("~/"):
        source = home + source[1:]
    if re.match(r"[A-Za-z]:[\\/]|/|\$", source):
        return source
    return str(Path(*_kept(folder / source)))


def _kept(path: Path) -> Iterator[str]:
    """The parts of a path without ``.`` and ``..``; links are left to whoever opens it."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    yield from parts
