"""A study from its first trial to its verdict, on the simulated engine, and what happens when something goes wrong."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter

import optuna
import psutil
import pytest
import tenacity

from tests.fast import FAST
from tests.present import present
from tuner import composing
from tuner.dashboard.storage import optuna_storage
from tuner.engines.base import Phase
from tuner.errors import ConfigError, GpuBusy, InfrastructureError
from tuner.load.records import load_records
from tuner.proof.decision import Kind
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role, State
from tuner.space import Candidate
from tuner.study import events
from tuner.study import loop as study
from tuner.study.assembly import workbench
from tuner.study.loop import StudyStopped, run_study
from tuner.study.plan import plan_of
from tuner.testing.launcher import until
from tuner.trial.assignment import Assignment
from tuner.trial.run import run_trial

pytestmark = pytest.mark.timeout(180)
"""Whole studies: this file is one of the first that are begun."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(study, "_RETRY_WAIT", tenacity.wait_none())


def test_a_study_sends_agents_through_anthropics_endpoint(load):
    agents = "{system_tokens: 200, turns: 3, result_tokens: 30, think_ms: 10, context_tokens: 4000}"
    asked = load("space=none", "workload.endpoint=messages", f"+workload.agents={agents}")
    (record,) = run(asked)[0].records
    assert record.state is State.COMPLETE
    place = StudyFolder(asked.study.path).trial(0)
    with place.requests.open() as lines:
        sent = list(load_records(lines))
    assert {request.request.endpoint.path for request in sent} == {"/v1/messages"}
    assert any(request.request.follows for request in sent)
    assert '"POST /v1/chat/completions' not in place.log.read_text()


def test_a_study_of_an_endpoint_that_its_engine_lacks_launches_nothing(load):
    asked = load("space=none", "workload.endpoint=messages", "hardware.simulated.version=0.10.2")
    with pytest.raises(ConfigError, match=r"vLLM 0\.10\.2 has no /v1/messages: it came with 0\.11\.1"):
        run(asked)
    assert StudyFolder(asked.study.path).records() == []


@pytest.fixture
def load(tmp_path):
    return lambda *overrides: composing.load([*FAST, f"study.folder={tmp_path}/studies", *overrides])


class Heard(list[events.Event]):
    """A listener that remembers."""

    def of(self, kind):
        return [event for event in self if isinstance(event, kind)]

    def __call__(self, event):
        self.append(event)


def run(asked):
    heard = Heard()
    return run_study(asked, heard), heard


def optuna_study(asked):
    folder = StudyFolder(asked.study.path)
    return optuna.load_study(study_name=asked.study.name, storage=optuna_storage(folder, None))


def test_what_was_measured_beside_a_compiling_kernel_is_measured_again(load):
    # sent again, it leaves three tokens that are not cached: a size that the warm-up has not met
    h100 = ("hardware=sim-h100", "hardware.gpus=[0]", "model=glm-flash-h100")
    asked = load(*h100, "space=none", "workload.ttft_prompt_tokens=[2995]")
    (record,) = run(asked)[0].records
    assert [each.stage for each in record.disturbed] == ["ttft_2995, disturbed 1"]
    assert "Triton kernel JIT compilation during inference" in record.disturbed[0].line
    assert "--jit-monitor-verbose" in record.argv
    sent = StudyFolder(asked.study.path).trial(0).requests.read_text()
    assert sent.count('"stage":"ttft_2995, disturbed 1"') == sent.count('"stage":"ttft_2995"') == 2


@pytest.fixture
def stranger():
    """A process that keeps a core busy and is no descendant of ours: its parent ends at once."""
    command = f'"{sys.executable}" -c "while True: pass" >/dev/null 2>&1 & echo $!'
    pid = int(subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout)
    yield
    os.kill(pid, signal.SIGKILL)


def test_a_stage_during_which_others_use_the_cores_is_measured_again(load, stranger):
    judged = "host={judge: true, max_other_cpu: 0.001, max_steal: 1}"
    (record,) = run(load("space=none", "workload.min_duration_s=40", "workload.max_duration_s=60", judged))[0].records
    assert [each.stage for each in record.host][:3] == [
        "concurrent, disturbed 1",
        "concurrent, disturbed 2",
        "concurrent",
    ]
    disturbed = [(each.stage, each.by_others, each.counts) for each in record.disturbed if "concurrent" in each.stage]
    assert disturbed == [
        ("concurrent, disturbed 1", True, False),
        ("concurrent, disturbed 2", True, False),
        ("concurrent", True, True),
    ]
    assert all(each.state.other_cpu_cores > 0 for each in record.host if each.stage == "concurrent")


