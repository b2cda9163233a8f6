"""Which kinds of launchers there are. A further one is a package of its own, and a line here."""

from typing import Annotated

from pydantic import SerializeAsAny

from tuner.launchers.attach import AttachLauncherConfig
from tuner.launchers.config import LauncherConfig
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.process.launcher import ProcessLauncherConfig
from tuner.schema import of_kind

LAUNCHERS: dict[str, type[LauncherConfig]] = {
    "process": ProcessLauncherConfig,
    "docker": DockerLauncherConfig,
    "attach": AttachLauncherConfig,
}

AnyLauncher = Annotated[SerializeAsAny[LauncherConfig], of_kind(lambda: LAUNCHERS)]
"""The configuration of any kind of launcher."""
