"""What ``tuner profile write`` makes of a deployment's files and a profile."""

import os
from collections.abc import Sequence
from pathlib import Path

from tuner.errors import ConfigError
from tuner.export.compose import NOT_SHOWN
from tuner.export.inplace.view import View
from tuner.export.inplace.winner import winner_of
from tuner.export.inplace.writing import Written, written
from tuner.export.profile import Profile
from tuner.importer import sources


def changes_of(files: Sequence[Path], service: str | None, profile: Profile, *, limit_not_shown: bool) -> Written:
    """The files with a profile's winner in them; nothing is written.

    Raises:
        ConfigError: It is not to be deployed, or cannot be written in place.
    """
    check_deploys(profile, limit_not_shown=limit_not_shown)
    view = View(tuple(map(sources.file_of, files)), service, dict(os.environ), {})
    return written(view, winner_of(profile))


def check_deploys(profile: Profile, *, limit_not_shown: bool) -> None:
    """Refuse a winner of which something is not shown, unless it is asked for.

    Raises:
        ConfigError: It is such a winner.
    """
    if not profile.verdict.deploy and not limit_not_shown:
        fix = f"read the verdict; `--{NOT_SHOWN}` writes it all the same"
        raise ConfigError(f"the profile is not to be deployed without looking: {profile.verdict.sentence}", fix=fix)
