"""The studies in studies/recorded: a real GPU's trials are still read, and still foreseen."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.vllm.real import GLM, model_of
from tuner.dashboard.notes import trial_note
from tuner.engines.vllm.foresight import VllmForesight
from tuner.foresight.preflight import Preflight, ground_of
from tuner.host.state import GpuState, HostState, StageHost
from tuner.load.records import DisturbedStage
from tuner.premises import make_engine
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role
from tuner.space import Candidate

RECORDED = Path(__file__).parents[2] / "studies" / "recorded"
GPU = {"total_gib": 139.8, "compute_capability": "9.0", "multiprocessors": 132}


def recorded(name):
    return Outcome.of(StudyFolder(RECORDED / name))


@pytest.fixture(scope="module", params=["h200", "h200-unproven"])
def outcome(request):
    return recorded(request.param)


@pytest.fixture(scope="module")
def known(outcome):
    """What the records teach, on a machine that has no such GPU and not this model's files."""
    return what_is_known(outcome)


def what_is_known(outcome, cards=1):
    hardware = outcome.config.hardware.model_copy(
        update={"gpus": (), "simulated": {"count": cards}, "gpu": type(outcome.config.hardware.gpu).model_validate(GPU)}
    )
    engine = outcome.config.engine.model_copy(update={"version": "0.26.0"})
    config = outcome.config.model_copy(update={"hardware": hardware, "engine": engine})
    ground = ground_of(config, make_engine(config))
    assert isinstance(ground.foresight, VllmForesight)
    ground = replace(ground, foresight=replace(ground.foresight, model=model_of(GLM, 12)))
    return lambda records: Preflight(ground, ()).after(records)


def test_a_study_that_was_broken_off_is_read():
    outcome = recorded("h200")
    assert len(outcome.launched) == 9
    assert "Trial 7 read +5.8% and 0.6% over the limit on TPOT p50; not shown either way." in outcome.sentence


def test_a_gain_at_first_sight_did_not_survive_the_relaunches():
    outcome = recorded("h200-unproven")
    (goal,) = outcome.decision.goals.values()
    seen = outcome.best.measurement.output_tokens_per_s / outcome.baseline.measurement.output_tokens_per_s - 1
    assert seen > 0.15
    assert goal.gain < 0
    assert not outcome.proven
    assert outcome.sentence.startswith("Not decided: 1 launch of each tells nothing, whatever it reads")


def test_kernels_compiled_in_mid_load_were_noticed_and_the_stages_sent_again():
    disturbed = {
        record.number: [each.stage for each in record.disturbed] for record in recorded("h200-unproven").records
    }
    assert {number: stages for number, stages in disturbed.items() if stages} == {
        3: ["single_user, spoiled 1", "ttft_5000, spoiled 1"],
        5: ["concurrent, spoiled 1", "single_user, spoiled 1"],
        6: ["single_user, spoiled 1", "single_user, spoiled 2", "single_user"],
    }


def test_the_note_says_which_turn_of_a_disturbed_stage_counts():
    outcome = recorded("h200-unproven")
    note = trial_note(outcome, outcome.records[-1])
    assert "during *single_user, spoiled 2*; it was sent again" in note
    assert "during *single_user*; it counts all the same" in note


def test_the_note_says_how_the_machine_was_in_each_stage():
    outcome = recorded("h200-unproven")
    gpu = GpuState(0, sm_clock_mhz=1980, power_w=512.4, throttle_reasons=("sw_power_cap",), other_utilization=0.2)
    busy = HostState(seconds=10, cores=16, cpu_busy_share=0.4, other_cpu_cores=4, gpus=(gpu,))
    line = "other processes used GPU 0 for 20% of the time"
    disturbed = outcome.records[0].model_copy(
        update={
            "host": (StageHost("concurrent", busy), StageHost("tool_call", HostState(seconds=0.1))),
            "disturbed": (DisturbedStage("concurrent", line, counts=True, by_others=True),),
        }
    )
    note = trial_note(outcome, disturbed)
    assert "| concurrent | 40.0% | 25.0% | not known | 0: 1980 MHz, 512 W, others 20%, sw_power_cap |" in note
    assert "| tool_call | not known | not known | not known | not known |" in note
    assert "Others used this machine during *concurrent*; it counts all the same" in note
    assert line in note


