"""Every private name of optuna-dashboard that tuner writes or reads, against Optuna and the dashboard themselves."""

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from tuner.dashboard import keys as dashboard_keys

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def shown(study: optuna.Study) -> Any:
    """A study as the dashboard's page receives it."""
    environ: dict[str, Any] = {"PATH_INFO": f"/api/studies/{study._study_id}", "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    body = optuna_dashboard.wsgi(study._storage)(environ, lambda *_: None)
    return json.loads(b"".join(body))


def test_the_dashboard_reads_constraints_by_this_name_and_not_by_optunas(study: optuna.Study) -> None:
    ours, theirs = study.ask(), study.ask()
    study._storage.set_trial_system_attr(ours._trial_id, *dashboard_keys.constraints([0.5, -1.0]))
    theirs.set_constraint("limit", 0.5)
    for trial in (ours, theirs):
        study.tell(trial, 1.0)
    trials = shown(study)["trials"]
    assert trials[0]["constraints"] == [0.5, -1.0]
    assert not trials[1]["constraints"]


def test_an_artifact_is_what_optuna_writes_for_an_uploaded_file(study: optuna.Study, tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    file.write_text("ready")
    trial = study.ask()
    identity = upload_artifact(
        artifact_store=FileSystemArtifactStore(tmp_path), file_path=str(file), study_or_trial=trial
    )
    written = study._storage.get_trial(trial._trial_id).system_attrs
    name, value = dashboard_keys.artifact(identity, "server.log", "text/plain")
    assert json.loads(written[name]) | {"mimetype": "text/plain"} == json.loads(value)


def test_a_note_is_there_once_the_dashboard_has_saved_one(study: optuna.Study) -> None:
    noted, other = study.ask(), study.ask()
    optuna_dashboard.save_note(noted, "text")
    attributes = study._storage.get_study_system_attrs(study._study_id)
    assert dashboard_keys.has_note(attributes, noted._trial_id)
    assert not dashboard_keys.has_note(attributes, other._trial_id)