def test_a_study_leaves_its_evidence_and_comes_back_complete(load):
    asked = load("study.confirm=1", "budget.trials=5")
    outcome, heard = run(asked)
    assert [record.role for record in outcome.searched] == [Role.BASELINE, Role.SEARCH, Role.SEARCH]
    for record in outcome.searched:
        folder = asked.study.path / "trials" / record.label
        assert "vLLM" in (folder / "server.log").read_text()
        assert (folder / "requests.jsonl").exists() == (record.measurement is not None)
    assert len({record.digest for record in outcome.searched}) == 3
    assert {event.phase for event in heard.of(events.PhaseEntered)} >= {"loading weights", "warming up", "measuring"}
    launched = len(heard.of(events.TrialStarted))
    again, heard = run(asked)
    assert len(heard.of(events.TrialStarted)) == 0 < launched
    assert any("complete" in note.text for note in heard.of(events.Noted))
    assert again.sentence == outcome.sentence


def test_a_crash_is_pruned_with_its_line_and_no_value(load):
    asked = load("model.known_good=[{gpu_memory_utilization: 0.96}]", "budget.trials=2", "study.preflight=false")
    outcome, _ = run(asked)
    crashed = outcome.searched[1]
    assert crashed.state is State.PRUNED
    assert crashed.failure.cause == "insufficient_free_memory"
    assert "less than desired GPU memory utilization" in crashed.failure.line
    kept = optuna_study(asked).trials[1]
    assert kept.state is optuna.trial.TrialState.PRUNED
    assert kept.values is None
    assert kept.user_attrs["cause"] == "insufficient_free_memory"
    assert "Free memory on device" in kept.user_attrs["line"]


def test_what_people_see_in_optuna_is_what_was_measured(load):
    asked = load("objective.limits={tpot_p50_ms: {max: 0.001}}", "budget.trials=1")
    outcome, _ = run(asked)
    (trial,) = optuna_study(asked).trials
    assert trial.values == list(outcome.searched[0].verdict.values)
    assert trial.constraints["tpot_p50_ms"] > 0
    assert trial.params["max_num_seqs"] == 64


def test_a_study_in_which_nothing_is_feasible_says_why(load):
    outcome, _ = run(load("objective.limits={tpot_p50_ms: {max: 0.001}}", "budget.trials=2"))
    assert outcome.best is None
    assert "× TPOT p50 beyond its limit" in outcome.sentence


def test_known_good_values_come_right_after_the_baseline(load):
    outcome, _ = run(load("model.known_good=[{max_num_seqs: 16}, {max_num_seqs: 32}]"))
    assert [(r.role, r.params["max_num_seqs"]) for r in outcome.searched] == [
        (Role.BASELINE, 64),
        (Role.KNOWN_GOOD, 16),
        (Role.KNOWN_GOOD, 32),
    ]


def test_a_larger_budget_goes_on_where_the_study_ended(load):
    run(load("budget.trials=1"))
    outcome, heard = run(load("budget.trials=2"))
    assert [event.number for event in heard.of(events.TrialStarted)] == [1]
    assert any("budget.trials: 1 → 2" in note.text for note in heard.of(events.Noted))
    assert len(outcome.searched) == 2
    with pytest.raises(ConfigError, match="fewer than have run"):
        run(load("budget.trials=1"))
    assert composing.read(StudyFolder(outcome.folder.path).config).budget.trials == 2


def test_a_run_of_so_many_minutes_begins_no_launch_that_would_not_end_within_them(load):
    asked = ("budget.trials=6", "study.confirm=1")
    first, heard = run(load(*asked, "budget.run_minutes=0.001"))
    assert [record.role for record in first.searched] == [Role.BASELINE]
    assert any("the same command resumes fast" in note.text for note in heard.of(events.Noted))
    idle, _ = run(load(*asked, "budget.run_minutes=0.001"))
    assert len(idle.launched) == 1
    complete, heard = run(load(*asked, "budget.run_minutes=30"))
    assert complete.over
    assert complete.confirmed
    assert not any("resumes" in note.text for note in heard.of(events.Noted))


def test_a_space_that_is_used_up_ends_the_study(load):
    only_two = [f"space.params.{name}=null" for name in load().space.params if name != "max_num_seqs"]
    outcome, heard = run(load(*only_two, "space.params.max_num_seqs={low: 32, high: 64}", "search=grid"))
    assert len(outcome.searched) == 2
    assert any("no other configuration" in note.text for note in heard.of(events.Noted))
    assert outcome.over, "it is complete, though the budget is not used up"


