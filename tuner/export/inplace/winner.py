"""A winner as what a deployment's file is to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from tuner.engines.base import Flag
from tuner.engines.registry import ENGINES
from tuner.errors import ConfigError
from tuner.export.profile import Profile
from tuner.importer.understood import hidden


@dataclass(frozen=True, slots=True)
class Winner:
    """What is to be deployed.

    Attributes:
        model: The model.
        flags: Its flags, in order; without host and port.
        env: Its variables.
        folders: Folders of the host that the server has to see under their own names.
    """

    model: str
    flags: Sequence[Flag]
    env: Mapping[str, str]
    folders: tuple[str, ...] = ()


def winner(engine: str, model: str, args: Mapping[str, JsonValue], env: Mapping[str, str]) -> Winner:
    """What these settings are to a deployment of an engine.

    Raises:
        ConfigError: tuner does not read deployments of this engine.
    """
    kind = ENGINES[engine]
    argv = kind.engine(("vllm", "serve"), model).command(args, {}, None).argv
    command = kind.conventions.serving(argv, None)
    if command is None:
        raise ConfigError(f"deployments of {engine} are not read, and so cannot be written")
    return Winner(model, [flag for flag in command.flags if not hidden(flag, engine)], env)


def winner_of(profile: Profile) -> Winner:
    """What a profile says."""
    served = winner(profile.engine.kind, profile.model, profile.args, profile.env)
    return replace(served, folders=(profile.kernels,) if profile.kernels else ())
