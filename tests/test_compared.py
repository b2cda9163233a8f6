"""``tuner study compare``: what was deployed and what won, of studies and profiles, in one table."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.present import present
from tests.simulated import simulated_study
from tuner.errors import ConfigError
from tuner.export.deployments import deployments, table
from tuner.export.profile import profile_of
from tuner.terminal.compared import compared


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 20)


@pytest.fixture(scope="module")
def profile(outcome, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "profile.yaml"
    path.write_text(present(profile_of(outcome)).to_yaml())
    return path


def test_a_study_and_its_profile_say_the_same_of_both(outcome, profile):
    of_study, of_profile = deployments(outcome.folder.path), deployments(profile)
    assert [each.name for each in of_study] == [each.name for each in of_profile]
    assert [each.name.partition(", ")[2] for each in of_study] == ["deployed", "winner"]
    assert [each.readings for each in of_study] == [each.readings for each in of_profile]
    assert of_study[0].digest == of_profile[0].digest


def test_the_numbers_are_the_relaunches(outcome):
    deployed, winner = deployments(outcome.folder.path)
    goal = outcome.decision.goals["output_tokens_per_s"]
    for each, values in ((deployed, goal.baseline), (winner, goal.candidate)):
        reading = each.readings["output_tokens_per_s"]
        assert reading.launches == len(values)
        assert min(values) < reading.mean < max(values)
        assert present(reading.low) < reading.mean < present(reading.high)
    alone = present(winner.alone)
    assert alone.mean == pytest.approx(1000 / winner.readings["tpot_p50_ms"].mean)
    assert present(alone.low) < alone.mean < present(alone.high)


def test_before_the_relaunches_the_one_launch_is_what_there_is(outcome, tmp_path):
    folder = tmp_path / "demo"
    shutil.copytree(outcome.folder.path, folder)
    shutil.rmtree(folder / "confirm")
    (deployed,) = deployments(folder)
    assert deployed.readings["output_tokens_per_s"].mean == outcome.baseline.measurement.output_tokens_per_s
    assert {(each.launches, each.low) for each in deployed.readings.values()} == {(1, None)}


def test_a_token_costs_what_its_gpus_cost_meanwhile(outcome):
    deployed, _ = deployments(outcome.folder.path)
    fast = replace(deployed, gpus=2, readings={"output_tokens_per_s": deployed.readings["output_tokens_per_s"]})
    rate = fast.readings["output_tokens_per_s"].mean
    cost = present(fast.cost(1.5))
    assert cost.mean == pytest.approx(2 * 1.5 / 3600 / rate * 1e6)
    assert present(cost.low) < cost.mean < present(cost.high)
    assert replace(fast, gpus=None).cost(1.5) is None
    assert "TTFT p50 (ms)" not in table([fast])[0]


@pytest.mark.parametrize("to", ["text", "markdown", "html", "csv", "json"])
def test_every_form_has_a_row_for_each(outcome, profile, to):
    text, remarks = compared([outcome.folder.path, profile], to, 1.5)
    assert text.count(", winner") == 2
    assert remarks == []


def test_programs_get_numbers(outcome):
    rows = json.loads(compared([outcome.folder.path], "json", None)[0])
    assert rows[1]["output_tokens_per_s_low"] < rows[1]["output_tokens_per_s"]
    assert rows[1]["cost_per_million_tokens"] is None
    assert all(row["ttft_p50_ms_launches"] > 1 for row in rows)


def test_other_traffic_and_other_models_are_said(outcome, tmp_path):
    workload = outcome.config.workload.model_copy(update={"concurrency": 7})
    model = outcome.config.model.model_copy(update={"id": "public/another"})
    other = replace(outcome, config=outcome.config.model_copy(update={"workload": workload, "model": model}))
    path = tmp_path / "other.yaml"
    path.write_text(present(profile_of(other)).to_yaml())
    _, remarks = compared([outcome.folder.path, path], "text", None)
    assert [remark.partition(":")[0] for remark in remarks] == ["measured under different traffic", "different models"]


def test_another_form_is_refused_with_those_there_are(outcome):
    with pytest.raises(ConfigError, match="there is no form 'xml'"):
        compared([outcome.folder.path], "xml", None)


def test_the_command_takes_names_and_files(outcome, profile):
    names = [outcome.folder.path.name, str(profile), "--folder", str(outcome.folder.path.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "study", "compare", *names, "--format", "markdown"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0].startswith("| deployment | engine | one user (tokens/s) |")
    assert len(done.stdout.splitlines()) == 6