def test_a_search_that_expects_too_little_ends_before_its_budget_is_used_up(load):
    asked = ("search=auto", "budget.trials=12")
    outcome, heard = run(load(*asked, "budget.min_gain=0.95"))
    assert outcome.over
    assert 1 < len(outcome.launched) < 12
    (said,) = [note.text for note in heard.of(events.Noted) if "budget.min_gain" in note.text]
    assert re.search(r"expected to gain \d.*%, less than budget.min_gain \(95.0%\): the search ends here", said)
    more, _ = run(load(*asked, "budget.min_gain=0", f"budget.trials={len(outcome.launched) + 1}"))
    assert len(more.launched) == len(outcome.launched) + 1, "what ended it is lifted, so it goes on"


def test_an_executable_that_is_not_there_ends_the_study_before_trial_0_and_can_be_mended(load):
    asked = load("engine.executable=[no-such-vllm]")
    with pytest.raises(ConfigError, match=r"(?s)no-such-vllm.*engine\.executable"):
        run(asked)
    assert StudyFolder(asked.study.path).records() == []
    outcome, _ = run(load("budget.trials=1", "objective=latency", "objective.limits=null"))
    assert outcome.baseline is not None


def test_a_baseline_that_does_not_run_stops_the_study_with_its_cause(load):
    asked = load("model.args.gpu_memory_utilization=0.96", "objective.limits={tpot_p50_ms: {max: 1.05, of: baseline}}")
    with pytest.raises(StudyStopped, match="less than desired"):
        run(asked)


def test_a_baseline_that_does_not_run_is_launched_again_and_may_be_mended_under_the_same_name(load):
    limits = "objective.limits={tpot_p50_ms: {max: 1.05, of: baseline}}"
    asked = load("model.args.gpu_memory_utilization=0.96", limits)
    for launches in (1, 2):
        with pytest.raises(StudyStopped, match="less than desired"):
            run(asked)
        assert [record.role for record in StudyFolder(asked.study.path).records()] == [Role.BASELINE] * launches
    StudyFolder(asked.study.path).image.write_text("of the image before")
    outcome, heard = run(load("budget.trials=1", limits))
    assert outcome.baseline is not None
    assert not outcome.folder.image.exists()
    assert [record.number for record in outcome.records] == [0]
    assert any("nothing had been measured" in note.text for note in heard.of(events.Noted))
    assert len(list((asked.study.path / "aside-1" / "trials").iterdir())) == 2


def test_without_a_baseline_the_best_is_named_and_nothing_is_called_proven(load):
    outcome, _ = run(
        load(
            "model.args.gpu_memory_utilization=0.96",
            "model.known_good=[{gpu_memory_utilization: 0.9}]",
            "budget.trials=2",
        )
    )
    assert outcome.baseline is None
    assert outcome.sentence == "The deployed configuration does not run here; trial 1 is the best of those that do."
    assert outcome.confirmed
    assert outcome.relaunches == ()


def test_optunas_database_can_be_removed_and_is_made_anew_from_the_records(load):
    asked = load("budget.trials=2")
    before = [record.params for record in run(asked)[0].records]
    for path in asked.study.path.glob("optuna.db*"):
        path.unlink()
    outcome, _ = run(load("budget.trials=3"))
    assert [record.params for record in outcome.records][:2] == before
    assert [record.number for record in outcome.records] == [0, 1, 2]
    assert len(optuna_study(asked).trials) == 3
    for path in asked.study.path.glob("optuna.db*"):  # a new file: a connection still open would repair the old one
        path.unlink()
    (asked.study.path / "optuna.db").write_bytes(b"no database " * 100)
    with pytest.raises(ConfigError, match=r"(?s)optuna\.db is no database that this Optuna can use.*made anew"):
        run(load("budget.trials=4"))


@pytest.mark.parametrize("url", ["sqlite:////nonexistent/x.db", "postgresql://me:hush@127.0.0.1:1/x", "nonsense"])
def test_a_storage_that_cannot_be_had_is_the_urls_mistake_and_no_password_is_shown(load, url):
    with pytest.raises(ConfigError, match=r"^storage\.url: ") as refused:
        run(load(f"storage.url='{url}'"))
    assert "hush" not in str(refused.value)


