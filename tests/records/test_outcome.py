"""What a study has found, in one sentence."""

from dataclasses import replace

import pytest

from tests.simulated import simulated_study
from tuner.export.profile import profile_of
from tuner.proof.decision import Kind
from tuner.proof.rule import ALPHA
from tuner.proof.soak import Soaked
from tuner.records.record import Failure, Role, State
from tuner.records.verdict import drifts, near_miss, worse


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


def ending(outcome, kind, **numbers):
    """The outcome with the measurements of its relaunches changed: a factor by metric, for ``kind`` of the two."""

    def changed(record):
        if record.role is not kind:
            return record
        update = {name: record.measurement.numbers[name] * factor for name, factor in numbers.items()}
        return record.model_copy(update={"measurement": record.measurement.model_copy(update=update)})

    return replace(outcome, relaunches=tuple(map(changed, outcome.relaunches)))


def test_a_proven_gain_is_said_with_its_interval(outcome):
    goal = outcome.decision.goals["output_tokens_per_s"]
    said = f"throughput +{goal.gain:.1%} [+{goal.low:.1%}, +{goal.high:.1%}]"
    subject = (
        f"Trial {outcome.best.number} with {len(outcome.reduced)} of its {len(outcome.changes(outcome.best))} changes"
    )
    assert outcome.sentence.startswith(f"{subject} is better than the deployed configuration: {said}, over 4 ")
    assert outcome.proven


def test_a_limit_that_one_relaunch_breaks_is_not_shown(outcome):
    last = [record for record in outcome.relaunches if record.role is Role.CONFIRM_BEST][-1]
    slow = last.measurement.model_copy(update={"ttft_p50_ms": 30_000.0})
    worse = last.model_copy(update={"measurement": slow})
    found = replace(outcome, relaunches=tuple(worse if r is last else r for r in outcome.relaunches))
    assert found.decision.kind is Kind.LIMIT_NOT_SHOWN
    assert "is better, but its limit on TTFT p50" in found.sentence
    assert "is not shown to be kept" in found.sentence


def test_what_nobody_named_must_not_get_much_worse(outcome):
    found = ending(outcome, Role.CONFIRM_BEST, itl_p50_ms=1.9)
    assert found.decision.kind is Kind.LIMIT_NOT_SHOWN
    assert "ITL p50 +" in found.sentence
    assert "more than objective.guard allows" in found.sentence
    objective = outcome.config.objective.model_copy(update={"unguarded": ("itl_p50_ms",)})
    lifted = replace(found, config=found.config.model_copy(update={"objective": objective}))
    assert lifted.proven
    assert any(text.startswith("ITL p50 +") for text in worse(lifted))


def test_a_runner_up_gets_the_error_rate_that_is_left(outcome):
    lost = failing(outcome)
    grown = lost.config.model_copy(update={"budget": lost.config.budget.model_copy(update={"trials": 40})})
    terms = replace(lost, config=grown).next_terms()
    assert terms.candidate != lost.proofs[0].terms.candidate
    assert terms.alpha == pytest.approx(0.8 * (ALPHA - lost.proofs[0].decision.spent))


def test_without_launches_for_a_runner_up_the_verdict_stands(outcome):
    assert failing(outcome).next_terms() is None
    assert failing(outcome).confirmed


def test_a_gain_that_was_not_measured_again_is_no_win(outcome):
    assert "has not been launched again" in replace(outcome, relaunches=()).sentence


def test_a_best_that_does_not_start_again_is_unproven(outcome):
    said = failing(outcome).sentence
    assert said.startswith(f"Not decided: trial {outcome.best.number} with ")
    assert "changes is not to be relied on: a relaunch died" in said
    assert "GPU memory ran out" in said


def soaked(outcome, **update):
    """The outcome after a soak of its winner, with a study that has time for a runner-up."""
    config = outcome.config.model_copy(
        update={
            "study": outcome.config.study.model_copy(update={"soak_min": 5.0}),
            "budget": outcome.config.budget.model_copy(update={"trials": 60}),
        }
    )
    last = [record for record in outcome.relaunches if record.role is Role.CONFIRM_BEST][-1]
    soak = last.model_copy(update={"role": Role.SOAK, "number": 99, "soak": Soaked(), **update})
    return replace(outcome, config=config, relaunches=(*outcome.relaunches, soak))


def test_a_winner_is_to_be_soaked_before_it_is_done_with(outcome):
    found = soaked(outcome)
    before = replace(found, relaunches=outcome.relaunches)
    assert (before.soak_terms(), before.confirmed) == (before.proof.terms, False)
    assert (found.soak_terms(), found.confirmed, found.proven) == (None, True, True)
    assert found.decision.launches == outcome.decision.launches, "its soak is no launch of the proof"


