"""What a kind of launcher answers for itself: the one place where its configuration becomes a launcher.

A package of launchers has a subclass of ``LauncherConfig`` and a line in ``tuner.launchers.registry``. Nothing else in
tuner asks which kind it has before it.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tuner.host.check_result import CheckResult
from tuner.host.inside import Inside
from tuner.launchers.base import Launcher
from tuner.launchers.export import Export
from tuner.schema import Schema

if TYPE_CHECKING:
    from tuner.config import Config
    from tuner.space import Settings

Progress = Callable[[str], None]
"""Told in a few words how far a preparation is."""
Check = Callable[["Config"], Iterator[str]]
"""Refuses a study as its start would, by a ``TunerError``, or yields what it has to leave unchecked."""


@dataclass(frozen=True, slots=True)
class ExistingServer:
    """A server that runs already.

    Attributes:
        url: Its base URL, without a trailing slash.
        headers: What each request must carry.
    """

    url: str
    headers: Mapping[str, str]


class LauncherConfig(Schema):
    """How servers come to run, as the user says it; the answers are those of a program on this host."""

    kind: str
    """Names the kind in configurations, and in the registry."""

    starts_servers: ClassVar[bool] = True
    """Whether its servers are ours to start; one that runs already is only measured."""
    engine_here: ClassVar[bool] = False
    """Whether the engine's own program is on this host and can be asked."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Findings of ``tuner doctor``, by name, that a study cannot do without."""

    def sharing(self, folder: Path | None) -> "LauncherConfig":
        """The same, whose servers see this folder of the host under its own name; as it is without one."""
        return self

    def prepare(self, config: "Config", progress: Progress) -> AbstractContextManager[Launcher]:
        """The launcher, with all at hand that its servers need, for as long as the block lasts.

        Args:
            config: The study; its folder may keep what was prepared.
            progress: Told how far it is.

        Raises:
            ConfigError: The configuration names something that is not there.
            InfrastructureError: Something cannot be had.
        """
        raise NotImplementedError

    @property
    def on_a_port_of_its_own(self) -> "LauncherConfig":
        """The same, with servers where nobody else is expected to listen."""
        return self

    @property
    def where(self) -> str | None:
        """The image or the URL, for a person; ``None`` where the engine's command line says it all."""
        return None

    @property
    def container_image(self) -> str | None:
        """The image that servers are containers of; ``None`` if they are not."""
        return None

    @property
    def python(self) -> str:
        """The Python that stands for ``{python}`` in the engine's command line."""
        return sys.executable

    @property
    def environment(self) -> Mapping[str, str]:
        """What every server is told, in addition to its configuration; part of what a trial ran with."""
        return {}

    @property
    def models(self) -> Path | None:
        """Where this host keeps downloaded models for the servers; ``None`` where they need none."""
        return Path("~/.cache/huggingface/hub").expanduser()

    def model_here(self, model: str) -> str:
        """The model, as the servers name it, by its name on this host."""
        return model

    def cache_here(self, config: "Config") -> Mapping[str, str]:
        """The environment that says where this host keeps models."""
        own = {name: value for name, value in config.model.env.items() if value is not None}
        return {**os.environ, **own, **config.engine.launch_env}

    def inside(self, launcher: Launcher) -> Inside | None:
        """Where a launcher that this one prepared runs its servers; ``None`` where the engine cannot be asked there."""
        return None

    def running(self, secrets: Path) -> ExistingServer | None:
        """The server that runs already; ``None`` if servers are ours to start.

        Args:
            secrets: The file with its token, if the environment does not have it.

        Raises:
            EngineUnavailable: Its token is not to be had.
        """
        return None

    def checks(self) -> Mapping[str, Check]:
        """What a plan makes sure of, by the name it is reported under."""
        return {}

    def examine(self, config: "Config") -> Iterator[CheckResult]:
        """Its part of ``tuner doctor`` for a study."""
        yield from ()

    def export(self, config: "Config", settings: "Settings") -> Export | None:
        """What a deployment of these settings takes from it; ``None`` where its servers are no containers."""
        return None
