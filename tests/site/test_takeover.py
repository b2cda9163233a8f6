"""A service that was stopped for its GPUs is running again in the end, whatever killed us."""

import os
import re
import subprocess
import sys
from datetime import datetime

import psutil
import pytest

from tests.present import present
from tuner.config import SiteConfig
from tuner.errors import ConfigError, GpuBusy
from tuner.host.processes import alive
from tuner.launchers.docker.services import Service
from tuner.site.clean import left_overs
from tuner.site.takeover import NotHealthy, TakeOver, folder, in_the_way, pending, taken_over
from tuner.testing.launcher import kill, until

pytestmark = pytest.mark.docker

PROGRAM = """
import sys, time
from tuner.config import SiteConfig
from tuner.site.takeover import taken_over
with taken_over(SiteConfig(stop=(sys.argv[1],), stop_grace_s=1), (0, 1), "victim", lambda text: None):
    print("taken", flush=True)
    time.sleep(600)
"""
NAME = "tuner-test-production"
SITE = SiteConfig(stop=(NAME,), stop_grace_s=1, health_timeout_s=30)


def state(container):
    container.reload()
    health = container.attrs["State"].get("Health") or {}
    return (
        container.attrs["State"]["Status"],
        container.attrs["HostConfig"]["RestartPolicy"]["Name"],
        health.get("Status"),
    )


def test_a_study_on_occupied_gpus_is_refused_with_who_holds_them(production):
    production()
    with pytest.raises(GpuBusy, match=rf"(?s)GPU 1 is held by container {NAME}.*site\.stop=\[{NAME}\]"):
        in_the_way(SiteConfig(), (1, 2))
    assert in_the_way(SiteConfig(), (2,)) == []
    (found,) = in_the_way(SITE, (0, 1))
    assert isinstance(found, Service)