def test_a_storage_that_fails_in_mid_study_loses_no_measurement_and_says_what_to_do(load):
    asked = load("budget.trials=2")
    holding = []

    def hindering(event):
        """Somebody else locks the database for good."""
        if isinstance(event, events.PhaseEntered) and event.phase is Phase.MEASURING:
            holding.append(sqlite3.connect(asked.study.path / "optuna.db", isolation_level=None))
            holding[-1].execute("BEGIN IMMEDIATE")

    with pytest.raises(
        InfrastructureError, match=r"(?s)the study's storage refuses: .*locked.*the same command resumes"
    ):
        run_study(asked, hindering)
    holding[0].close()
    assert [record.number for record in StudyFolder(asked.study.path).records()] == [0]
    outcome, heard = run(asked)
    assert [event.number for event in heard.of(events.TrialStarted)] == [1]
    assert len(optuna_study(asked).trials) == len(outcome.records) == 2


def test_a_space_without_parameters_is_one_launch(load):
    outcome, _ = run(load("space=none"))
    assert [record.role for record in outcome.records] == [Role.BASELINE]
    assert outcome.over
    assert plan_of(load("space=none", "study.name=planned")).launches == 1


def test_a_configuration_that_dies_twice_alike_is_blamed_only_while_the_baseline_runs(load):
    asked = load(
        "model.known_good=[{max_num_seqs: 32}]",
        "engine.launch_args.sim_fault=['crash-at=graphs@max_num_seqs=32']",
        "budget.trials=2",
    )
    outcome, _ = run(asked)
    blamed = outcome.searched[1]
    assert blamed.state is State.PRUNED
    assert "unexplained" in blamed.failure.message
    assert [record.role for record in outcome.records].count(Role.CONFIRM_BASELINE) == 1


def test_an_engine_that_dies_under_load_is_no_measurement(load):
    asked = load(
        "model.known_good=[{max_num_seqs: 32}]",
        "engine.launch_args.sim_fault=['die-after=8@max_num_seqs=32']",
        "budget.trials=2",
    )
    outcome, _ = run(asked)
    dead = [record for record in outcome.records if record.params["max_num_seqs"] == 32]
    assert dead
    assert all(record.measurement is None and record.failure.cause == "engine_died" for record in dead)


def test_a_silent_fallback_that_the_baseline_does_not_show_is_pruned_and_one_that_it_shows_is_not(load):
    asked = load(
        "hardware.simulated.version='0.10'",
        "model.known_good=[{max_num_seqs: 32}]",
        "engine.launch_args.sim_fault=['v0-fallback@max_num_seqs=32']",
        "budget.trials=2",
    )
    outcome, _ = run(asked)
    assert outcome.searched[1].failure.cause == "v0_fallback"
    assert "V0" in outcome.searched[1].failure.line
    everywhere = load(
        "study.name=v0",
        "hardware.simulated.version='0.10'",
        "engine.launch_args.sim_fault=[v0-fallback]",
        "budget.trials=1",
    )
    assert run(everywhere)[0].baseline is not None


def test_what_ran_otherwise_than_asked_is_marked_and_the_search_stops_spending_on_what_does_nothing(load):
    only = [f"space.params.{name}=null" for name in load().space.params if name not in ("block_size", "max_num_seqs")]
    asked = load(
        *only,
        "space.params.max_num_seqs={high: 64}",
        "engine.launch_args.sim_fault=['silent-change=block_size:16']",
        "search=random",
        "budget.trials=6",
    )
    outcome, heard = run(asked)
    requested = [record.params["block_size"] for record in outcome.searched]
    overridden = [s for record in outcome.searched for s in record.effective if s.name == "block_size"]
    assert {setting.effective for setting in overridden} == {16}
    assert "overridden" in {setting.status for setting in overridden}
    assert any("block_size does nothing here" in note.text for note in heard.of(events.Noted))
    told = next(n for n in range(len(requested)) if len(set(map(str, requested[: n + 1])) - {"None"}) == 2)
    assert requested[told + 1 :] == [None] * (5 - told)


