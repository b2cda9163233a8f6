"""The compose file of a trial: a study writes one for a winner only, and tests have no time to prove one."""

from pathlib import Path

from tuner.export.compose import compose_text
from tuner.export.profile import settings_of
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.space import Candidate


def write_compose(path: Path, number: int = 0) -> Path:
    """Write ``compose.yaml`` in a study's folder, as the study would if this trial had won; returns it."""
    folder = StudyFolder(path)
    outcome = Outcome.of(folder)
    settings = settings_of(outcome, Candidate(outcome.records[number].params))
    export = outcome.config.launcher.export(outcome.config, settings)
    assert export is not None, "only a study in containers has a compose file"
    folder.write(folder.compose, compose_text(outcome.config, export, settings, f"trial {number}"))
    return folder.compose
