"""What the engine is sent to build an image of: a user's own folder, or tuner itself."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from tuner.catalog import dockerfiles_dir
from tuner.errors import ConfigError

_SIMULATOR_NEEDS = "aiohttp"
_PACKAGE = Path(__file__).parents[2]


@contextmanager
def build_context(dockerfile: str) -> Iterator[tuple[Path, str]]:
    """The folder to build in, and the Dockerfile's path in it.

    Args:
        dockerfile: One of tuner's own by name, or a path.

    Raises:
        ConfigError: There is no such Dockerfile.
    """
    if dockerfile in own_dockerfiles():
        with _tuner_itself() as folder:
            yield folder, f"dockerfiles/{dockerfile}.Dockerfile"
        return
    path = Path(dockerfile).expanduser().absolute()
    if not path.is_file():
        fix = f"give the path of one, or choose one of tuner's own: {', '.join(own_dockerfiles())}"
        raise ConfigError(f"there is no Dockerfile {dockerfile}", place="launcher.build.dockerfile", fix=fix)
    yield path.parent, path.name


def own_dockerfiles() -> tuple[str, ...]:
    """The names of tuner's own Dockerfiles."""
    return tuple(sorted(path.name.removesuffix(".Dockerfile") for path in dockerfiles_dir().glob("*.Dockerfile")))


@contextmanager
def _tuner_itself() -> Iterator[Path]:
    """A folder laid out as a checkout, as far as .dockerignore lets through, whether this is one or not."""
    with tempfile.TemporaryDirectory(prefix="tuner-build-") as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(dockerfiles_dir(), folder / "dockerfiles", ignore=ignored)
        shutil.copytree(_PACKAGE, folder / "tuner", ignore=shutil.ignore_patterns("__pycache__", "conf", "dockerfiles"))
        for needed in _closure(_SIMULATOR_NEEDS):
            _copy_distribution(needed, folder / ".venv")
        yield folder


def _closure(name: str) -> set[str]:
    """A distribution and all that it requires, as far as it is installed here."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found and _installed(current):
            found.add(current)
            waiting += [_name(line) for line in metadata.requires(current) or () if "extra ==" not in line]
    return found


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _copy_distribution(name: str, prefix: Path) -> None:
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for file in metadata.files(name) or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), site / file)
