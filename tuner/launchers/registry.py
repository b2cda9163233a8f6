"""The kinds of launchers: a line each."""

from typing import Annotated, Any, Union, get_args

from pydantic import Field

from tuner.launchers.attach import AttachLauncherConfig
from tuner.launchers.config import LauncherConfig
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.process import ProcessLauncherConfig

LAUNCHERS: list[type[LauncherConfig]] = [
    ProcessLauncherConfig,
    DockerLauncherConfig,
    AttachLauncherConfig,
]
"""By ``kind``, which each of them names; what is added before ``tuner.config`` is imported counts."""


def union() -> Any:
    """What pydantic reads the section of a launcher as: the class whose kind it names."""
    return Annotated[Union[tuple(LAUNCHERS)], Field(discriminator="kind")]  # noqa: UP007  # made while running


def kinds() -> frozenset[str]:
    """Their names in configurations."""
    return frozenset(name for launcher in LAUNCHERS for name in get_args(launcher.model_fields["kind"].annotation))
