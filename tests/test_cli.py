"""The commands as a person types them."""

import json
import subprocess
import sys

import pytest

from tests.simulated import simulated_study


def tuner(*arguments, stdin=None):
    return subprocess.run([sys.executable, "-m", "tuner", *arguments], input=stdin, capture_output=True, check=False)


OOM = b"""INFO fine \xff\rINFO vLLM API server version 0.15.0
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


def test_explain_reads_a_file_or_standard_input(tmp_path):
    log = tmp_path / "server.log"
    log.write_bytes(OOM)
    for done in (tuner("explain", str(log), "--json"), tuner("explain", "-", "--json", stdin=OOM)):
        said = json.loads(done.stdout)
        assert said["cause"] == "cuda_oom"
        assert "Tried to allocate" in said["line"]


def test_explain_tells_a_person_what_to_do(tmp_path):
    done = tuner("explain", "-", stdin=OOM)
    assert done.returncode == 0
    assert b"cause    cuda_oom" in done.stdout
    assert b"the search learns from it" in done.stdout


def test_explain_takes_what_the_log_does_not_say():
    said = json.loads(
        tuner("explain", "-", "--exit-code", "137", "--oom-killed", "--json", stdin=b"INFO loading\n").stdout
    )
    assert said["cause"] == "host_oom"


def test_explain_shows_a_terminal_nothing_but_text():
    done = tuner("explain", "-", stdin=b"\x1b[31mRuntimeError: CUDA error: out of memory\x1b]0;mine\x07\x1b[0m\n")
    assert b"cuda_oom" in done.stdout
    assert b"\x1b" not in done.stdout
    assert b"\x07" not in done.stdout


@pytest.mark.parametrize("arguments", [(), ("study",), ("sim",)])
def test_a_command_without_its_verb_shows_the_help_and_no_empty_error(arguments):
    done = tuner(*arguments)
    assert b"Usage" in done.stdout
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments", [("start", "experiment=demo", "study.folder={there}"), ("report", "--folder={ro}")]
)
def test_what_the_system_refuses_is_said_in_its_own_words(arguments, tmp_path):
    simulated_study(tmp_path, 3)
    (tmp_path / "a-file").touch()
    (tmp_path / "demo" / "report.html").mkdir()
    done = tuner("study", *(each.format(there=tmp_path / "a-file", ro=tmp_path) for each in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith(b"tuner: ")
    assert str(tmp_path).encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_one_damaged_study_does_not_hide_the_others(tmp_path):
    simulated_study(tmp_path, 3)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("study: {")
    done = tuner("study", "list", "--folder", str(tmp_path))
    assert done.returncode == 0
    assert b"demo" in done.stdout
    assert b"broken cannot be read" in done.stderr
    listed = json.loads(tuner("study", "list", "--folder", str(tmp_path), "--json").stdout)
    assert [each["study"] for each in listed] == ["demo", "broken"]
    assert "error" in listed[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "no-such.log"], "no-such.log"),
        (["study", "strat"], "strat"),
        (["study", "status", "--folder", "/nonexistent"], "which study"),
        (["study", "export", "nope", "--folder", "/nonexistent"], "no study 'nope'"),
        (["study", "start", "--nope"], "--nope"),
        (["bench", "run", "127.0.0.1:1"], "http://127.0.0.1:1"),
        (["study", "start", "--config-dir", "/nonexistent", "experiment=demo"], "not a folder"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong_and_exits_with_2(arguments, says):
    done = tuner(*arguments)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_help_lists_groups_and_choices():
    shown = tuner("study", "start", "--help").stdout.decode()
    assert "objective=" in shown
    assert "glm-flash" in shown


def test_the_plan_is_shown_before_any_gpu_time_is_spent(tmp_path):
    done = tuner("study", "start", "experiment=demo", f"study.folder={tmp_path}", "--dry-run")
    text = done.stdout.decode()
    assert "at most 1,410,048 combinations of 12 parameters" in text
    assert "28 launches" in text
    assert "up to 16 of them for the proof" in text
    assert "rule tokens_cover_sequences" in text
    assert not list(tmp_path.iterdir())
    plan = json.loads(
        tuner("study", "start", "experiment=demo", f"study.folder={tmp_path}", "--dry-run", "--json").stdout
    )
    assert plan["launches"] == 28


def test_cfg_prints_what_a_study_would_read_back(tmp_path):
    from tuner import composing

    printed = tmp_path / "config.yaml"
    printed.write_bytes(tuner("study", "start", "experiment=demo", "--cfg").stdout)
    assert composing.read(printed) == composing.load(["experiment=demo"])


def test_clean_says_when_nothing_was_left():
    assert b"nothing was left behind" in tuner("clean").stdout


def test_the_plan_says_which_service_is_down_for_how_long(tmp_path):
    done = tuner(
        "study", "start", "experiment=glm-flash", f"study.folder={tmp_path}", "site.stop=[medium-glm]", "--dry-run"
    )
    said = done.stdout.decode()
    assert " minutes (a guess until a launch has been measured)" in said
    assert "\nmedium-glm is stopped for that time, and started again in the end\n" in said


def test_version():
    assert tuner("--version").stdout.startswith(b"tuner ")


def test_a_group_of_ones_own_that_is_no_yaml_is_named_with_its_line(tmp_path):
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("params: {\n  x: : \n")
    done = tuner("study", "start", "--config-dir", str(tmp_path), "experiment=demo", "space=mine", "--dry-run")
    assert done.returncode == 2
    assert b"mine.yaml" in done.stderr
    assert b"line 2" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_plan_knows_a_small_space(tmp_path):
    small = ["space=none", "+space.params.max_num_seqs={choices: [32, 64]}"]
    done = tuner("study", "start", "experiment=demo", *small, f"study.folder={tmp_path}", "--dry-run", "--json")
    assert json.loads(done.stdout)["launches"] == 3 + 16


def test_the_plan_refuses_a_flag_that_this_engine_is_known_not_to_have(tmp_path):
    done = tuner("study", "start", "experiment=demo", "+model.args.max_num_sqs=2", "--dry-run")
    assert done.returncode == 2
    assert b"model.args.max_num_sqs" in done.stderr


def test_a_study_is_removed_when_one_says_yes_and_not_while_it_runs(tmp_path):
    study = simulated_study(tmp_path, 2, "study.confirm=0").folder
    with study.locked():
        refused = tuner("study", "rm", "demo", "--yes", "--folder", str(tmp_path))
    assert refused.returncode == 1
    assert b"is being run by process" in refused.stderr
    assert b"say --yes" in tuner("study", "rm", "demo", "--folder", str(tmp_path)).stderr
    assert study.path.exists()
    study.config.write_text("damaged: [")
    assert tuner("study", "rm", "demo", "--yes", "--folder", str(tmp_path)).returncode == 0
    assert not study.path.exists()