@pytest.mark.parametrize("policy", ["no", "always", "unless-stopped", "on-failure"])
def test_a_service_is_down_while_the_study_runs_and_back_as_it_was(production, policy):
    container = production(policy)
    said: list[str] = []
    with taken_over(SITE, (0, 1), "study", said.append):
        status, _, _ = state(container)
        assert status == "exited"
        (record,) = [TakeOver.model_validate_json(path.read_text()) for path in folder().glob("*.json")]
        assert record.services[0].restart == policy
    assert state(container) == ("running", policy, "healthy")
    if policy == "on-failure":
        assert container.attrs["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] == 3
    assert list(folder().iterdir()) == []
    assert said[0] == f"stopping {NAME} for the time of the study"
    assert "is healthy again" in said[-1]


def test_what_is_to_be_restored_is_on_disk_before_anything_is_stopped(production):
    container = production(slow_s=0)
    with taken_over(SITE, (0, 1), "study", lambda text: None):
        container.reload()
        stopped = datetime.fromisoformat(container.attrs["State"]["FinishedAt"][:26] + "+00:00").timestamp()
        (record,) = folder().glob("*.json")
        assert record.stat().st_mtime < stopped


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_is_back_after_an_error_and_after_ctrl_c(production, error):
    container = production(checked=False)

    def fail():
        with taken_over(SITE, (0, 1), "study", lambda text: None):
            raise error

    with pytest.raises(error):
        fail()
    assert state(container)[0] == "running"
    assert pending() == []


@pytest.fixture
def victim(production):
    """A tuner in a process of its own that has taken the service's GPUs."""
    container = production("always")
    tuner = subprocess.Popen([sys.executable, "-c", PROGRAM, NAME], stdout=subprocess.PIPE)
    assert present(tuner.stdout).readline() == b"taken\n"
    assert state(container)[0] == "exited"
    (dog,) = [child for child in psutil.Process(tuner.pid).children() if "tuner.site.takeover" in child.cmdline()]
    yield tuner, dog, container
    present(tuner.stdout).close()
    tuner.kill()
    tuner.wait()
    until(lambda: not alive(dog.pid), 30)


def test_after_kill_9_the_watchdog_brings_it_back(victim):
    tuner, _, container = victim
    tuner.kill()
    until(lambda: state(container) == ("running", "always", "healthy"), 20)
    until(lambda: not list(folder().glob("*.json")), 5)


def test_a_service_that_another_study_has_stopped_is_that_studys_to_start_again(victim):
    with pytest.raises(GpuBusy, match=rf"{NAME} is stopped for study victim"):
        in_the_way(SITE, (2,))


def test_when_the_watchdog_died_too_whoever_comes_next_brings_it_back(victim):
    tuner, dog, container = victim
    assert pending() == [], "it is not owed as long as the study runs"
    kill(dog.pid, tuner.pid)
    assert state(container)[0] == "exited"
    (left,) = left_overs()
    assert NAME in str(left)
    left.remove()
    assert state(container) == ("running", "always", "healthy")
    assert left_overs() == []


RESTART = os.environ.get("TUNER_TEST_DOCKER_RESTART")
restarts = pytest.mark.skipif(
    not RESTART,
    reason="restarts the Docker engine: TUNER_TEST_DOCKER_RESTART='sudo systemctl restart docker' make test",
)


@restarts
def test_after_a_reboot_docker_itself_brings_it_back_and_the_next_start_its_policy(production):
    container = production("unless-stopped")
    tuner = subprocess.Popen([sys.executable, "-c", PROGRAM, NAME], stdout=subprocess.PIPE)
    assert present(tuner.stdout).readline() == b"taken\n"
    kill(*(child.pid for child in psutil.Process(tuner.pid).children()), tuner.pid)
    tuner.communicate()
    subprocess.run(present(RESTART), shell=True, check=True)
    until(lambda: state(container)[0] == "running", 20)
    for left in left_overs():
        left.remove()
    assert state(container) == ("running", "unless-stopped", "healthy")


@restarts
def test_a_restarted_engine_does_not_keep_it_up_in_the_middle(production):
    container = production("always")
    said: list[str] = []
    with taken_over(SITE, (0, 1), "study", said.append) as taken:
        subprocess.run(present(RESTART), shell=True, check=True)
        until(lambda: state(container)[0] == "running", 20)
        taken.hold()
        assert state(container)[0] == "exited"
        assert "in the middle" in said[-1]
        taken.hold()
    assert state(container)[:2] == ("running", "always")


def test_a_service_that_does_not_become_healthy_is_said_to_and_runs(production):
    container = production()
    site = SITE.model_copy(update={"health_timeout_s": 0.5})
    with pytest.raises(NotHealthy, match=rf"docker logs {NAME}"), taken_over(site, (0, 1), "s", lambda text: None):
        pass
    assert state(container)[:2] == ("running", "unless-stopped")
    assert pending() == []


def test_a_service_that_somebody_removed_meanwhile_is_said_to_be_gone(production):
    container = production()
    said: list[str] = []
    with taken_over(SITE, (0, 1), "study", said.append):
        container.remove(force=True)
    assert "cannot be started again" in said[-1]
    assert list(folder().iterdir()) == []


def test_a_service_that_is_down_already_is_left_down(production):
    container = production()
    container.stop(timeout=1)
    with taken_over(SITE, (0, 1), "study", lambda text: None):
        assert list(folder().glob("*.json")) == []
    assert state(container)[0] == "exited"


def test_a_service_that_does_not_exist_is_named_before_anything_happens():
    with pytest.raises(ConfigError, match=r"site\.stop.*no service 'no-such'"):
        in_the_way(SiteConfig(stop=("no-such",)), (0,))


def start(tmp_path):
    command = [sys.executable, "-m", "tuner", "study", "start", "experiment=demo", "hardware.gpus=[0,1]"]
    return [*command, f"study.folder={tmp_path}", f"site.stop=[{NAME}]", "budget.trials=30"]


def test_nothing_is_stopped_without_consent_which_states_the_downtime(production, tmp_path):
    container = production()
    refused = subprocess.run(start(tmp_path), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert refused.returncode == 2
    assert re.search(rf"this study stops {NAME} for about [\d.]+ hours", refused.stderr)
    assert "say --yes" in refused.stderr
    assert state(container)[0] == "running"


def test_a_person_is_asked_and_may_say_no(production, tmp_path):
    container = production()
    ours, theirs = os.openpty()
    with subprocess.Popen(start(tmp_path), stdin=theirs, stdout=theirs, stderr=theirs) as asking:
        os.close(theirs)
        said = b""
        while b"Continue?" not in said:
            said += os.read(ours, 1024)
        os.write(ours, b"n\n")
        assert asking.wait(20) == 1
    os.close(ours)
    assert re.search(rb"stops tuner-test-production for\s+about [\d.]+ hours, and starts it again in the end", said)
    assert state(container)[0] == "running"
    assert not (tmp_path / "demo" / "trials").exists()
