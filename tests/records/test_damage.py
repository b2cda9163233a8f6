"""One damaged file costs what was in it and nothing else, and is named with what to do."""

import fcntl
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.fast import FAST
from tests.simulated import simulated_study
from tuner import composing
from tuner.bench.saved import kept
from tuner.dashboard.storage import optuna_storage
from tuner.errors import ConfigError, InfrastructureError
from tuner.launchers.docker.image import StudyImage
from tuner.records.folder import StudyFolder, read_json, remove
from tuner.records.outcome import Outcome
from tuner.study import events
from tuner.study.loop import run_study

pytestmark = pytest.mark.timeout(180)
"""Whole studies: this file is one of the first that are begun."""


def tuner(folder, *arguments, **more):
    run = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments], cwd=folder, capture_output=True, text=True, check=False, **more
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return simulated_study(folder / "studies", 4, "study.confirm=0").folder.path


@pytest.fixture
def study(finished, tmp_path):
    """A copy of a finished study, to be damaged."""
    shutil.copytree(finished.parent, tmp_path / "studies")
    return StudyFolder(tmp_path / "studies" / finished.name)


DAMAGE = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "binary": lambda raw: bytes(range(256)) * 8,
    "empty": lambda raw: b"",
    "nested": lambda raw: b"[" * 5000,
}


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_record_is_named_and_the_others_count(study, spoil):
    path = study.trial(2).path / "record.json"
    path.write_bytes(spoil(path.read_bytes()))
    assert [record.number for record in study.records()] == [0, 1, 3]
    assert [each.path for each in study.damaged()] == [path]


def test_a_pipe_in_a_records_place_is_not_waited_for(study):
    path = study.trial(2).path / "record.json"
    path.unlink()
    os.mkfifo(path)
    assert [each.path for each in study.damaged()] == [path]


def test_status_and_report_name_a_damaged_record(study):
    path = study.trial(2).path / "record.json"
    path.write_bytes(path.read_bytes()[:100])
    shown = tuner(study.path.parent.parent, "study", "status", "demo", env={**os.environ, "COLUMNS": "300"})
    assert shown.returncode == 0
    assert "trials/0002/record.json cannot be read" in shown.stdout
    assert tuner(study.path.parent.parent, "study", "report", "demo").returncode == 0
    assert "0002/record.json" in study.report.read_text()


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_requests_are_named_in_the_report_and_counted_nowhere(study, spoil):
    path = study.trial(0).requests
    path.write_bytes(spoil(path.read_bytes()))
    place, empty = study.path.parent.parent, not path.read_bytes()
    assert tuner(place, "study", "report", "demo").returncode == 0
    assert ("0000/requests.jsonl is damaged" in study.report.read_text()) != empty
    exported = tuner(place, "study", "export", "demo", "--table", "requests")
    assert ("requests.jsonl is damaged" in exported.stderr) != empty
    assert tuner(place, "bench", "export", "--format", "vllm", str(study.trial(0).path)).returncode != 0


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_result_is_named(study, spoil):
    record = study.trial(0).record
    record.write_bytes(spoil(record.read_bytes()))
    with pytest.raises(ConfigError, match=r"0000/record\.json"):
        kept(study.trial(0).path)


def test_a_damaged_study_does_not_keep_the_others_from_being_listed(study):
    for name, content in (("empty", b""), ("binary", bytes(range(128, 256)))):
        (study.path.parent / name).mkdir()
        (study.path.parent / name / "config.yaml").write_bytes(content)
    (study.trial(1).path / "record.json").write_bytes(b"\xff\xfe\x00")
    shown = tuner(study.path.parent.parent, "study", "list")
    assert shown.returncode == 0
    assert "demo" in shown.stdout
    assert "empty cannot be read" in shown.stderr
    assert "binary cannot be read" in shown.stderr


def test_a_resumed_study_sets_a_damaged_record_aside_and_runs_on(tmp_path):
    asked = composing.load([*FAST, f"study.folder={tmp_path}", "budget.trials=2"])
    outcome = run_study(asked, lambda event: None)
    (outcome.folder.trial(1).path / "record.json").write_text("{")
    notes: list[events.Event] = []
    again = run_study(asked, notes.append)
    assert any("set aside as record.json.damaged" in getattr(note, "text", "") for note in notes)
    assert (outcome.folder.trial(1).path / "record.json.damaged").read_text() == "{"
    assert [record.number for record in again.records] == [0, 2]


