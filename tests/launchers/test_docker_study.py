"""A whole study in containers, with all that can go wrong in one: nothing is lost, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.present import present
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State
from tuner.site.takeover import folder as takeovers
from tuner.testing.launcher import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

RESTART = os.environ.get("TUNER_TEST_DOCKER_RESTART")
FAST = [
    "experiment=demo-docker",
    "launcher.build=null",
    "launcher.caches={vllm-sim: null, study-test: /cache/vllm}",
    "engine.clock_scale=40",
    "engine.launch_args.sim_clock_startup=400",
    "workload.prompt_tokens=64",
    "workload.output_tokens=64",
    "workload.requests=10",
    "workload.single_user={prompt_tokens: 32, output_tokens: 64, requests: 1}",
    "workload.ttft_prompt_tokens=[]",
    "workload.tool_call=false",
    "workload.warm_up={shortest_tokens: 16, longest_tokens: 64, max_rounds: 2}",
    # a tiny workload at a fast clock is noisy; what is tested here is the loop
    "objective.limits=null",
    "search=random",
    "study.confirm=0",
    "study.name=s",
]


@pytest.fixture
def cache(engine):
    yield "tuner-cache-study-test"
    engine.volumes.get("tuner-cache-study-test").remove()


@pytest.fixture
def footprint(engine):
    """What `docker ps -a`, the networks and the ports are."""

    def take():
        names = sorted(one.name for one in engine.containers.list(all=True, ignore_removed=True))
        proxies = [
            p.info["cmdline"] for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "docker-proxy"
        ]
        return names, sorted(net.name for net in engine.networks.list()), len(proxies)

    return take


class Run:
    """`tuner study start` in a process of its own, heard through ``--json``."""

    def __init__(self, tmp_path, *overrides):
        arguments = [*FAST, f"study.folder={tmp_path}", *overrides, "--yes", "--json"]
        command = [sys.executable, "-m", "tuner", "study", "start", *arguments]
        with (tmp_path / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.heard = []

    def until(self, **wanted):
        """Read on until an event that says all this."""
        for line in present(self.process.stdout):
            event = json.loads(line)
            self.heard.append(event)
            if all(str(value) in str(event.get(key)) for key, value in wanted.items()):
                return event
        pytest.fail(f"it ended, and never said {wanted}: {self.heard[-3:]}")

    def end(self):
        """Hear it to its end; returns its exit status."""
        self.heard += [json.loads(line) for line in present(self.process.stdout)]
        return self.process.wait()


@pytest.fixture
def sit(tmp_path):
    """Starts runs, and ends those that are still under way in the end."""
    begun = []

    def start(*overrides):
        begun.append(Run(tmp_path, *overrides))
        return begun[-1]

    yield start
    for run in begun:
        run.process.terminate()
        present(run.process.stdout).close()
        run.process.wait(60)


def trial_containers(engine):
    return engine.containers.list(all=True, filters={"label": "tuner.launch"}, ignore_removed=True)


def measuring(run, **trial):
    run.until(event="TrialStarted", **trial)
    run.until(event="PhaseEntered", phase="measuring")


def status(container):
    container.reload()
    return container.attrs["State"]["Status"], container.attrs["HostConfig"]["RestartPolicy"]["Name"]


def test_a_study_goes_through_all_that_can_go_wrong_and_leaves_the_machine_as_it_was(
    engine, sim_image, production, footprint, cache, sit, tmp_path
):
    """OOM, a death in start-up, a container killed in mid-run, tuner killed with -9: six trials all the same."""
    service = production()
    until(lambda: service.reload() or service.attrs["State"]["Health"]["Status"] == "healthy")
    before = footprint()
    faults = "'oom-graphs@max_num_seqs=128 crash-at=graphs@max_num_seqs=32'"
    overrides = [
        f"launcher.image={sim_image}",
        "hardware.gpus=[0,1]",
        f"site.stop=[{service.name}]",
        f"engine.launch_args.sim_fault={faults}",
        "model.known_good=[{max_num_seqs: 128}, {max_num_seqs: 32}, {max_num_seqs: 16}, {max_num_seqs: 8}]",
        "budget.trials=6",
    ]
    first = sit(*overrides)
    measuring(first, changed="max_num_seqs=16", attempt=1)
    assert status(service)[0] == "exited"
    (container,) = trial_containers(engine)
    container.kill()
    measuring(first, changed="max_num_seqs=8")
    first.process.send_signal(signal.SIGKILL)
    first.end()
    until(lambda: trial_containers(engine) == [], 15)
    until(lambda: status(service) == ("running", "unless-stopped"), 15)
    until(lambda: not list(takeovers().glob("*.json")), 15)
    assert footprint() == before

    finished = {record.number for record in StudyFolder(tmp_path / "s").records()}
    second = sit(*overrides)
    assert second.end() == 0, (tmp_path / "stderr").read_text()
    assert not finished & {event["number"] for event in second.heard if event["event"] == "TrialStarted"}
    assert status(service) == ("running", "unless-stopped")
    assert footprint() == before

    records = StudyFolder(tmp_path / "s").records()
    ended = [record for record in records if record.state is not State.FAILED]
    verdicts = {record.params["max_num_seqs"]: record for record in reversed(ended)}
    assert len([record for record in ended if record.role is not Role.CONFIRM_BASELINE and record.launched]) == 6
    assert present(verdicts[128].failure).cause == "cuda_oom"
    assert "unexplained" in present(verdicts[32].failure).message
    killed, retried = (record for record in records if record.params["max_num_seqs"] == 16)
    assert (killed.state, retried.state) == (State.FAILED, State.COMPLETE)
    assert verdicts[8].state is State.COMPLETE


def test_ctrl_c_in_mid_trial_gives_everything_back(engine, sim_image, production, footprint, cache, sit, tmp_path):
    service = production()
    before = footprint()
    run = sit(f"launcher.image={sim_image}", "hardware.gpus=[0,1]", f"site.stop=[{service.name}]")
    measuring(run, number=0)
    assert status(service)[0] == "exited"
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert status(service) == ("running", "unless-stopped")
    assert footprint() == before
    assert "resumes" in (tmp_path / "stderr").read_text()


@pytest.mark.skipif(
    not RESTART,
    reason="restarts the Docker engine: TUNER_TEST_DOCKER_RESTART='sudo systemctl restart docker' make test",
)
def test_an_engine_that_restarts_in_mid_trial_costs_that_trial_a_second_attempt_and_nothing_else(
    engine, sim_image, production, footprint, cache, sit, tmp_path
):
    """The service that the restarted engine has brought back is stopped again before the next launch."""
    service = production("always")
    before = footprint()
    overrides = [f"launcher.image={sim_image}", "hardware.gpus=[0,1]", f"site.stop=[{service.name}]", "budget.trials=2"]
    run = sit(*overrides, "model.known_good=[{max_num_seqs: 16}]")
    measuring(run, changed="max_num_seqs=16", attempt=1)
    subprocess.run(present(RESTART), shell=True, check=True)
    assert run.end() == 0, (tmp_path / "stderr").read_text()
    baseline, broken, retried = StudyFolder(tmp_path / "s").records()
    assert (baseline.state, broken.state, retried.state) == (State.COMPLETE, State.FAILED, State.COMPLETE)
    assert present(broken.failure).error == "EngineUnavailable"
    assert any("in the middle of the study" in str(event.get("text")) for event in run.heard)
    assert status(service) == ("running", "always")
    assert footprint() == before