def test_a_relaunch_that_the_machine_disturbs_is_made_again_and_decides_nothing(load):
    """A server killed from outside says nothing of the winner: the relaunch is repeated, as a trial is."""
    # one at a time against five at once, slowly enough that no noise makes up for it
    asked = load(
        "engine.clock_scale=12",
        "workload.requests=10",
        "model.args.max_num_seqs=1",
        "model.known_good=[{max_num_seqs: 64}]",
        "budget.trials=4",
        "study.confirm=1",
    )

    heard = Heard()

    def disturbing(event):
        heard(event)
        measuring = isinstance(event, events.PhaseEntered) and event.phase is Phase.MEASURING
        latest = heard.of(events.TrialStarted)[-1] if measuring else None
        if latest and (latest.role, latest.attempt) == (Role.CONFIRM_BEST, 1):
            for server in servers():
                os.kill(server, signal.SIGKILL)

    outcome = run_study(asked, disturbing)
    best = [(r.attempt, r.state) for r in outcome.relaunches if r.role is Role.CONFIRM_BEST]
    assert best == [(1, State.FAILED), (2, State.COMPLETE)]
    assert present(outcome.decision).died == ()
    assert present(outcome.decision).goals["output_tokens_per_s"].gain > 0
    assert any("for a reason outside its configuration" in note.text for note in heard.of(events.Noted))


def test_a_relaunch_that_dies_without_a_reason_counts_against_its_configuration(load, tmp_path):
    """The server ends by itself, with a status that nothing explains, in its second launch of the finalist."""
    count = tmp_path / "launches"
    script = (
        f'echo x >> {count}; case "$*" in *"--max-num-seqs 64"*) '
        f'[ $(wc -l < {count}) -gt 2 ] && exit 3;; esac; exec {sys.executable} -m tuner.sim serve "$@"'
    )
    outcome, _ = run(
        load(
            f"engine.executable=[sh, -c, '{script}', sh]",
            "engine.clock_scale=12",
            "workload.requests=10",
            "model.args.max_num_seqs=1",
            "model.known_good=[{max_num_seqs: 64}]",
            "budget.trials=10",
            "study.confirm=4",
        )
    )
    assert [r.state for r in outcome.relaunches if r.role is Role.CONFIRM_BEST] == [State.PRUNED]
    assert outcome.decision.kind is Kind.NOT_DECIDED
    assert "is not to be relied on: a relaunch died" in outcome.sentence
    assert not outcome.folder.profile.exists()


def test_two_processes_never_run_one_study(load):
    asked = load()
    with StudyFolder(asked.study.path).locked(), pytest.raises(InfrastructureError, match=str(os.getpid())):
        run(asked)


def test_two_studies_never_share_a_gpu_not_even_between_two_launches(load):
    first = load("study.name=first", "hardware.gpus=[0,1]")
    with workbench(first), pytest.raises(GpuBusy, match=r"GPU 1 is held by study first \(process \d+\)"):
        run(load("hardware.gpus=[1]"))


def test_the_relaunches_decide_and_not_the_search(load):
    outcome, _ = run(load("study.confirm=2", "budget.trials=8", "model.known_good=[{max_num_seqs: 32}]"))
    assert outcome.improved
    roles = Counter(record.role for record in outcome.relaunches)
    assert roles == {Role.CONFIRM_BASELINE: 2, Role.CONFIRM_BEST: 2}
    assert outcome.decision.launches == 2
    assert not outcome.proven, "two launches of each prove nothing"
    seeds = [record.seed for record in (*outcome.records, *outcome.relaunches)]
    assert len(set(seeds)) == len(seeds)


def test_the_deployed_configuration_is_launched_again_as_a_control(load):
    outcome, _ = run(load("budget.trials=7", "study.control_every=2"))
    controls = [record for record in outcome.launched if record.role is Role.CONTROL]
    assert [outcome.launched.index(record) for record in controls] == [3, 6]
    assert outcome.readings.scatter("output_tokens_per_s").noise is not None
    assert all(record.measurement and record.digest == outcome.readings.deployed for record in controls)


def command(load_overrides, tmp_path):
    arguments = [*FAST, f"study.folder={tmp_path}/studies", *load_overrides]
    return [sys.executable, "-m", "tuner", "study", "start", *arguments]