def test_a_record_of_another_version_is_not_set_aside(study):
    path = study.trial(1).path / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tuner_version": "99.0", "news": 1}))
    with pytest.raises(ConfigError, match="resume with the version"):
        study.set_damaged_aside()
    assert path.exists()


def test_a_relaunch_after_a_damaged_one_overwrites_none(study):
    made = study.next_number("confirm")
    (study.confirmation(made).path / "record.json").write_text("{")
    study.set_damaged_aside()
    assert study.next_number("confirm") == made + 1


def test_a_locked_database_is_named_with_what_to_do(study):
    with closing(sqlite3.connect(study.path / "optuna.db")) as other:
        other.execute("CREATE TABLE x (a)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InfrastructureError, match=r"optuna\.db is locked.*\n.*end what has it open"):
            optuna_storage(study, None)


def test_the_database_of_another_optuna_is_named_with_what_to_do(study):
    optuna_storage(study, None)
    with closing(sqlite3.connect(study.path / "optuna.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        database.execute("UPDATE version_info SET schema_version = 99, library_version = '99.0.0'")
        database.commit()
    with pytest.raises(ConfigError, match=r"optuna\.db is no database.*\n.*remove it"):
        optuna_storage(study, None)


def test_a_disk_that_is_full_while_the_database_is_made_is_named(tmp_path):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    overrides = [*FAST, f"study.folder={tmp_path}"]
    run = tuner(tmp_path, "study", "start", *overrides, preexec_fn=little_room)
    assert run.returncode == 1
    assert "optuna.db" in run.stderr
    assert "make room" in run.stderr
    assert not list(tmp_path.glob("*"))


def test_a_disk_that_is_full_while_a_record_is_written_names_the_path_and_says_where_the_study_stands(tmp_path):
    overrides = [*FAST, f"study.folder={tmp_path}", "budget.trials=1"]
    asked = composing.load(overrides)
    run_study(asked, lambda event: None)
    blocked = StudyFolder(asked.study.path).path / "trials" / "0001" / ".record.json.tmp"
    blocked.mkdir(parents=True)  # stands in for the disk: nothing can be written there
    run = tuner(tmp_path, "study", "start", *overrides[:-1], "budget.trials=2")
    assert run.returncode == 1
    assert "trials/0001/record.json cannot be written" in run.stderr
    assert "make room" in run.stderr
    assert "deployed" in run.stdout


@pytest.mark.parametrize("sign", "?#")
def test_a_folder_whose_name_a_database_cannot_be_at_is_refused(tmp_path, sign):
    with pytest.raises(ConfigError, match=r"study\.folder"):
        composing.load(["experiment=demo", f"study.folder='{tmp_path}/a{sign}b'"])


def test_a_refused_start_leaves_no_study(tmp_path):
    asked = composing.load([*FAST, f"study.folder={tmp_path}/studies", "engine.executable=[/not/there]"])
    with pytest.raises(ConfigError, match=r"/not/there"):
        run_study(asked, lambda event: None)
    assert not asked.study.path.exists()


def test_a_damaged_image_file_is_named(study):
    study.image.write_text("{")
    with pytest.raises(ConfigError, match=r"image\.json is damaged"):
        read_json(study.image, StudyImage)
    assert Outcome.of(study).records


def test_a_database_of_another_program_is_named_though_its_tables_have_the_same_names(tmp_path):
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("CREATE TABLE studies (x)")
    with pytest.raises(ConfigError, match=r"optuna\.db is no database that this Optuna can use"):
        optuna_storage(StudyFolder(tmp_path), None)


@pytest.mark.parametrize("said", [b"", b"nobody", b"\xff" * 100])
def test_a_study_that_is_held_is_not_removed_whatever_its_lock_says(study, said):
    lock = study.path / ".lock"
    lock.write_bytes(said)
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InfrastructureError, match="is being run by process 0"):
            remove(study)
    assert study.records()
