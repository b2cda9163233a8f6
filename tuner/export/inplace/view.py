"""A deployment's files as they stand, or as they are to become: what they say, and where."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tuner import documents
from tuner.engines.base import Flag
from tuner.engines.registry import ENGINES
from tuner.export.inplace import nodes
from tuner.export.inplace.command import CannotEdit, Placed, placed, words_of
from tuner.export.inplace.words import Word, opened
from tuner.importer import compose, kubernetes, sources
from tuner.importer.baseline import Served, served
from tuner.importer.sources import ContainerSource
from tuner.importer.understood import Deployment, on_host


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key of a service stands.

    Attributes:
        path: The file.
        service: The service that it is of, or one that ours extends.
        node: Its value.
        elsewhere: Whether the file is none of the deployment's own, but extended.
    """

    path: Path
    service: Node
    node: Node
    elsewhere: bool = False

    def __str__(self) -> str:
        return f"{self.path.name}:{self.node.start_mark.line + 1}"


@dataclass(frozen=True)
class DeploymentView:
    """What the files say.

    Attributes:
        files: The deployment's files.
        named: Which service is meant, where there are several.
        environ: The variables of the shell.
        texts: What some of the files are to become.
    """

    files: tuple[Path, ...]
    named: str | None
    environ: Mapping[str, str]
    texts: Mapping[Path, str]

    def changed(self, path: Path, text: str) -> "DeploymentView":
        """The same with another text of a file."""
        return DeploymentView(self.files, self.named, self.environ, {**self.texts, path: text})

    def text(self, path: Path) -> str:
        """A file's text."""
        with documents.instead(self.texts):
            return documents.text_of(path)

    @cached_property
    def source(self) -> ContainerSource:
        """Everything that the files start."""
        return self.read(ask=False)

    def read(self, *, ask: bool) -> ContainerSource:
        """The same, asking Compose where it is installed."""
        with documents.instead(self.texts):
            return sources.source_of(self.files, self.environ, ask=ask)

    @cached_property
    def deployment(self) -> Deployment:
        """The one that is meant."""
        with documents.instead(self.texts):
            return sources.chosen(self.source, self.named)

    @cached_property
    def served(self) -> Served:
        """What it serves."""
        return served(self.deployment)

    @cached_property
    def project(self) -> compose.Project | None:
        """The compose files; ``None`` if they are none."""
        with documents.instead(self.texts):
            trees = list(sources.trees_of(documents.text_of(self.files[0]), self.files[0]))
            is_compose = bool(trees) and compose.is_compose(trees[0])
            return compose.load(self.files, self.environ, ask=False) if is_compose else None

    @property
    def is_settings(self) -> bool:
        """Whether the file is vLLM's own ``config.yml``."""
        tree = list(sources.trees_of(self.text(self.files[0]), self.files[0]))
        return len(tree) == 1 and isinstance(tree[0], Mapping) and not kubernetes.is_manifest(tree[0])

    @property
    def values(self) -> Mapping[str, str]:
        """The variables that Compose fills in."""
        return self.project.variables.values if self.project else {}

    @property
    def settings_file(self) -> Path | None:
        """The file that ``--config`` names, or that is the deployment itself."""
        if self.project is None:
            return self.files[0]
        command = self.deployment.command
        flags = command.flags if command else ()
        named = next((flag.values[0] for flag in flags if flag.name == "--config" and flag.values), None)
        return on_host(named, self.deployment.container.mounts) if named and self.deployment.settings.command else None

    # where keys of the service stand

    def places(self, key: str) -> Iterator[Place]:
        """Where a key of the service stands, the one that counts first."""
        name = self.deployment.container.service
        for path in reversed(self.project.files if self.project and name else ()):
            yield from self._of_service(path, str(name), key, elsewhere=False)
            for other in self._included(path):
                yield from self._of_service(other, str(name), key, elsewhere=True)

    def _included(self, path: Path) -> Iterator[Path]:
        """The files that one includes, which other deployments may include as well."""
        node = nodes.get(nodes.compose(self.text(path), str(path)), "include")
        for one in node.value if isinstance(node, SequenceNode) else []:
            named = nodes.get(one, "path") if isinstance(one, MappingNode) else one
            for file in named.value if isinstance(named, SequenceNode) else [named] if named else []:
                yield path.parent / str(file.value)

    def services(self, path: Path) -> Node | None:
        """The services of a file."""
        root = nodes.compose(self.text(path), str(path))
        return nodes.get(root, "services") or root

    def _of_service(self, path: Path, name: str, key: str, *, elsewhere: bool) -> Iterator[Place]:
        service = nodes.get(self.services(path), name)
        if service is None:
            return
        if (node := nodes.get(service, key)) is not None:
            yield Place(path, service, node, elsewhere)
        extends = nodes.get(service, "extends")
        if extends is not None:
            base = extends if isinstance(extends, ScalarNode) else nodes.get(extends, "service")
            file = nodes.get(extends, "file") if isinstance(extends, MappingNode) else None
            other = path.parent / str(file.value) if file is not None else path
            if base is not None:
                yield from self._of_service(other, str(base.value), key, elsewhere=elsewhere or file is not None)

    def own_service(self) -> tuple[Path, Node]:
        """Where the service's own words stand: the last of its files.

        Raises:
            CannotEdit: It is none of a compose file.
        """
        name = str(self.deployment.container.service)
        for path in reversed(self.project.files if self.project else ()):
            if (service := nodes.own(self.services(path), name)) is not None:
                return path, service
        raise CannotEdit

    # its command

    @cached_property
    def words(self) -> list[Word]:
        """Entrypoint and command, scripts in them taken apart."""
        found: list[Word] = []
        for key in ("entrypoint", "command"):
            if (place := next(self.places(key), None)) is not None:
                found += words_of(place.path, self.text(place.path), place.node, self.values)
        return opened(found)

    @cached_property
    def placed(self) -> list[Placed]:
        """The flags that are found in it."""
        return placed(self.words, self.flags)

    @property
    def elsewhere(self) -> str:
        """Where its command stands instead, if that is no text of a compose file."""
        container = self.deployment.container
        words = (*(container.entrypoint or ()), *container.command)
        files = filter(None, (on_host(word, container.mounts) for word in words if word.startswith("/")))
        script = next((file for file in files if file.is_file()), None)
        return f"its command stands in {script}" if script else "its command stands in the image"

    @property
    def flags(self) -> Sequence[Flag]:
        """Its flags as the importer reads them."""
        return self.deployment.command.flags if self.deployment.command else ()

    def meaning(self, flags: Sequence[Flag]) -> dict[str, JsonValue]:
        """What flags say."""
        return ENGINES[self.deployment.engine].conventions.settings(flags)

    @property
    def dotenv(self) -> Path:
        """The file of the variables that Compose fills in."""
        return Path(os.path.abspath(self.files[0])).parent / ".env"
