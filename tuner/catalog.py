"""Where configuration is stored and what there is to choose from; light, since ``--help`` shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Group:
    """A Hydra group and what can be chosen in it."""

    name: str
    choices: tuple[str, ...]


def conf_dir() -> Path:
    """Tuner's own configuration: in the wheel inside the package, in a checkout next to it."""
    return _shipped("conf")


def dockerfiles_dir() -> Path:
    """Tuner's own Dockerfiles, and what they copy."""
    return _shipped("dockerfiles")


def _shipped(name: str) -> Path:
    packaged = Path(str(resources.files("tuner"))) / name
    return packaged if packaged.is_dir() else packaged.parent.parent / name


def groups(config_dir: Path | None = None) -> tuple[Group, ...]:
    """The groups and their choices, the user's own folder included."""
    folders = [conf_dir(), *([config_dir] if config_dir else [])]
    names = sorted({entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()})
    return tuple(Group(name, _choices(name, folders)) for name in names if _choices(name, folders))


def _choices(group: str, folders: Sequence[Path]) -> tuple[str, ...]:
    return tuple(sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")}))
