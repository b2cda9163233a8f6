"""A plan says what keeps a study from starting, as the start would, and what it could not find out."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.simulated import simulated_study
from tuner import composing
from tuner.errors import ConfigError, InfrastructureError
from tuner.host.leases import reserved
from tuner.study.checks import examined
from tuner.study.loop import run_study
from tuner.study.plan import plan_of


@pytest.fixture
def load(tmp_path):
    return lambda *overrides: composing.load(["experiment=demo", f"study.folder={tmp_path}", *overrides])


def said(checks):
    return "\n".join(map(str, checks.refused))


def plan(*overrides, **environ):
    command = [sys.executable, "-m", "tuner", "study", "start", *overrides, "--dry-run"]
    env = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_a_demo_passes_every_check_and_its_time_is_called_a_guess(load, tmp_path):
    asked = load("workload.ttft_prompt_tokens=[]")
    checks = examined(asked)
    assert (checks.refused, checks.unchecked) == ((), ())
    assert set(checks.passed) == {"folders", "resume", "engine", "model", "temporary files", "GPUs", "flags", "prompts"}
    text = plan_of(asked, checks=checks).text
    assert "a guess until a launch has been measured" in text
    assert "checked    folders, resume, engine, model" in text
    assert not list(tmp_path.glob("*/config.yaml"))


OTHER_GOALS = ("kv_tokens", "kv_requests", "startup_s", "tpot_ms.p50.prompt_5000.cold", "e2e_ms.p95.alone")


@pytest.mark.parametrize("name", OTHER_GOALS)
def test_whatever_is_measured_is_a_goal_that_the_plan_names_next_to_those_it_joins(load, name):
    way = "maximize" if name.startswith("kv") else "minimize"
    asked = load(f"objective.goals.{name}={way}")
    checks = examined(asked)
    assert checks.refused == ()
    text = plan_of(asked, checks=checks).text
    assert f"goals      maximize output_tokens_per_s, {way} {asked.objective.deciding.goals[1]}\n" in text
    assert "limits     tpot_p50_ms at most 1.1 × the deployed configuration's, ttft_p50_ms at most 1.25 ×" in text
    alone = load(f"objective.goals.{name}={way}", "~objective.goals.output_tokens_per_s")
    assert len(alone.objective.goals) == 1


def test_energy_that_nobody_counts_is_refused_in_the_plan_as_at_the_start(load):
    asked = load("objective=energy")
    assert "energy_per_token_j needs the energy counter of NVML" in said(examined(asked))
    with pytest.raises(ConfigError, match="this hardware has none"):
        run_study(asked, lambda event: None)


def test_a_cost_without_a_price_is_refused_and_with_one_planned(load):
    cost = "objective.goals={cost_per_million_tokens: minimize}"
    with pytest.raises(ConfigError, match="needs the price of the machine"):
        load(cost)
    assert examined(load(cost, "hardware.price_per_hour=2")).refused == ()


def test_a_time_that_was_measured_is_no_guess(load, tmp_path):
    simulated_study(tmp_path, 3, "study.confirm=0")
    known = plan_of(load("budget.trials=9", "study.confirm=0"))
    assert not known.guessed
    assert "guess" not in known.text


def test_a_complete_study_that_is_given_more_has_launches_to_come(load, tmp_path):
    outcome = simulated_study(tmp_path, 3)
    assert plan_of(outcome.config).launches == 0
    more = [f"study.name={outcome.config.study.name}", "study.confirm.max=4", f"budget.trials={3 + 8 + 5}"]
    assert plan_of(load(*more)).launches == 5 + 8 - len(outcome.confirmations)


def test_a_model_that_is_not_there_leaves_no_study(load, tmp_path):
    with pytest.raises(ConfigError, match="/not/there is not there"):
        run_study(load("model.id=/not/there"), lambda event: None)
    assert not list(tmp_path.glob("*/*.*"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("engine.executable=[/not/there/vllm,serve]", "/not/there/vllm is not there"),
        ("model.id=/not/there/model", "model.id: /not/there/model is not there"),
        ("workload.prompt_tokens=200000", "max_model_len=131072"),
        ("model.args.no_such_flag=1", "no_such_flag"),
        ("+workload.trace={file: /not/there.jsonl}", "workload.trace.file: /not/there.jsonl cannot be read"),
        ("+workload.trace={file: /dev/zero}", "workload.trace.file: /dev/zero cannot be read: not a regular file"),
        ("study.folder=/proc/none", "study.folder: /proc/none/demo cannot be written to"),
        ("study.folder=/dev/null", "study.folder: /dev/null/demo cannot be written to: Not a directory"),
        ("storage.url=sqlite:////not/there/x.db", "storage.url: /not/there is not there"),
        ("storage.url=journal:/not/there/x.log", "storage.url: /not/there is not there"),
    ],
)
def test_what_the_start_would_refuse_the_plan_refuses(load, override, says):
    assert says in said(examined(load(override)))


@pytest.mark.parametrize("name", ["TUNER_STATE_DIR", "TMPDIR"])
def test_a_folder_that_a_launch_needs_and_that_cannot_be_written_to_is_named(name, load, monkeypatch):
    monkeypatch.setenv(name, "/proc/none")
    assert said(examined(load())).startswith(f"{name}: /proc/none")
    with pytest.raises(InfrastructureError, match="/proc/none"):
        run_study(load(), lambda event: None)


def test_a_database_is_looked_into_and_not_changed(load, tmp_path):
    path = tmp_path / "x.db"
    asked = load(f"storage.url=sqlite:///{path}")
    assert (examined(asked).refused, path.exists()) == ((), False)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE studies (song TEXT)")
    before = path.read_bytes()
    assert "no database that this Optuna can use" in said(examined(asked))
    assert path.read_bytes() == before
    assert examined(load("storage.url=sqlite://")).unchecked[0] == "folders: storage.url is opened at the start"


def test_gpus_that_another_study_has_reserved_are_refused(load):
    with reserved([0], "study other (process 1)"):
        assert "GPU 0 is held by study other" in said(examined(load("hardware.gpus=[0]")))


def test_a_study_that_could_not_be_resumed_is_refused(load, tmp_path):
    simulated_study(tmp_path, 3, "study.confirm=0")
    assert "begun with another configuration" in said(
        examined(load("model.args.max_model_len=100000", "study.confirm=0"))
    )
    assert "a study only grows" in said(examined(load("budget.trials=2", "study.confirm=0")))


def test_a_deployment_that_is_not_expected_to_start_is_named(load):
    (said,) = examined(load("model.args.tensor_parallel_size=3", "workload.ttft_prompt_tokens=[]")).unchecked
    assert said.startswith("flags: trial 0 is launched since it is deployed, but Total number of attention heads (20)")


def test_a_prompt_that_will_be_skipped_is_named(load):
    checks = examined(load("workload.ttft_prompt_tokens=[140000]"))
    assert checks.unchecked == (
        "prompts: a prompt of 140000 tokens does not fit in max_model_len=131072 and is skipped",
    )


def test_one_refusal_does_not_hide_the_others_and_the_plan_is_printed_all_the_same(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        overrides = (
            "experiment=demo",
            f"study.folder={tmp_path}",
            "launcher=docker",
            "launcher.image=x",
            f"launcher.port={taken.getsockname()[1]}",
            "workload.prompt_tokens=200000",
        )
        done = plan(*overrides, DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    assert done.returncode in (1, 2)
    assert "launches" in done.stdout
    assert "Docker" in done.stderr
    assert "choose another launcher.port" in done.stderr
    assert "max_model_len" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_for_programs_holds_the_checks(tmp_path):
    shown = json.loads(plan("experiment=demo", f"study.folder={tmp_path}", "--json").stdout)
    assert shown["guessed"]
    assert "engine" in shown["checked"]


@pytest.mark.parametrize(("hours", "left"), [(0.05, False), (1, True)])
def test_hours_that_hold_little_but_the_proof_are_named(load, hours, left):
    text = plan_of(load("budget.trials=null", f"budget.hours={hours}", "study.confirm=8")).text
    assert ("leaves no time to search: 16 relaunches may take" in text) is not left


def test_hours_leave_room_for_the_relaunches(load, tmp_path):
    outcome = simulated_study(tmp_path, 8, "study.confirm=0")
    spent_s = sum(record.seconds for record in (*outcome.records, *outcome.relaunches))

    def over(share, *more):
        hours = share * spent_s / 3600
        return replace(outcome, config=load("budget.trials=null", f"budget.hours={hours}", *more)).over

    assert not over(1.2, "study.confirm=0")
    assert over(1.2, "study.confirm=8")
    assert not over(10, "study.confirm=8")
