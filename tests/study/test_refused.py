"""However fast a finalist is: one that answers less rightly, or does not last, is not exported."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from tests.fast import FAST
from tests.present import present
from tuner import composing
from tuner.cli import app
from tuner.engines.base import Phase
from tuner.export.profile import read_profile
from tuner.proof.decision import Kind
from tuner.records import verdict
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State
from tuner.space import Candidate
from tuner.study.assembly import workbench
from tuner.study.loop import run_study
from tuner.study.plan import plan_of
from tuner.terminal.closing import write_results
from tuner.trial.assignment import Assignment
from tuner.trial.run import run_trial

CASES = """
name: calls
cases:
  weather:
    prompt: "What is the weather in {place} on day {day}?"
    each: {place: [Oslo, Rome, Lima, Bern, Riga, Cairo], day: ["1", "2", "3", "4", "5", "6", "7", "8"]}
    tools:
      - {name: get_weather, parameters: {type: object, properties: {place: {type: string}}, required: [place]}}
    call: {name: get_weather}
    max_tokens: 100
"""
BROKEN = "engine.launch_args.sim_fault"
# one at a time against five at once, so that the finalist is better beyond doubt
STUDY = (
    *("engine.clock_scale=20", "workload.requests=10", "model.args.max_num_seqs=1"),
    *("model.known_good=[{max_num_seqs: 64}]", "study.confirm=4", "objective.guard=null"),
)


@pytest.fixture
def load(tmp_path):
    (tmp_path / "mine/quality").mkdir(parents=True)
    (tmp_path / "mine/quality/calls.yaml").write_text(CASES)
    fixed = [*FAST, f"study.folder={tmp_path}/studies", *STUDY]
    return lambda *overrides: composing.load([*fixed, *overrides], tmp_path / "mine")


def told(outcome):
    """What `tuner study status --json` says."""
    config = outcome.config.study
    done = CliRunner().invoke(app, ["study", "status", config.name, "--folder", str(config.folder), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.mark.timeout(300)
def test_a_finalist_that_corrupts_calls_is_refused_after_one_pair_of_launches(load):
    asked = load("quality=calls", "budget.trials=10", f"{BROKEN}='corrupt-tools=40@max_num_seqs=64'")
    outcome = run_study(asked, lambda event: None)
    assert present(outcome.decision).kind is Kind.REFUSED
    assert Counter(record.role for record in outcome.relaunches) == {Role.CONFIRM_BASELINE: 1, Role.CONFIRM_BEST: 1}
    assert present(outcome.decision).spent == 0.0, "what is left of the error goes to a runner-up"
    assert "is refused, it answers less rightly: tool calls (" in outcome.sentence
    assert [each.name for each in outcome.folder.path.glob("profile.yaml")] == []
    assert [path.name for path in write_results(outcome)] == ["report.html"]
    assert "the arguments are no JSON" in outcome.folder.report.read_text()
    assert (told(outcome)["kind"], told(outcome)["proven"]) == ("refused", False)
    assert all(len(present(record.answers).completions) == 48 for record in outcome.relaunches)
    assert run_study(asked, lambda event: None).sentence == outcome.sentence, "it is complete"


@pytest.mark.timeout(300)
def test_a_sound_finalist_is_asked_once_soaked_and_exported(load):
    asked = load("quality=calls", "study.soak_min=1", "budget.trials=11")
    plan = plan_of(asked).text
    assert "are asked 48 questions (calls) after their load, about 1 s each" in plan
    assert "soak: the winner is launched once more, under load for up to 3 s" in plan
    assert "2 launches" not in plan
    outcome = run_study(asked, lambda event: None)
    assert outcome.proven, outcome.sentence
    asked_of = Counter(record.role for record in outcome.relaunches if record.answers)
    assert asked_of == {Role.CONFIRM_BASELINE: 2, Role.CONFIRM_BEST: 1}
    (soak,) = (record for record in outcome.relaunches if record.role is Role.SOAK)
    assert (soak.state, soak.digest) == (State.COMPLETE, present(outcome.chosen).digest)
    rounds = present(soak.soak).rounds
    assert sum(each.seconds for each in rounds) >= 30, "half of its time at least, however slow the machine is"
    assert present(present(soak.soak).turnover) > 0
    assert f"concurrent, soak {len(rounds)}" in outcome.folder.confirmation(soak.number).requests.read_text()
    write_results(outcome)
    profile = read_profile(outcome.folder.profile)
    assert profile.verdict.decision.soak == soak.soak
    assert [family.right for family in present(profile.verdict.decision.answers).families][:1] == [(48, 48)]
    report = outcome.folder.report.read_text()
    assert "Answers, tool calls: 48 of 48 right, deployed 48" in report
    assert f"Soak: {present(soak.soak).told}" in report
    assert told(outcome)["soak"] == verdict.soak(outcome)


@pytest.mark.timeout(300)
def test_a_winner_that_dies_in_its_soak_is_not_exported(load):
    asked = load("study.soak_min=5", "budget.trials=11", f"{BROKEN}='die-after=600@max_num_seqs=64'")
    outcome = run_study(asked, lambda event: None)
    assert present(outcome.decision).kind is Kind.REFUSED
    assert "is refused, it did not survive its soak: " in outcome.sentence
    (soak,) = (record for record in outcome.relaunches if record.role is Role.SOAK)
    assert soak.state is State.PRUNED
    assert present(soak.soak).rounds, "what it lived to see is kept"
    assert not outcome.folder.profile.exists()
    assert run_study(asked, lambda event: None).relaunches == outcome.relaunches


@pytest.mark.parametrize(
    ("fault", "said"), [("slows=40", "its TPOT grew by "), ("preempts=200", " preemptions came on "), (None, None)]
)
@pytest.mark.timeout(120)
def test_a_server_that_does_worse_and_worse_does_not_last(tmp_path, fault, said):
    broken = [f"{BROKEN}={fault!r}"] if fault else []
    asked = composing.load([*FAST, f"study.folder={tmp_path}/studies", "space=none", "engine.clock_scale=12", *broken])
    settings, folder = asked.model.settings, StudyFolder(asked.study.path)
    phases = list[Phase]()
    with workbench(asked) as (bench, _):
        assignment = Assignment("fast", 0, Role.SOAK, Candidate({}), settings, seed=7, soak_s=7.0)
        record = run_trial(assignment, bench, folder.confirmation(0), phases.append)
    assert record.state is State.COMPLETE
    assert Phase.SOAKING in phases
    assert present(present(record.soak).kv_tokens) > 0
    found = present(record.soak).faults
    assert any(said in each for each in found) if said else found == ()
