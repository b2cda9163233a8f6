"""A winner in new files, in the form that is asked for; what is there already is never overwritten."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from tuner.errors import ConfigError
from tuner.export import forms
from tuner.export.compose import compose_of
from tuner.export.profile import Profile
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome


class Form(StrEnum):
    """What a winner can be written as."""

    COMPOSE = "compose"
    SERVE = "serve"
    CONFIG = "config"
    KUBERNETES = "kubernetes"


_FORMS: Mapping[Form, Mapping[str, Callable[[Profile], str]]] = {
    Form.SERVE: {"serve.sh": forms.serve},
    Form.CONFIG: {"config.yml": forms.config, "env.sh": forms.env_sh},
    Form.KUBERNETES: {"deployment.yaml": forms.kubernetes},
}


def texts(form: Form, profile: Profile, study: Path) -> dict[str, str]:
    """The files of a form, by name.

    Args:
        form: Which one.
        profile: The winner.
        study: The folder of its study; a compose file needs more of it than a profile holds.

    Raises:
        ConfigError: It cannot be written so.
    """
    if form is not Form.COMPOSE:
        return {name: make(profile) for name, make in _FORMS[form].items()}
    text = compose_of(Outcome.of(StudyFolder(study)))
    if text is None:
        fix = "`--as serve` writes its command line"
        raise ConfigError(f"the study in {study} did not run in containers, so that it has no compose file", fix=fix)
    return {"compose.yaml": text}


def save(written: Mapping[str, str], path: Path) -> list[Path]:
    """Write the files: one as ``path``, several in the folder ``path``; returns where they are.

    Raises:
        ConfigError: One is there already.
    """
    alone = len(written) == 1 and not path.is_dir()
    files = {path if alone else path / name: text for name, text in written.items()}
    if there := next((file for file in files if file.exists()), None):
        raise ConfigError(f"{there} is there already", fix="name another with -o, or move it away")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return list(files)
