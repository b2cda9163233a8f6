"""What is run next: what pre-flight rules out, what failures suggest, and that both are on record."""

import json
import sys

import optuna
import pytest

from tests.fast import FAST
from tests.present import present
from tests.study.test_study import optuna_study, run
from tuner import composing
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State
from tuner.study import events
from tuner.study.loop import StudyStopped


@pytest.fixture
def load(tmp_path):
    return lambda *overrides: composing.load([*FAST, f"study.folder={tmp_path}/studies", *overrides])


def test_what_cannot_start_is_pruned_without_a_launch_and_costs_no_budget(load):
    asked = load("model.known_good=[{gpu_memory_utilization: 0.96}]", "budget.trials=2")
    outcome, heard = run(asked)
    refused = outcome.searched[1]
    assert (refused.state, refused.launched, refused.phases) == (State.PRUNED, False, ())
    assert refused.failure.error == "PredictedOutOfMemory"
    assert refused.failure.cause == "insufficient_free_memory"
    assert "lower gpu_memory_utilization" in refused.failure.advice
    assert not (asked.study.path / "trials" / refused.label / "server.log").exists()
    assert [event.number for event in heard.of(events.TrialStarted)] == [0, 2]
    assert (len(outcome.launched), len(outcome.ruled_out)) == (2, 1)
    kept = optuna_study(asked).trials[1]
    assert (kept.state, kept.values) == (optuna.trial.TrialState.PRUNED, None)


def test_every_launch_is_kept_with_what_was_predicted_of_it(load):
    outcome, _ = run(load())
    first, *later = outcome.launched
    assert first.forecast.starts == 0
    for record in later:
        assert record.forecast.starts > 0
        if record.facts and record.facts.kv_tokens and record.facts.compile_cache_hit:
            assert record.forecast.kv_tokens == pytest.approx(record.facts.kv_tokens, rel=0.05)
    on_disk = json.loads((outcome.folder.path / "trials" / first.label / "record.json").read_text())
    assert on_disk["forecast"]["weights_gib"] == pytest.approx(first.facts.weights_gib, rel=0.01)


def test_a_flag_that_this_version_does_not_have_is_pruned_where_it_may_be_unset(load):
    asked = load("+space.params.not_a_flag={choices: [null, 7]}", "model.known_good=[{not_a_flag: 7}]")
    outcome, _ = run(asked)
    refused = outcome.searched[1]
    assert (refused.launched, refused.failure.cause) == (False, "bad_flag")
    assert "--not-a-flag" in refused.failure.line


def test_a_flag_that_this_version_does_not_have_and_that_is_always_set_ends_the_study_before_trial_0(load):
    with pytest.raises(ConfigError, match="num_scheduler_steps"):
        run(load("model.args.num_scheduler_steps=8"))
    with pytest.raises(ConfigError, match=r"space\.params\.not_a_flag"):
        run(load("+space.params.not_a_flag={choices: [7, 8]}"))


def test_a_failure_suggests_what_to_try_instead_and_closes_what_fails_like_it(load):
    """The engine's KV cache turns out too small where the prediction saw room."""
    asked = load(
        "engine.launch_args.sim_fault=['oom-kv@gpu_memory_utilization=0.9']",
        "model.args.gpu_memory_utilization=0.92",
        "model.known_good=[{gpu_memory_utilization: 0.9}]",
        "budget.trials=4",
    )
    outcome, heard = run(asked)
    failed = outcome.launched[1]
    repair = outcome.launched[2]
    assert failed.failure.cause == "no_kv_cache"
    assert repair.role is Role.REPAIR
    assert repair.params["gpu_memory_utilization"] > 0.9
    assert [record.role for record in outcome.launched].count(Role.REPAIR) == 1
    assert any("is tried any more" in note.text for note in heard.of(events.Noted))


def test_a_start_that_others_left_no_memory_for_says_nothing_of_its_configuration(load, tmp_path):
    crowd = tmp_path / "crowd"
    script = f'touch {crowd}; exec {sys.executable} -m tuner.sim serve "$@" $(cat {crowd})'
    engine = f"engine.executable=[sh, -c, '{script}', sh]"
    run(load(engine, "budget.trials=1"))
    crowd.write_text("--sim-free-gib 15")
    with pytest.raises(StudyStopped, match="others hold"):
        run(load(engine, "budget.trials=2", "study.retries=1"))
    failed = [record for record in StudyFolder(tmp_path / "studies" / "fast").records() if record.failure]
    assert {record.state for record in failed} == {State.FAILED}
    assert {present(record.failure).error for record in failed} == {"GpuBusy"}
    crowd.write_text("")
    outcome, _ = run(load(engine, "budget.trials=2"))
    assert len(outcome.launched) == 2


def test_without_pre_flight_everything_is_launched(load):
    asked = load("study.preflight=false", "model.known_good=[{gpu_memory_utilization: 0.96}]", "budget.trials=2")
    outcome, _ = run(asked)
    assert [record.launched for record in outcome.searched] == [True, True]
    assert outcome.searched[1].failure.cause == "insufficient_free_memory"


def test_a_copy_of_the_deployment_that_spells_out_the_engines_defaults_is_not_proposed(load):
    """``block_size`` is unset and 16 by default, so that the space of two values holds one other configuration."""
    asked = load(
        "space=none",
        "+space.params.block_size={choices: [16, 32], default: 16}",
        "model.known_good=[{block_size: 16}]",
        "search=grid",
    )
    outcome, heard = run(asked)
    assert [record.params["block_size"] for record in outcome.searched] == [None, 32]
    assert [event.changed for event in heard.of(events.TrialStarted)] == ["", "block_size=32"]
