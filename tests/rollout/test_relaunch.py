"""A winner is launched again as its study did: next to whatever serves, which is stopped only if it is named."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import PRODUCTION
from tests.simulated import simulated_study
from tuner import composing
from tuner.export.origin import digest_of
from tuner.export.profile import profile_of
from tuner.testing.launcher import until

pytestmark = pytest.mark.timeout(240)
BRIEF = (
    *("workload=tiny", "engine.clock_scale=15", "workload.min_duration_s=0", "workload.ttft_prompt_tokens=[]"),
    *("workload.requests=16", "workload.single_user.requests=1", "workload.warm_up.longest_tokens=200"),
)


@pytest.fixture
def study(tmp_path):
    """The folder of studies with one whose winner is proven, if any noise at all will do."""

    def made(*overrides):
        found = profile_of(simulated_study(tmp_path / "studies", 6))
        assert found is not None
        config = composing.load(["experiment=demo", f"study.folder={tmp_path}/studies", *BRIEF, *overrides])
        (config.study.path / "config.yaml").write_text(config.to_yaml())
        tree = yaml.safe_load(found.to_yaml())
        tree["verdict"]["decision"]["limits"] = {}
        for effect in tree["verdict"]["decision"]["goals"].values():
            effect["noise"] = 5.0
        tree["study"] |= {"workload": "tiny", "workload_digest": digest_of(config.workload)}
        (tmp_path / "studies" / "demo" / "profile.yaml").write_text(yaml.safe_dump(tree))
        return tmp_path

    return made


def verify(here, *words):
    command = [sys.executable, "-m", "tuner", "profile", "verify", *words]
    done = subprocess.run(command, cwd=here, env=os.environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_study_or_its_profile_is_named_and_nothing_else_is_needed(study):
    here = study()
    done = verify(here, "studies/demo/profile.yaml", "--relaunch", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["holds"], found["relaunched"]) == (True, True)
    assert [one["metric"] for one in found["measured"]] == ["output_tokens_per_s"]
    assert sorted(path.name for path in (here / "studies").iterdir()) == ["demo"], "its study is left as it is"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stop", "qwen"), "--stop makes room for a relaunch"),
        ((), "name your compose file, or say --relaunch"),
        (("--relaunch", "--service", "qwen"), "--service names a service that runs"),
        (("profile.yaml", "--relaunch", "--study", "s"), "a relaunch needs a study or a profile"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, words, said):
    done = verify(tmp_path, *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_without_its_study_nobody_knows_how_it_was_launched(study):
    here = study()
    (here / "studies" / "demo" / "config.yaml").unlink()
    done = verify(here, "--profile", "studies/demo/profile.yaml", "--relaunch")
    assert (done.returncode, "name the study itself with --study" in done.stderr) == (2, True), done.stderr


@pytest.mark.docker
def test_whoever_holds_its_gpus_is_named_and_stopped_only_if_that_is_asked_for(study, production):
    container, here = production(), study("hardware.gpus=[0,1]")
    done = verify(here, "--study", "demo", "--relaunch")
    assert done.returncode == 1, done.stderr
    assert f"GPU 0 is held by container {PRODUCTION}" in done.stderr
    assert "`--stop SERVICE` stops it" in done.stderr
    container.reload()
    begun = container.attrs["State"]["StartedAt"]
    assert container.status == "running"
    done = verify(here, "--study", "demo", "--relaunch", "--stop", PRODUCTION)
    assert done.returncode == 0, done.stderr
    container.reload()
    assert container.status == "running"
    assert container.attrs["State"]["StartedAt"] > begun
    assert f"starting {PRODUCTION} again" in done.stderr


@pytest.mark.docker
def test_what_a_killed_relaunch_in_a_container_left_the_next_one_gives_back(study, production, sim_image, engine):
    """Killed with its watchdogs, as by a power cut, while the service is stopped for it."""
    image = (f"launcher.image={sim_image}", "launcher.build=null", "launcher.pull=never")
    container, here = production(), study("launcher=docker-sim", *image, "hardware.gpus=[0,1]")
    asked = ("verify", "--study", "demo", "--relaunch", "--stop", PRODUCTION)
    killed = subprocess.Popen([sys.executable, "-m", "tuner", "profile", *asked], cwd=here)
    until(lambda: ours(engine) or killed.poll() is not None, 120)
    watchdogs = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    for pid in (killed.pid, *map(int, watchdogs)):
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    container.reload()
    assert container.status == "exited"
    assert ours(engine)
    done = verify(here, *asked[1:])
    assert done.returncode == 0, done.stderr
    assert f"an interrupted run had left {PRODUCTION} stopped" in done.stderr
    container.reload()
    assert container.status == "running"
    assert not ours(engine)


def ours(engine):
    """The containers of this test's relaunches."""
    return [one for one in engine.containers.list(ignore_removed=True) if one.name.startswith("tuner-demo-")]
