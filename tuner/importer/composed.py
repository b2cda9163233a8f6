"""``docker compose … up`` in a script or a unit: the services of the files that it names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuner.importer import compose, notation, service
from tuner.importer.container import Container


def containers(words: Sequence[str], outside: Mapping[str, str], folder: Path) -> list[Container] | None:
    """The containers that such a command starts; ``None`` if it is no such command, or its file is not there.

    Args:
        words: The command.
        outside: The variables of its shell.
        folder: Relative paths start here.
    """
    rest = _behind_compose(words)
    if rest is None or "up" not in rest:
        return None
    options, wanted = rest[: rest.index("up")], [word for word in rest[rest.index("up") + 1 :] if word[:1] != "-"]
    home = outside.get("HOME", str(Path.home()))
    files = [Path(notation.host_path(path, folder, home)) for path in _values(options, "-f", "--file")]
    files = files or [each for name in compose.NAMES if (each := folder / name).is_file()][:1]
    if not files or not all(file.is_file() for file in files):
        return None
    project = compose.load(files, {**outside, "COMPOSE_PROFILES": ",".join(_values(options, "--profile"))})
    started = [name for name in project.services if name in wanted or (not wanted and project.starts(name))]
    return [service.container(project, name) for name in started]


def _behind_compose(words: Sequence[str]) -> list[str] | None:
    for at, word in enumerate(words[:4]):
        program = os.path.basename(word)
        if program in ("docker-compose", "podman-compose"):
            return list(words[at + 1 :])
        if program in ("docker", "podman") and words[at + 1 : at + 2] in (["compose"], ("compose",)):
            return list(words[at + 2 :])
    return None


def _values(options: Sequence[str], *names: str) -> list[str]:
    found = [word.partition("=")[2] for word in options if word.partition("=")[0] in names and "=" in word]
    return [*(options[at + 1] for at, word in enumerate(options[:-1]) if word in names), *found]