@pytest.fixture
def interrupted(tmp_path, state_dir):
    """A study in a process of its own, caught while its second trial's server is up."""
    process = subprocess.Popen(command(["budget.trials=4"], tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    first, second = (
        tmp_path / "studies" / "fast" / "trials" / f"000{n}" / name
        for n, name in ((0, "record.json"), (1, "server.log"))
    )
    until(lambda: first.exists() and second.exists(), 60)
    until(servers, 10)  # its trace is there before it
    yield process
    process.kill()
    process.communicate()


def servers():
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or [])
        if "tuner.sim" in line and os.environ["TUNER_STATE_DIR"] == (process.info["environ"] or {}).get(
            "TUNER_STATE_DIR"
        ):
            found.append(process.pid)
    return found


def test_kill_9_loses_no_finished_trial_and_leaves_no_server(interrupted, load, tmp_path):
    assert servers()
    interrupted.send_signal(signal.SIGKILL)
    interrupted.wait()
    until(lambda: not servers(), 5)
    asked = load("budget.trials=4")
    outcome, heard = run(asked)
    assert len(outcome.searched) == 4
    assert 0 not in [event.number for event in heard.of(events.TrialStarted)]
    states = [trial.state.name for trial in optuna_study(asked).trials]
    assert "RUNNING" not in states
    assert states.count("FAIL") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly_and_says_how_to_go_on(interrupted, number):
    interrupted.send_signal(number)
    output, _ = interrupted.communicate(timeout=30)
    assert interrupted.returncode == 130
    assert "resumes" in output.decode()
    assert "Traceback" not in output.decode()
    assert not servers()


def test_json_output_is_one_event_a_line(tmp_path):
    done = subprocess.run(
        [*command(["budget.trials=1"], tmp_path), "--json"], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["event"] == "StudyStarted"
    assert lines[-1]["event"] == "StudyEnded"
    assert lines[-1]["sentence"] in done.stderr
    assert {line["event"] for line in lines} >= {"TrialStarted", "PhaseEntered"}


def test_a_study_with_nothing_feasible_exits_non_zero(tmp_path):
    arguments = command(["budget.trials=1", "objective.limits={tpot_p50_ms: {max: 0.001}}"], tmp_path)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No configuration could be used" in done.stderr


def test_outcome_is_read_from_the_folder_alone(load):
    asked = load("budget.trials=1")
    outcome, _ = run(asked)
    assert Outcome.of(StudyFolder(asked.study.path)).sentence == outcome.sentence


def test_a_study_resumes_after_its_space_was_narrowed_and_keeps_what_was_measured(load):
    narrow = ("space.params.block_size.choices=[16,32]", "space.params.max_num_seqs=null")
    before, _ = run(load("budget.trials=4"))
    tried = [record.params for record in before.records]
    after, heard = run(load("budget.trials=6", *narrow))
    assert [record.params for record in after.records][: len(tried)] == tried
    assert Role.BASELINE not in [record.role for record in after.records[len(tried) :]]
    fresh = [record for record in after.records[len(tried) :] if record.role is Role.SEARCH]
    assert {record.params["max_num_seqs"] for record in fresh} == {64}
    assert {record.params["block_size"] for record in fresh} <= {16, 32, None}  # unset, as deployed, is 16
    assert any("no longer searched" in note.text for note in heard.of(events.Noted))
    again, _ = run(load("budget.trials=7", *narrow))
    assert len(again.launched) == 7


def test_what_a_killed_tuner_had_begun_to_write_is_swept_away(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    drafts = [folder.path / ".config.yaml.tmp", folder.trial(0).path / ".record.json.tmp"]
    for draft in drafts:
        draft.write_text("half")
    with folder.locked():
        assert not any(draft.exists() for draft in drafts)


def test_what_a_killed_launch_had_measured_is_not_the_next_ones(load):
    asked = load("space=none", "model.args.max_model_len=999999")
    requests = StudyFolder(asked.study.path).trial(0).requests
    requests.write_text("of a launch that was killed before it had a record")
    run(asked)
    assert not requests.exists()


def test_a_near_miss_is_measured_once_more_in_the_same_launch(load):
    asked = load("space=none")
    folder = StudyFolder(asked.study.path)
    assignment = Assignment(
        study="fast",
        number=0,
        role=Role.SEARCH,
        candidate=Candidate({}),
        settings=asked.model.settings,
        seed=7,
        worth_again=lambda measurement: present(measurement.output_tokens_per_s) > 0,
    )
    with workbench(asked) as (bench, _):
        record = run_trial(assignment, bench, folder.trial(0), lambda phase: None)
    sent = list(load_records(folder.trial(0).requests.read_text().splitlines()))
    stages = {request.stage for request in sent}
    assert {"concurrent", "single_user", "concurrent, again", "single_user, again"} <= stages
    assert len({request.request.seed for request in sent}) == len(sent), "fresh prompts"
    assert len([span for span in record.phases if span.phase is Phase.STARTING]) == 1
    once = sum(request.completed for request in sent if not request.stage.endswith("again"))
    assert present(record.measurement).completed == sum(request.completed for request in sent) > once
