"""What ``tuner profile write`` makes of a deployment's files and a profile."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from tuner.errors import ConfigError
from tuner.export.compose import NOT_SHOWN
from tuner.export.inplace.splice import leaves
from tuner.export.inplace.view import DeploymentView
from tuner.export.inplace.winner import winner, winner_of
from tuner.export.inplace.writing import Written, written
from tuner.export.power import power_changes
from tuner.export.profile import Profile
from tuner.importer import sources
from tuner.importer.gpus import numbered


def changes_of(files: Sequence[Path], service: str | None, profile: Profile, *, limit_not_shown: bool) -> Written:
    """The files with a profile's winner in them; nothing is written.

    Raises:
        ConfigError: It is not to be deployed, or cannot be written in place.
    """
    check_deploys(profile, limit_not_shown=limit_not_shown)
    view = viewed(files, service, profile)
    made = written(view, winner_of(profile))
    return replace(made, said=(*made.said, *_noted(view, profile)))


def viewed(files: Sequence[Path], service: str | None, profile: Profile) -> DeploymentView:
    """The files; of several services the one that the profile is of, unless one is named."""
    view = DeploymentView(tuple(map(sources.file_of, files)), service, dict(os.environ), {})
    try:
        view.deployment  # noqa: B018
    except sources.NoEngine:
        names = [one.service for one in view.source.containers]
        if service is not None or profile.service.name not in names:
            raise
        return DeploymentView(view.files, profile.service.name, view.environ, {})
    return view


def _noted(view: DeploymentView, profile: Profile) -> Iterator[str]:
    """What of the files is not as it was in the study."""
    if profile.deployed and (others := _drifted(view, profile)):
        yield f"not what the study changed, and now as it ran there: {', '.join(others)}"
    image, named = view.deployment.container.image, profile.image
    if image and named and image not in (named.reference, named.digest):
        yield f"the winner was measured with {named.reference}, and the file names {image}"
    if profile.kernels and not Path(profile.kernels).is_dir():
        yield f"its tuned kernels are in {profile.kernels}, which is no folder of this machine"
    yield from power_changes(view.served.env, profile.env, gpus_of(profile, view.deployment.understood.gpus))


def gpus_of(profile: Profile, given: JsonValue) -> tuple[int, ...]:
    """The indices of a deployment's GPUs on this host: its own, where it names them, else those of the study."""
    return numbered(given) or (profile.machine.indices if profile.machine else ())


def _drifted(view: DeploymentView, profile: Profile) -> list[str]:
    """Settings that stood otherwise in the files than in the deployment that the study began with."""
    assert profile.deployed is not None
    now, new = view.served, winner_of(profile)
    began = winner(profile.engine.kind, profile.model, profile.deployed.args, profile.deployed.env)
    flags = _different(leaves(now.args), leaves(view.meaning(began.flags)), leaves(view.meaning(new.flags)))
    variables = _different(now.env, began.env, new.env)
    heads = dict.fromkeys(f"--{path[0].replace('_', '-')}" for path in flags)
    return [*heads, *variables]


_Name = TypeVar("_Name")


def _different(
    now: Mapping[_Name, JsonValue], began: Mapping[_Name, JsonValue], new: Mapping[_Name, JsonValue]
) -> list[_Name]:
    names = dict.fromkeys((*now, *began, *new))
    return [name for name in names if now.get(name) not in (began.get(name), new.get(name))]


def check_deploys(profile: Profile, *, limit_not_shown: bool) -> None:
    """Refuse a winner of which something is not shown, unless it is asked for.

    Raises:
        ConfigError: It is such a winner.
    """
    if not profile.verdict.deploy and not limit_not_shown:
        fix = f"read the verdict; `--{NOT_SHOWN}` writes it all the same"
        raise ConfigError(f"the profile is not to be deployed without looking: {profile.verdict.sentence}", fix=fix)
