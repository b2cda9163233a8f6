"""The end of a study, and where one stands: closing table, ``study status``, ``list``, ``export``."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from statistics import fmean

import pytest
from rich.console import Console

from tests.present import present
from tests.simulated import simulated_study
from tuner import words
from tuner.analysis import frames as analysis
from tuner.engines.ceilings import Ceilings
from tuner.export.profile import profile_of
from tuner.load.counters import EngineCounters
from tuner.load.records import DisturbedStage, FailureKind
from tuner.records import verdict
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State
from tuner.report import report_html
from tuner.search.base import Expectation
from tuner.study.minimal import effects_of
from tuner.terminal import closing
from tuner.testing.launcher import until


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 20)


@pytest.fixture(scope="module")
def folder(outcome):
    return outcome.folder.path.parent


def shown(renderable, width=120):
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return " ".join(out.getvalue().split())


def tuner(*arguments):
    return subprocess.run([sys.executable, "-m", "tuner", *arguments], capture_output=True, text=True, check=False)


def test_closing_writes_report_and_profile_and_says_where_they_lie(outcome):
    out = io.StringIO()
    closing.close(outcome, Console(file=out, width=120))
    said = out.getvalue()
    assert outcome.sentence in said
    for path in (outcome.folder.profile, outcome.folder.report):
        assert path.exists()
        assert str(path) in said


def test_the_table_shows_the_relaunches_and_never_the_searchs_own_reading(outcome):
    said = shown(closing.table(outcome))
    goal = outcome.decision.goals["output_tokens_per_s"]
    assert f"deployed throughput {fmean(goal.baseline):.0f} tokens/s" in said
    assert f"best trial {outcome.best.number}: throughput {fmean(goal.candidate):.0f} tokens/s" in said
    interval = f"[+{goal.low:.1%}, +{goal.high:.1%}]"
    assert f"relaunched throughput +{goal.gain:.1%} {interval}, over 4 launches of each (better)" in said
    assert "limits TPOT p50 (× 0." in said
    assert "now complete" in said


def test_what_each_change_earns_is_in_the_table_in_json_and_in_the_profile(outcome):
    effects = present(effects_of(outcome))
    said = shown(closing.table(outcome))
    (kept,) = effects.kept
    gain = kept.goals["output_tokens_per_s"]
    assert f"changed {outcome.config.space.changed(outcome.chosen.params, outcome.deployed)} " in said
    assert f"earns compile_sizes unset → {words.value(kept.value)}: throughput +{gain.gain:.1%} [" in said
    assert f"No other change of trial {outcome.best.number} is shown to earn more than 1.0%: " in said
    assert "excludes less than 1.0% (study.min_effect); with this study's launches that takes about" in said
    assert closing.summary(outcome)["effects"] == effects.model_dump(mode="json")
    assert {each.name for each in effects.settings if each.resolved} == {"compile_sizes"}
    profile = present(profile_of(outcome))
    assert profile.effects == effects
    assert profile.args["compilation_config"] == {"compile_sizes": kept.value}
    assert profile.args["max_num_batched_tokens"] == outcome.config.model.args["max_num_batched_tokens"]


def test_what_got_worse_stands_under_the_verdict(outcome):
    kv = {"kv_tokens": 200_000.0}
    relaunches = tuple(
        record.model_copy(
            update={"measurement": record.measurement.model_copy(update={"kv_tokens": 0.9**best * kv["kv_tokens"]})}
        )
        for record in outcome.relaunches
        for best in [record.role is Role.CONFIRM_BEST]
    )
    out = io.StringIO()
    worse = replace(outcome, relaunches=relaunches)
    assert worse.proven
    closing.close(worse, Console(file=out, width=120))
    said = out.getvalue()
    assert said.index("What got worse: KV cache −10.0%") > said.index(outcome.sentence[:20])
    assert "What got worse: KV cache −10.0%" in report_html(worse)


def test_a_verdict_to_keep_yours_leaves_no_profile(outcome):
    closing.write_results(outcome)
    assert outcome.folder.profile.exists()
    equal = outcome.relaunches[0].measurement
    same = replace(outcome, relaunches=tuple(r.model_copy(update={"measurement": equal}) for r in outcome.relaunches))
    closing.write_results(same)
    assert not outcome.folder.profile.exists()
    closing.write_results(outcome)


def test_a_profile_of_which_a_limit_is_not_shown_is_marked(outcome):
    last = [record for record in outcome.relaunches if record.role is Role.CONFIRM_BEST][-1]
    slow = last.model_copy(update={"measurement": last.measurement.model_copy(update={"ttft_p50_ms": 30_000.0})})
    doubted = replace(outcome, relaunches=tuple(slow if r is last else r for r in outcome.relaunches))
    verdicts = [present(profile_of(each)).verdict for each in (outcome, doubted)]
    assert [(each.kind, each.deploy) for each in verdicts] == [("better", True), ("limit_not_shown", False)]


def test_of_several_goals_the_recommended_trade_is_named_with_its_reason(tmp_path):
    outcome = simulated_study(tmp_path, 12, "objective=pareto", "study.confirm.max=0")
    base = outcome.baseline.measurement
    tried = [record for record in outcome.searched if record.measurement and record is not outcome.baseline][:2]

    def reading(record, throughput, tpot):
        update = {"output_tokens_per_s": throughput * base.output_tokens_per_s, "tpot_p50_ms": tpot * base.tpot_p50_ms}
        return record.model_copy(update={"measurement": base.model_copy(update=update)})

    front = (reading(tried[0], 1.9, 0.9), reading(tried[1], 1.2, 0.6))
    found = replace(outcome, records=(outcome.baseline, *front))
    said = present(verdict.trade(found))
    assert said.startswith(f"trial {front[0].number} is recommended of the front, for the largest sum of both gains")
    assert "(throughput +90.0%, TPOT p50 −10.0% as the search read them)" in said
    assert said.endswith(f"worse in another: trial {front[1].number}")
    assert said in shown(closing.table(found), 2000)


def test_less_latency_reads_as_less(tmp_path):
    outcome = simulated_study(tmp_path, 12, "objective=latency")
    goal = outcome.decision.goals["tpot_p50_ms"]
    assert goal.better
    assert f"TPOT p50 −{goal.gain:.1%} [−{goal.high:.1%}, −{goal.low:.1%}]" in outcome.sentence


def test_the_table_counts_failures_by_cause_with_a_deciding_line(outcome):
    dead = sum(record.failure is not None for record in outcome.records)
    assert f"cannot run {dead} × asks for more GPU memory than is free: ValueError: Free memory on device" in shown(
        closing.table(outcome)
    )


def test_a_deciding_line_is_shown_without_its_loggers_prefix(outcome):
    number = next(record.number for record in outcome.records if record.failure)
    prefix = "(Worker_TP0_EP0 pid=8745) ERROR 11-22 20:00:17 [multiproc_executor.py:772] "
    record = outcome.records[number]
    failure = record.failure.model_copy(update={"line": prefix + record.failure.line})
    records = [*outcome.records]
    records[number] = record.model_copy(update={"failure": failure})
    said = shown(closing.table(replace(outcome, records=tuple(records))))
    assert "multiproc_executor" not in said
    assert "Free memory on device" in said


def test_what_was_ruled_out_before_a_launch_is_told_apart_from_what_failed(outcome):
    records = [r.model_copy(update={"launched": False}) if r.failure else r for r in outcome.records]
    ruled = replace(outcome, records=tuple(records))
    assert "cannot run" not in shown(closing.table(ruled))
    assert f"ruled out {len(ruled.ruled_out)} × asks for more" in shown(closing.table(ruled))
    assert closing.summary(ruled)["finished"] == 20 - len(ruled.ruled_out)
    assert closing.summary(ruled)["ruled_out"] == len(ruled.ruled_out)


def test_an_interrupted_study_says_how_to_go_on_and_how_long_it_takes(outcome):
    halfway = replace(outcome, records=outcome.records[:10], relaunches=())
    said = shown(closing.table(halfway))
    assert "not running; `tuner study start` with the same arguments resumes it" in said
    assert "left" in said
    left_s = closing.summary(halfway)["left_s"]
    assert isinstance(left_s, float)
    assert left_s > 0


def test_failed_attempts_do_not_count_as_trials(outcome):
    failed = outcome.records[1].model_copy(update={"state": State.FAILED, "measurement": None, "verdict": None})
    assert closing.summary(replace(outcome, records=(*outcome.records, failed)))["finished"] == 20


def test_a_running_study_is_shown_as_running(outcome):
    with outcome.folder.locked():
        assert closing.standing(outcome).startswith("running (process ")
    assert closing.standing(outcome) == "complete"


def test_status_says_the_same_to_people_and_to_programs(outcome, folder):
    for_people, for_programs = (tuner("study", "status", "--folder", str(folder), *more) for more in ([], ["--json"]))
    assert outcome.sentence in for_people.stdout
    status = json.loads(for_programs.stdout)
    assert status["sentence"] == outcome.sentence
    assert status["best"] == outcome.best.number
    assert status["proven"] is True
    assert "\x1b" not in for_people.stdout


def test_status_says_of_each_launch_what_was_expected_and_what_held_it_back(outcome):
    measured = [record for record in outcome.launched if record.measurement]
    read_per_s = measured[1].measurement.output_tokens_per_s
    counted = measured[1].measurement.model_copy(
        update={"engine": EngineCounters(readings=5, running_mean=4.0, waiting_mean=0.0)}
    )
    expected = Expectation(why="exploit", value=0.8 * read_per_s, low=0.7 * read_per_s, high=0.9 * read_per_s)
    ceilings = Ceilings(tokens_per_s=4 * read_per_s)
    changed = measured[1].model_copy(update={"expected": expected, "ceilings": ceilings, "measurement": counted})
    found = replace(outcome, records=tuple(changed if each == measured[1] else each for each in outcome.records))
    text = shown(closing.launches(found), width=200)
    assert f"{changed.number} exploit" in text
    assert "+25.0% (outside) step time 25%" in text
    (told,) = (
        each for each in json.loads(json.dumps(closing.summary(found)))["launches"] if each["number"] == changed.number
    )
    assert told["expected"]["why"] == "exploit"
    assert told["error"] == pytest.approx(0.25)
    assert (told["inside"], told["binds"], told["bandwidth_share"]) == (False, "step time", pytest.approx(0.25))
    assert "0 of 1 readings lie in the interval" in shown(closing.table(found))


def test_the_table_says_what_binds_in_deployment_and_winner(outcome):
    text = shown(closing.table(outcome))
    assert "binds deployed: what binds is not known" in text
    assert f"trial {outcome.best.number}: what binds is not known" in text


def test_list_has_a_line_for_every_study(outcome, folder):
    assert f"demo 20 complete {outcome.sentence[:30]}" in " ".join(
        tuner("study", "list", "--folder", str(folder)).stdout.split()
    )
    (only,) = json.loads(tuner("study", "list", "--folder", str(folder), "--json").stdout)
    assert only["study"] == "demo"


def test_an_empty_folder_says_how_to_make_a_study(tmp_path):
    assert "tuner study start experiment=demo" in tuner("study", "list", "--folder", str(tmp_path)).stdout


def test_export_prints_the_frames_columns_or_writes_a_file(outcome, folder, tmp_path):
    from tuner import analysis

    printed = tuner("study", "export", "demo", "--folder", str(folder)).stdout
    assert printed.splitlines()[0].split(",") == list(analysis.trials(outcome).columns)
    file = tmp_path / "failures.json"
    done = tuner("study", "export", "--folder", str(folder), "--table=failures", "--format=json", "-o", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert len(json.loads(file.read_text())) == len(analysis.failures(outcome))


def test_report_is_written_anew_on_request(outcome, folder):
    outcome.folder.report.unlink(missing_ok=True)
    done = tuner("study", "report", "--folder", str(folder))
    assert done.stdout.strip() == str(outcome.folder.report)
    assert outcome.sentence.partition(":")[0] in outcome.folder.report.read_text()


def test_requests_that_failed_are_counted_though_the_measurement_stands(outcome):
    assert "failed requests" not in shown(closing.table(outcome))
    measured = outcome.best.measurement
    some = measured.model_copy(update={"failed": 2, "failures": {FailureKind.HTTP: 2}})
    best = outcome.best.model_copy(update={"measurement": some})
    records = tuple(best if record.number == best.number else record for record in outcome.records)
    disturbed = replace(outcome, records=records)
    assert f"Requests that failed: 2 of {measured.completed + 2} in trial" in report_html(disturbed)
    said = shown(closing.table(disturbed))
    assert f"failed requests 2 of {measured.completed + 2} in trial {best.number} (http)" in said


def test_parameters_that_did_not_act_in_the_deployment_are_changed_only_if_their_value_is(outcome):
    """The deployed variables are 1 already; they begin to act with compile sizes."""
    tried = [record for record in outcome.searched if record.params.get("compile_sizes")]
    assert tried
    for record in tried:
        on = record.params["VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"]
        assert ("VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE" in analysis.changed(outcome, record)) == (on is False)


def test_a_study_that_is_not_there_is_named_with_those_that_are(folder):
    done = tuner("study", "dashboard", "nope", "--folder", str(folder))
    assert done.returncode == 2
    assert "no study 'nope'" in done.stderr
    assert "(there: demo)" in done.stderr


def test_the_dashboards_command_says_where_it_listens_and_ends_with_ctrl_c(tmp_path):

    outcome = simulated_study(tmp_path, 3)
    command = [sys.executable, "-m", "tuner", "study", "dashboard", "--folder", str(tmp_path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert present(process.stdout).readline().startswith(f"{outcome.config.study.name}: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "dashboard ended\n"
    assert process.returncode == 0


def test_the_dashboard_opens_in_a_browser_where_there_is_a_screen(tmp_path):
    simulated_study(tmp_path, 3)
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "tuner", "study", "dashboard", "--folder", str(tmp_path)]
    surroundings = {**os.environ, "BROWSER": str(browser), "DISPLAY": ":9"}
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=surroundings) as process:
        said = os.read(keyboard, 4096).decode()
        until(lambda: seen.exists() and seen.read_text(), 20)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    os.close(keyboard)
    os.close(terminal)
    assert seen.read_text().strip() in said


def test_studies_lie_in_a_folder_each(folder):
    assert [study.path for study in map(StudyFolder, sorted(folder.iterdir()))] == [folder / "demo"]


def test_a_finalist_that_could_not_be_measured_undisturbed_is_said_to_be(outcome):
    assert "disturbed" not in shown(closing.table(outcome))
    disturbed = (
        DisturbedStage("concurrent, disturbed 1", "a kernel", False),
        DisturbedStage("concurrent", "kernel compiled", True),
    )
    records = [r.model_copy(update={"disturbed": disturbed}) if r == outcome.best else r for r in outcome.records]
    disturbed = replace(outcome, records=tuple(records))
    assert "Measured in disturbance: concurrent of trial" in report_html(disturbed)
    said = shown(closing.table(disturbed))
    assert (
        f"disturbed concurrent of trial {outcome.best.number}: the server compiled kernels in every turn of it" in said
    )
