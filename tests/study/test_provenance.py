"""With which command, where and with which versions a study was run."""

import json

from tests.present import present
from tuner import __version__
from tuner.study.provenance import Machine, Sitting, append, sittings


def test_every_sitting_is_kept_in_order(tmp_path):
    path = tmp_path / "sittings.jsonl"
    assert sittings(path) == []
    made = [Sitting.now(("tuner", "study", "start", "experiment=demo", f"budget.trials={n}")) for n in (1, 2)]
    for sitting in made:
        append(path, sitting)
    assert sittings(path) == made


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    path = tmp_path / "sittings.jsonl"
    append(path, Sitting.now(()))
    with path.open("a") as file:
        file.write('{"started_at": "2026')
    assert len(sittings(path)) == 1


def test_the_machine_and_the_versions_that_have_a_hand_in_the_numbers_are_named():
    sitting = Sitting.now(())
    assert sitting.machine == Machine.this()
    assert sitting.machine.cores > 0
    assert present(sitting.machine.memory_gib) > 0.1
    assert sitting.versions["tuner"] == __version__
    assert {"Python", "optuna", "aiohttp"} <= set(sitting.versions)
    assert sitting.command is None


def test_a_secret_on_the_command_line_is_masked(tmp_path):
    sitting = Sitting.now(("tuner", "study", "start", "model.env.MY_API_KEY=sk-abcdefghijklmnopqrst"))
    append(tmp_path / "sittings.jsonl", sitting)
    kept = json.loads((tmp_path / "sittings.jsonl").read_text())["command"]
    assert "sk-abc" not in kept
    assert kept.startswith("tuner study start")
