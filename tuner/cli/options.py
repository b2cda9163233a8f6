"""What several commands take and print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.errors import ConfigError

if TYPE_CHECKING:
    from tuner.records.folder import StudyFolder
    from tuner.records.outcome import Outcome


def say(text: str) -> None:
    """A line for the person at the terminal."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_(text: str, *, flush: bool = False) -> None:
    """A line of what was asked for; flushed where someone may wait for it."""
    sys.stdout.write(text + "\n")
    if flush:
        sys.stdout.flush()


def _complete_override(incomplete: str) -> list[str]:
    from tuner.catalog import groups

    words = [f"{group.name}={choice}" for group in groups() for choice in group.choices]
    return [word for word in words if word.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[OVERRIDE]...", help="group=choice or key=value", autocompletion=_complete_override),
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="A folder with configuration groups of your own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TokenEnv = Annotated[str | None, typer.Option("--token-env", help="Environment variable that holds the bearer token.")]
StudyName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The study; not needed where there is only one.")
]
StudiesFolder = Annotated[Path, typer.Option("--folder", help="Where study folders lie.")]


def study_folder(folder: Path, name: str | None) -> "StudyFolder":
    """The folder of the study of this name, or of the only one there is.

    Raises:
        ConfigError: There is none, or several and none is named.
    """
    from tuner.records.folder import studies

    found = {study.path.name: study for study in studies(folder)}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name in found:
        return found[str(name)]
    listed = ", ".join(found) or "none"
    raise ConfigError(
        f"no study {name!r} in {folder} (there: {listed})" if name else f"which study? In {folder}: {listed}",
        fix="name one of them, or say --folder",
    )


def outcome_of(folder: Path, name: str | None) -> "Outcome":
    """The study itself, as ``study_folder`` finds it."""
    from tuner.records.outcome import Outcome

    return Outcome.of(study_folder(folder, name))
