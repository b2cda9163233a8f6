"""Which kind of file somebody names, and the one deployment in it that is meant."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner import documents
from tuner.engines.registry import DEFAULT
from tuner.errors import ConfigError
from tuner.importer import compose, dockerfile, inspected, kubernetes, lines, running, service, settings_file, systemd
from tuner.importer.container import Container
from tuner.importer.understood import NO_ENGINE, Deployment, understand


class NoEngine(ConfigError):
    """There is no deployment of an engine, or several and none is named."""


@dataclass(frozen=True, slots=True)
class ContainerSource:
    """What a file holds.

    Attributes:
        containers: Everything that it starts.
        texts: The text of each file that was read, for where things stand.
        idle: Names of what it starts only if asked to.
        named: How it is called where it is no file.
    """

    containers: tuple[Container, ...]
    texts: Mapping[Path, str] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    named: str = ""

    @property
    def place(self) -> str:
        """Its first file, or how it is called."""
        return str(next(iter(self.texts), self.named))

    def where(self, container: Container) -> Callable[[str], str]:
        """Says where a word stands: a file and a line, behind the service's own name where it stands there."""

        def found(word: str) -> str:
            more = {path: documents.text_of(path) for path in container.files}
            for path, text in {**self.texts, **more}.items():
                if (line := _line_of(word, text.splitlines(), container.service)) is not None:
                    return f"{path.name}:{line}"
            return next((path.name for path in self.texts), self.named)

        return found


def _line_of(word: str, lines: Sequence[str], service: str | None) -> int | None:
    begin = next((at for at, line in enumerate(lines) if line.strip().strip("'\":") == service), 0)
    order = [*range(begin, len(lines)), *range(begin)]
    spellings = {word, word.replace("-", "_").replace("__", "--", 1)}
    return next((at + 1 for at in order if any(one in lines[at] for one in spellings)), None)


def read(paths: Sequence[Path], named: str | None = None, environ: Mapping[str, str] | None = None) -> Deployment:
    """The deployment in a file.

    Args:
        paths: The file; of compose files also several, which are merged.
        named: Which service is meant, where there are several.
        environ: The variables that it may name.

    Raises:
        NoEngine: There is none in it, or several and none is named.
        ConfigError: It cannot be read.
    """
    outside = dict(os.environ if environ is None else environ)
    if len(paths) == 1 and (container := _container_of(paths[0])):
        return chosen(ContainerSource((container,), named=str(paths[0])), named)
    files = [file_of(path) for path in paths]
    with _shaped(files[0]):
        found = chosen(source_of(files, outside), named)
    return found if found.command else _off_the_container(found)


@contextmanager
def _shaped(path: Path) -> Iterator[None]:
    """A file that is valid YAML or JSON may have a text where a list belongs, at any place: that is its own mistake.

    No schema of Compose's, Docker's or Kubernetes' is at hand, and what the reader meets first is as good a place to
    name as any.
    """
    try:
        yield
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        said = " ".join(str(error).split())
        fix = "check it with its own program (`docker compose config`, `kubectl apply --dry-run=client`)"
        raise ConfigError(f"something in it is not what belongs there: {said}", place=str(path), fix=fix) from error


def _container_of(path: Path) -> Container | None:
    """The container of the Docker engine that is named in place of a file."""
    if path.exists() or len(path.parts) != 1 or path.suffix or str(path) == "-":
        return None
    return running.container(str(path))


def _off_the_container(found: Deployment) -> Deployment:
    """A command that the file does not tell is read off the running container, if there is one."""
    name = found.container.service
    seen = running.container(name) if name else None
    read = understand(seen, found.where) if seen else None
    if seen is None or read is None or read.command is None:
        return found
    said = f"the command line is read off the running container {name}"
    return understand(replace(seen, unread=(*found.container.unread, said)), found.where) or found


def chosen(source: ContainerSource, named: str | None) -> Deployment:
    """The one deployment of a source that is meant.

    Raises:
        NoEngine: There is none in it, or several and none is named.
    """
    found = [one for container in source.containers if (one := understand(container, source.where(container)))]
    if named is not None:
        return _named(source, found, named)
    started = [one for one in found if one.container.service not in source.idle] or found
    started = [one for one in started if one.command] or started
    if len(started) == 1:
        return started[0]
    if not found:
        raise NoEngine(_nothing(source), place=source.place, fix="name the file that your server is started with")
    names, fix = ", ".join(map(_called, started)), "name one of them with --service"
    raise NoEngine(f"{len(started)} services run an engine: {names}", place=source.place, fix=fix)


