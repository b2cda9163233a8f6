"""`tuner bench compare` measures two running servers in turns, and one against a saved result."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.present import present
from tests.test_bench import QUICK, SETTINGS, SIM
from tuner.bench.comparison import Comparison, Side
from tuner.bench.sentences import scope, sentence, text
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.records import read_records
from tuner.objective import Objective
from tuner.proof.rule import ProofLaunch, Terms, decide, decide_once
from tuner.records.folder import StudyFolder
from tuner.testing.launcher import answer

LEAN = (*QUICK[:5], "workload.ttft_prompt_tokens=[]", *QUICK[6:], "study.confirm.max=4")
SLOW, FAST = ("--sim-clock-serving", "2"), ("--sim-clock-serving", "10")
"""Slow enough for their clocks, not this machine, to decide how fast they are."""
REAL = Path(__file__).parent / "data/vllm-0.32.0-cpu-bench-serve.json"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server, and one that is five times as fast."""
    logs = tmp_path_factory.mktemp("servers")
    argv = (*SIM, *SETTINGS, "--sim-clock-startup", "300")
    slow = LaunchSpec("slow/0000", (*argv, *SLOW), logs / "slow.log", stop_grace_s=1)
    fast = LaunchSpec("fast/0000", (*argv, *FAST), logs / "fast.log", stop_grace_s=1)
    with ProcessLauncher().launch(slow) as a, ProcessLauncher().launch(fast) as b:
        answer(a), answer(b)
        yield a.url, b.url


