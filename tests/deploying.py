"""The compose file of a first trial: a study writes one for a winner only, and tests have no time to prove one."""

from tuner.compose import compose_text
from tuner.launchers.docker.pinned import StudyImage
from tuner.outcome import Outcome
from tuner.profile import settings_of
from tuner.storage import StudyFolder


def write_compose(path):
    """Write ``compose.yaml`` in a study's folder, as the study would if its first trial had won; returns it."""
    folder = StudyFolder(path)
    outcome = Outcome.of(folder)
    image = StudyImage.model_validate_json(folder.image.read_text())
    settings = settings_of(outcome, outcome.records[0])
    folder.write(folder.compose, compose_text(outcome.config, outcome.config.launcher, image, settings, "trial 0"))
    return folder.compose