def test_no_trial_that_ran_is_ruled_out(outcome, known):
    for number, record in enumerate(outcome.records):
        assert known(outcome.records[:number]).check(Candidate(record.params)) is None


def test_its_kv_cache_is_foreseen(outcome, known):
    """Within 1 % by the formulas alone, as the issue's 3 % asks; later ones within 0.8 %, most of them within 0.2 %."""
    errors = []
    for number, record in enumerate(outcome.records):
        forecast = known(outcome.records[:number]).forecast(Candidate(record.params))
        errors.append(abs(forecast.kv_tokens / record.facts.kv_tokens - 1))
    assert errors[0] < 0.01
    assert max(errors[1:]) < 0.008
    assert sorted(errors[1:])[len(errors) // 2] < 0.002


@pytest.mark.parametrize(("name", "launches"), [("h200-glm47flash", 3), ("h200-glm47flash-b", 1)])
def test_what_a_launch_takes_of_the_card_was_foreseen(name, launches):
    records = recorded(name).records
    assert len(records) == launches
    for record in records:
        assert record.forecast.weights_gib == pytest.approx(record.facts.weights_gib, rel=0.001)
        assert record.forecast.graph_gib == pytest.approx(record.facts.graph_gib, rel=0.01)
        assert record.forecast.kv_gib == pytest.approx(record.facts.kv_cache_gib, rel=0.006)


def test_two_replicas_share_the_experts_out_whether_whole_or_cut():
    """Read as if each held all of them, the second launch's weights were 6.2 GiB more than they took."""
    outcome = recorded("h200x2")
    tensor, data, whole = outcome.records
    assert (data.params["data_parallel_size"], data.params["enable_expert_parallel"]) == (2, None)
    known = what_is_known(outcome, cards=2)
    for number, record in enumerate((tensor, data, whole)):
        forecast = known(outcome.records[:number]).forecast(Candidate(record.params))
        assert forecast.weights_gib == pytest.approx(record.facts.weights_gib, rel=0.002)
        assert forecast.kv_gib == pytest.approx(record.facts.kv_cache_gib, rel=0.01)


def test_answers_that_a_parser_held_back_have_no_tpot_and_stop_a_study_whose_objective_needs_it():
    held, streamed = recorded("h200-glm47flash"), recorded("h200-glm47flash-b")
    assert {record.measurement.numbers.get("tpot_p50_ms") for record in held.records} == {None}
    assert all(record.failure.error == "MeasurementError" for record in held.records)
    assert streamed.baseline.measurement.numbers["tpot_p50_ms"] == pytest.approx(1.71, abs=0.01)
    assert streamed.baseline.measurement.tokens_per_chunk < 1.1 < held.records[0].measurement.tokens_per_chunk


def test_a_proof_that_was_too_short_says_so_and_not_that_the_machine_varied():
    """Three launches of each on an H200, all 47 layers: the first proof on a real GPU."""
    outcome = recorded("h200-47")
    assert outcome.decision.too_few
    assert "3 launches of each tell nothing, whatever they read" in outcome.sentence
    assert "study.confirm.max=4 or more" in outcome.sentence


def test_users_in_step_do_not_make_a_steady_machine_look_noisy():
    """Its relaunches scatter by 0.8 %; the interval of each launch, over rounds of its users, has to say as much."""
    assert 0.005 < recorded("h200-47").readings.within("output_tokens_per_s") < 0.025


def test_a_gain_on_a_real_gpu_is_told_with_what_nobody_had_limited():
    """24 layers on an H200: fewer graphs cost the first token of one user, and the guard says so."""
    outcome = recorded("h200-budget")
    assert outcome.decision.kind == "limit_not_shown"
    assert outcome.decision.low > 0.1
    assert "TTFT p50 of one user" in outcome.sentence
    assert "objective.guard" in outcome.sentence
    soaked = [record for record in outcome.relaunches if record.role is Role.SOAK]
    assert len(soaked) == 1


def test_energy_was_read_from_the_gpu_in_whole_launches():
    launches = (*recorded("h200-budget").records, *recorded("h200-budget").relaunches)
    assert all(0.24 < record.measurement.named["energy_per_token_j"] < 0.28 for record in launches)