def test_a_winner_that_does_not_last_is_refused_and_a_runner_up_gets_the_error_that_is_left(outcome):
    failure = Failure(error="OutOfMemory", cause="cuda_oom", message="GPU memory ran out")
    found = soaked(outcome, failure=failure, state=State.PRUNED)
    assert found.decision.kind is Kind.REFUSED
    assert "is refused, it did not survive its soak: GPU memory ran out: keep yours (throughput +" in found.sentence
    terms = found.next_terms()
    assert terms.candidate != found.proofs[0].terms.candidate
    assert terms.alpha == pytest.approx(0.8 * (ALPHA - found.proofs[0].decision.spent))
    assert profile_of(found) is None


def test_a_gain_that_noise_explains_is_not_decided_and_says_what_would_decide(outcome):
    best = iter((0.85, 1.12, 0.95, 1.2))
    base = outcome.relaunches[0].measurement

    def noisy(record):
        factor = next(best) if record.role is Role.CONFIRM_BEST else 1.0
        update = {"output_tokens_per_s": base.output_tokens_per_s * factor}
        return record.model_copy(update={"measurement": record.measurement.model_copy(update=update)})

    found = replace(outcome, relaunches=tuple(map(noisy, outcome.relaunches)))
    assert not found.proven
    assert found.sentence.startswith("Not decided: this machine varied by ")
    assert "measure longer (workload.min_duration_s)" in found.sentence


def test_equal_configurations_have_no_difference(outcome):
    measured = outcome.relaunches[0].measurement
    same = tuple(record.model_copy(update={"measurement": measured}) for record in outcome.relaunches)
    found = replace(outcome, relaunches=same)
    assert found.sentence.startswith("No difference above 2.0%: keep yours.")


def test_a_study_whose_trials_all_lost_says_keep_yours_only_at_its_end(outcome):
    slower = keeping(outcome, lambda r: r.role is Role.BASELINE or r.failure)
    assert slower.sentence == "So far the deployed configuration has not been beaten."
    asked = outcome.config.model_copy(update={"budget": outcome.config.budget.model_copy(update={"trials": 10})})
    assert (
        "reads better than the deployed configuration within the limits: keep yours"
        in replace(slower, config=asked).sentence
    )


def test_a_near_miss_is_named_with_its_gain_and_its_miss(outcome):
    """Trial 1 as it was, but for a TTFT that reads 2 % over its limit: the noise of one launch may explain that."""
    limit = 1.25 * outcome.readings.level(outcome.baseline.digest, "ttft_p50_ms")
    over = outcome.best.measurement.model_copy(update={"ttft_p50_ms": 1.02 * limit, "output_tokens_per_s": 400.0})
    near = outcome.best.model_copy(update={"measurement": over})
    records = tuple(near if record is outcome.best else record for record in outcome.records)
    found = replace(outcome, records=records, relaunches=())
    assert found.best is not near
    assert [record.number for record in found.near_misses] == [near.number]
    exhausted = found.config.model_copy(update={"budget": found.config.budget.model_copy(update={"trials": 10})})
    said = near_miss(replace(found, config=exhausted), near)
    assert "2.0% over the limit on TTFT p50; not shown either way." in said


def test_only_a_better_reading_whose_limit_is_uncertain_is_worth_another(outcome):
    limit = 1.25 * outcome.readings.level(outcome.baseline.digest, "ttft_p50_ms")

    def reading(throughput, ttft):
        update = {"output_tokens_per_s": throughput, "ttft_p50_ms": ttft}
        return outcome.best.measurement.model_copy(update=update)

    assert outcome.is_near_miss(reading(400.0, 1.02 * limit))
    assert not outcome.is_near_miss(reading(400.0, 3 * limit)), "surely broken"
    assert not outcome.is_near_miss(reading(400.0, 0.5 * limit)), "rather kept"
    assert not outcome.is_near_miss(reading(100.0, 1.02 * limit)), "no better than the best"


def test_the_baselines_controls_tell_noise_and_drift(outcome):
    """Four controls in twelve launches, on a machine that slows down by 1 % a launch."""
    base = outcome.baseline
    records = []
    for number in range(12):
        speed = base.measurement.output_tokens_per_s * 0.99**number * (1.001 if number % 2 else 1)
        of = base if number % 3 == 0 else outcome.best
        update = {"output_tokens_per_s": speed * (1 if of is base else 1.3)}
        measured = base.measurement.model_copy(update=update)
        role = of.role if number in (0, 1, 2) else Role.CONTROL if of is base else Role.SEARCH
        records.append(of.model_copy(update={"number": number, "role": role, "measurement": measured}))
    found = replace(outcome, records=tuple(records), relaunches=())
    scatter = found.readings.scatter("output_tokens_per_s")
    assert scatter.drift == pytest.approx(-0.01, rel=0.05)
    assert scatter.noise.sd < 0.002
    assert found.readings.gains(outcome.best.digest)[0] == pytest.approx(0.3, abs=0.005)
    assert drifts(found)[0].startswith("throughput drifted by −11")


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
    missed = keeping(outcome, lambda r: r.verdict and not outcome.within(r))
    assert "TTFT p50 beyond its limit" in missed.sentence