def _called(deployment: Deployment) -> str:
    """Its name, or what it serves where it has none."""
    container, command = deployment.container, deployment.command
    return container.service or (command.model if command else None) or container.image or " ".join(container.command)


def _named(source: ContainerSource, found: Sequence[Deployment], named: str) -> Deployment:
    if (one := next((each for each in found if _called(each) == named), None)) is not None:
        return one
    names = [str(each.service) for each in source.containers if each.service]
    if named in names:
        raise NoEngine(f"the service {named} runs no engine that tuner can start", place=source.place)
    raise NoEngine(f"there is no service {named} (there: {', '.join(names) or 'none'})", place=source.place)


def _nothing(source: ContainerSource) -> str:
    others = dict.fromkeys(other for one in source.containers if (other := _other_engine(one)))
    if others:
        return f"{NO_ENGINE}: {' and '.join(others)} is not tuned"
    names = ", ".join(str(one.service or one.image) for one in source.containers if one.container)
    return f"{NO_ENGINE}: {names}" if names else NO_ENGINE


_OTHERS = {
    "sglang": "SGLang",
    "llama-server": "llama.cpp",
    "llama.cpp": "llama.cpp",
    "text-generation-launcher": "TGI",
    "text-generation-inference": "TGI",
    "text-embeddings-inference": "TEI",
    "ollama": "Ollama",
    "lmdeploy": "LMDeploy",
    "trtllm": "TensorRT-LLM",
    "tritonserver": "Triton",
    "infinity": "Infinity",
}


def _other_engine(container: Container) -> str | None:
    text = " ".join([container.image or "", *(container.entrypoint or ()), *container.command]).lower()
    return next((name for sign, name in _OTHERS.items() if sign in text), None)


def file_of(path: Path) -> Path:
    """A folder stands for the compose file in it."""
    if path.is_dir():
        found = next((each for name in compose.NAMES if (each := path / name).exists()), None)
        if found is None:
            raise ConfigError(f"{path} is a folder without a compose file", fix="name the file")
        return found
    return path


def source_of(paths: Sequence[Path], outside: Mapping[str, str], *, ask: bool = True) -> ContainerSource:
    """What these files hold.

    Args:
        paths: The files.
        outside: The variables that they may name.
        ask: Whether Compose is asked, where it is installed.

    Raises:
        ConfigError: One cannot be read.
    """
    texts = {path: sys.stdin.read() if str(path) == "-" else documents.text_of(path) for path in paths}
    path, text = next(iter(texts.items()))
    if dockerfile.is_dockerfile(path):
        built = dockerfile.read(path)
        made = Container(None, base=built.base, entrypoint=built.entrypoint, command=built.command or ())
        return ContainerSource((made,), texts)
    if systemd.is_unit(text):
        return ContainerSource(tuple(systemd.containers(text, path, outside)), texts)
    trees = list(trees_of(text, path))
    if trees and compose.is_compose(trees[0]):
        return _of_compose(paths, texts, outside, ask)
    if trees and inspected.is_inspected(trees[0]):
        return ContainerSource(tuple(inspected.containers(json.loads(text))), texts)
    if any(kubernetes.is_manifest(tree) for tree in trees):
        return ContainerSource(tuple(kubernetes.containers(trees)), texts)
    if trees and isinstance(trees[0], Mapping) and path.suffix in (".yml", ".yaml"):
        found = settings_file.container(path, documents.yaml_of(path), DEFAULT)
        return ContainerSource((found,) if found else (), texts)
    return ContainerSource(tuple(lines.containers(text, path.absolute().parent, outside)), texts)


def trees_of(text: str, path: Path) -> Iterator[Any]:
    """The documents of a YAML or JSON file; none of a text or a unit."""
    if systemd.is_unit(text):
        return
    if path.suffix not in (".yml", ".yaml", ".json") and not text.lstrip().startswith(
        ("{", "[", "services:", "apiVersion:")
    ):
        return
    yield from documents.texts(text, str(path))


def _of_compose(
    paths: Sequence[Path], texts: Mapping[Path, str], outside: Mapping[str, str], ask: bool
) -> ContainerSource:
    project = compose.load(paths, outside, ask=ask)
    idle = frozenset(name for name in project.services if not project.starts(name))
    return ContainerSource(tuple(service.container(project, name) for name in project.services), texts, idle)
