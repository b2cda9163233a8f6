"""With which command, where and with which versions a study was run."""

import json

from tests.present import present
from tuner import __version__
from tuner.records.folder import StudyFolder
from tuner.study.provenance import Machine, StudyRun, append, runs_of


def test_every_run_is_kept_in_order(tmp_path):
    folder = StudyFolder(tmp_path)
    assert runs_of(folder) == []
    made = [StudyRun.now(("tuner", "study", "start", "experiment=demo", f"budget.trials={n}")) for n in (1, 2)]
    for run in made:
        append(folder, run)
    assert runs_of(folder) == made


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    folder = StudyFolder(tmp_path)
    append(folder, StudyRun.now(()))
    with folder.runs.open("a") as file:
        file.write('{"started_at": "2026')
    assert len(runs_of(folder)) == 1


def test_the_machine_and_the_versions_that_have_a_hand_in_the_numbers_are_named():
    run = StudyRun.now(())
    assert run.machine == Machine.this()
    assert run.machine.cores > 0
    assert present(run.machine.memory_gib) > 0.1
    assert run.versions["tuner"] == __version__
    assert {"Python", "optuna", "aiohttp"} <= set(run.versions)
    assert run.command is None


def test_a_secret_on_the_command_line_is_masked(tmp_path):
    run = StudyRun.now(("tuner", "study", "start", "model.env.MY_API_KEY=sk-abcdefghijklmnopqrst"))
    append(StudyFolder(tmp_path), run)
    kept = json.loads((tmp_path / "runs.jsonl").read_text())["command"]
    assert "sk-abc" not in kept
    assert kept.startswith("tuner study start")
