"""What a study has found, in one sentence."""

from dataclasses import replace

import pytest

from tests.simulated import simulated_study
from tuner.storage import Failure, Role, State


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 12)


def keeping(outcome, wanted):
    return replace(outcome, records=tuple(filter(wanted, outcome.records)), relaunches=())


def failing(outcome):
    """The outcome with the best's relaunches failed."""
    failure = Failure(error="OutOfMemory", cause="cuda_oom", message="GPU memory ran out")
    dead = {"failure": failure, "measurement": None, "verdict": None, "state": State.PRUNED}
    changed = (r.model_copy(update=dead) if r.role is Role.CONFIRM_BEST else r for r in outcome.relaunches)
    return replace(outcome, relaunches=tuple(changed))


def test_a_proven_gain_is_said_with_its_spread(outcome):
    goal = outcome.comparison.goals["output_tokens_per_s"]
    said = f"throughput +{goal.gain:.1%}, spread {goal.spread:.1%}"
    assert outcome.sentence == f"Trial {outcome.best.number} beats the deployed configuration: {said}."


def test_a_gain_that_was_not_measured_again_is_no_win(outcome):
    assert "has not been measured again" in replace(outcome, relaunches=()).sentence


def test_a_best_that_does_not_start_again_is_unproven(outcome):
    said = failing(outcome).sentence
    assert said.startswith(f"Unproven: trial {outcome.best.number} did not survive its relaunches")
    assert said.endswith("keep yours.")


def test_a_gain_within_the_spread_is_unproven(outcome):
    same = tuple(
        r.model_copy(update={"measurement": outcome.relaunches[n % 2].measurement})
        for n, r in enumerate(outcome.relaunches)
    )
    found = replace(outcome, relaunches=same)
    assert not found.proven
    assert "by no more than its spread" in found.sentence


def test_a_study_whose_trials_all_lost_says_keep_yours_only_at_its_end(outcome):
    slower = keeping(outcome, lambda r: r.role is Role.BASELINE or not r.feasible)
    assert slower.sentence == "So far the deployed configuration has not been beaten."
    asked = outcome.config.model_copy(update={"budget": outcome.config.budget.model_copy(update={"trials": 2})})
    assert replace(slower, config=asked).sentence == "The deployed configuration could not be beaten: keep it."


def test_a_study_of_the_deployed_configuration_alone_claims_nothing(outcome):
    alone = keeping(outcome, lambda r: r.role is Role.BASELINE)
    assert alone.sentence == "Nothing but the deployed configuration has been tried."


def test_a_study_in_which_nothing_ran_says_why(outcome):
    dead = keeping(outcome, lambda r: r.failure is not None)
    said = dead.sentence
    assert said.startswith("No configuration could be used: ")
    assert f"{len(dead.records)} × asks for more GPU memory than is free" in said


def test_limits_that_all_missed_are_named(tmp_path):
    outcome = simulated_study(tmp_path, 8, "objective.limits.ttft_p50_ms.max=0.9")
    missed = keeping(outcome, lambda r: r.verdict and not r.feasible)
    assert "TTFT p50 beyond its limit" in missed.sentence