def bench(*words):
    command = [sys.executable, "-m", "tuner", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_faster_of_two_servers_is_found_in_turns_and_everything_is_kept(servers, tmp_path):
    # the goal alone: what noise a busy machine adds to TTFT is not the point
    options = ("objective.limits=null", "objective.guard=null", f"study.folder={tmp_path}", "--json")
    done = bench("compare", *servers, *LEAN, *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decision"]["kind"] == "better"
    assert told["decision"]["goals"]["output_tokens_per_s"]["low"] > 0.5
    assert told["sentence"].startswith(f"{servers[1]} is better than {servers[0]}: throughput +")
    first = [told["baseline"]["trials"][0], told["candidate"]["trials"][0]]
    assert sorted(first) == [0, 1]  # the first of each makes the first pair
    records = StudyFolder(tmp_path / "bench").records()
    assert len(records) == 2 * told["decision"]["launches"]
    (kept,) = (tmp_path / "bench/comparisons").glob("*.json")
    assert Comparison.model_validate_json(kept.read_text()).decision.kind == "better"


def test_the_faster_of_two_servers_is_found_through_the_messages_api(servers, tmp_path):
    options = ("workload.endpoint=messages", "objective.limits=null", "objective.guard=null")
    done = bench("compare", *servers, *LEAN, *options, f"study.folder={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["decision"]["kind"], told["in_turns"]) == ("better", True)
    assert told["sentence"].startswith(f"{servers[1]} is better than {servers[0]}: throughput +")
    folder = StudyFolder(tmp_path / "bench")
    sent = [each for record in folder.records() for each in read_records(folder.trial(record.number).requests)]
    assert {request.request.endpoint for request in sent} == {Endpoint.MESSAGES}
    assert not any(request.failure for request in sent)
    assert all(request.output_tokens == 16 for request in sent)


def test_ctrl_c_says_what_was_seen_until_then_and_keeps_it(servers, tmp_path):
    same = (servers[0], servers[0])  # not soon decided
    command = [sys.executable, "-m", "tuner", "bench", "compare", *same, *LEAN, f"study.folder={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in present(process.stderr):
        if line.startswith("measurement 4 "):  # two would not have an interval
            process.send_signal(signal.SIGINT)
            break
    shown, ended = process.communicate(timeout=60)
    assert process.returncode == 130, ended
    assert shown.startswith("Not decided")
    assert "interrupted after 3 of at most 8 measurements" in shown
    (kept,) = (tmp_path / "bench/comparisons").glob("*.json")
    assert Comparison.model_validate_json(kept.read_text()).interrupted


def test_a_server_is_compared_with_a_saved_result_on_its_traffic_and_the_verdict_says_what_it_cannot(servers, tmp_path):
    slow, fast = servers
    bench("run", slow, *LEAN, f"study.folder={tmp_path}")
    done = bench("compare", str(tmp_path / "bench/trials/0000"), fast, f"study.folder={tmp_path}")
    assert done.returncode == 0, done.stderr
    verdict, reach = done.stdout.splitlines()[:2]
    assert "over 4 measurements of the server against the saved one" in verdict
    assert "is better" not in verdict
    assert "is not excluded" in reach
    records = StudyFolder(tmp_path / "bench").records()
    assert {present(record.measurement).samples["ttft_p50_ms"] for record in records} == {5}


def test_a_server_is_compared_with_a_file_of_vllms_benchmark(servers, tmp_path):
    options = ("study.confirm.max=2", f"study.folder={tmp_path}", "--json")
    done = bench("compare", str(REAL), servers[0], *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decision"]["goals"]["output_tokens_per_s"]["baseline"] == [
        pytest.approx(json.loads(REAL.read_text())["output_throughput"])
    ]
    assert any("TPOT p50" in note and "not judged" in note for note in told["notes"])
    assert any("vllm bench serve" in note for note in told["notes"])


def test_a_run_is_written_as_vllm_writes_it_and_followed_stage_by_stage(servers, tmp_path):
    done = bench("run", servers[0], *LEAN, f"study.folder={tmp_path}", "--save-vllm", str(tmp_path / "r.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["completed"], result["max_concurrency"]) == (5, 5)
    assert "  concurrent: 5 requests" in done.stderr.splitlines()


def test_other_traffic_than_the_saved_results_is_refused(servers, tmp_path):
    done = bench("compare", str(REAL), servers[0], "workload.requests=50", f"study.folder={tmp_path}")
    assert done.returncode == 2
    assert "workload" in done.stderr
    assert "fix: leave it out" in done.stderr


def test_a_password_in_a_url_is_refused_since_the_url_is_kept(tmp_path):
    done = bench("run", "http://me:hush-hush@127.0.0.1:1", f"study.folder={tmp_path}")
    assert done.returncode == 2
    assert "fix: leave it out, and say --token-env" in done.stderr
    assert "hush-hush" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_saved_results_are_no_comparison(tmp_path):
    done = bench("compare", str(REAL), str(REAL), f"study.folder={tmp_path}")
    assert done.returncode == 2
    assert "fix: name the URL" in done.stderr


# the words

OBJECTIVE = Objective(
    name="throughput",
    goals={"output_tokens_per_s": "maximize"},
    limits={"ttft_p50_ms": {"max": 1.25, "of": "baseline"}},
)
TERMS = Terms(OBJECTIVE.goals, OBJECTIVE.limits, most=4)


def compared(baseline, candidate, ttft=(100, 100), in_turns=True):
    launches = [
        ProofLaunch(False, {"output_tokens_per_s": v, "ttft_p50_ms": ttft[0] + i}) for i, v in enumerate(baseline)
    ]
    others = [
        ProofLaunch(True, {"output_tokens_per_s": v, "ttft_p50_ms": ttft[1] + i}) for i, v in enumerate(candidate)
    ]
    if in_turns:  # A B B A
        pairs = [pair[::-1] if n % 2 else pair for n, pair in enumerate(zip(launches, others, strict=True))]
        launches = [launch for pair in pairs for launch in pair]
    else:
        launches += others
    return Comparison(
        tuner_version="0",
        started_at="2026-01-05T09:00:00+00:00",
        baseline=Side(name="A", model="m"),
        candidate=Side(name="B", model="m"),
        in_turns=in_turns,
        objective=OBJECTIVE,
        min_gain=0.02,
        decision=(decide if in_turns else decide_once)(launches, TERMS),
    )


def test_a_server_that_is_worse_is_called_worse_and_not_equal():
    assert sentence(compared((100, 101, 99, 100), (80, 81, 80, 79))).startswith("B is worse than A: throughput −")


def test_servers_that_are_alike_show_no_difference():
    found = compared((100, 100.1, 99.9, 100), (100, 99.9, 100.1, 100))
    assert sentence(found).startswith("No difference above 2.0%: B against A")


def test_a_limit_that_is_not_kept_stands_in_the_sentence():
    found = compared((100, 101, 99, 100), (150, 151, 149, 150), ttft=(100, 160))
    assert "B is better than A, but its limit on TTFT p50 (× 1.5" in sentence(found)


def test_what_is_not_decided_says_how_much_one_server_varied_and_what_to_do():
    said = sentence(compared((100, 130, 80, 110), (105, 135, 90, 110)))
    assert said.startswith("Not decided: measurements of one server varied by ")
    assert "workload.min_duration_s" in said


def test_two_running_servers_are_not_called_configurations():
    assert "not of their configurations" in scope(compared((100,), (100,)))


def test_one_saved_reading_widens_the_interval_by_what_the_server_varies():
    wide = compared((100,), (150, 151, 149, 150), in_turns=False).decision.goals["output_tokens_per_s"]
    narrow = compared((100, 101, 99, 100), (150, 151, 149, 150), in_turns=False).decision.goals["output_tokens_per_s"]
    assert wide.better
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_every_metric_of_both_is_shown_with_levels_interval_and_sample():
    lines = text(compared((100, 101, 99, 100), (150, 151, 149, 150))).splitlines()
    (row,) = [line for line in lines if line.startswith("output_tokens_per_s")]
    assert "100 → 150 tokens/s  +50.0% [+" in row
    assert row.endswith("n=4+4")
