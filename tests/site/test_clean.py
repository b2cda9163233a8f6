"""`tuner clean` shows, then removes, what interrupted runs left; what is in use is never touched."""

import subprocess
import sys

import psutil
import pytest

from tests.present import present
from tuner.errors import InfrastructureError
from tuner.launchers.docker import images, volumes
from tuner.launchers.docker.options import Build
from tuner.site import clean
from tuner.testing.launcher import ECHO_SERVER, kill, until

pytestmark = pytest.mark.docker

PROGRAM = """
import sys, time
from pathlib import Path
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.config import SiteConfig
from tuner.site.takeover import taken_over
name, image, log, program = sys.argv[1:]
options = DockerLauncherConfig(kind="docker", image="unused", hf_home=None)
launcher = DockerLauncher(Contents(image, options, None, {}, wsl=False))
spec = LaunchSpec("victim/trials/0000", ("python3", "-c", program, "{host}", "{port}"), Path(log), gpus=(0,))
with taken_over(SiteConfig(stop=(name,), stop_grace_s=1), (0, 1), "victim", lambda text: None):
    with launcher.launch(spec):
        print("up", flush=True)
        time.sleep(600)
"""


def tuner_clean(*options):
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "clean", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def running(production, base_image, tmp_path):
    """A tuner that has taken a service's GPUs and has a container up."""
    service = production()
    command = [sys.executable, "-c", PROGRAM, service.name, base_image, str(tmp_path / "server.log"), ECHO_SERVER]
    tuner = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert present(tuner.stdout).readline() == b"up\n"
    yield tuner, service
    present(tuner.stdout).close()
    bring_down(tuner)
    for left in clean.left_overs():
        left.remove()


def bring_down(tuner):
    """Nobody cleans up: tuner and both of its watchdogs are killed."""
    if tuner.poll() is None:
        kill(*(child.pid for child in psutil.Process(tuner.pid).children()), tuner.pid)
        tuner.wait()


def of_victim(engine):
    return engine.containers.list(all=True, filters={"label": "tuner.study=victim"}, ignore_removed=True)


def test_what_a_killed_run_left_is_shown_then_removed_and_what_it_took_is_given_back(running, engine):
    tuner, service = running
    busy = tuner_clean()
    assert "not touched, since it is in use: container tuner-victim-trials-0000" in busy
    assert "nothing was left behind" in busy
    bring_down(tuner)
    shown = tuner_clean("--dry-run")
    assert "container tuner-victim-trials-0000" in shown
    assert f"{service.name} stopped (for study victim, whose tuner is gone)" in shown
    assert "2 would be removed" in shown
    assert of_victim(engine)
    assert "2 removed" in tuner_clean()
    assert of_victim(engine) == []
    service.reload()
    assert service.attrs["State"]["Health"]["Status"] == "healthy"
    assert "nothing was left behind" in tuner_clean()


def test_caches_and_built_images_are_removed_only_on_purpose(engine, base_image, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo made > /made\n")
    images.build(engine, "tuner-test/cleaned:1", Build(dockerfile=str(tmp_path / "Dockerfile")), lambda text: None)
    volumes.ensure(engine, ["clean-test"])
    assert "clean-test" not in tuner_clean("--dry-run")
    shown = tuner_clean("--caches", "--dry-run")
    assert "cache clean-test (0.00 GB)" in shown
    assert "image tuner-test/cleaned:1" in shown
    # not by the command: the caches of whoever owns this engine are not ours to remove
    for left in clean.caches():
        if left.what in ("cache clean-test", "image tuner-test/cleaned:1"):
            left.remove()
    kept = {left.what for left in clean.caches()}
    assert not kept & {"cache clean-test", "image tuner-test/cleaned:1"}


def test_a_cache_that_is_in_use_is_not_removed(engine, base_image):
    volumes.ensure(engine, ["clean-test"])
    user = engine.containers.create(base_image, "true", volumes=["tuner-cache-clean-test:/c"])
    try:
        (left,) = (left for left in clean.caches() if left.what == "cache clean-test")
        with pytest.raises(InfrastructureError, match=r"(?s)clean-test is in use.*remove the container"):
            left.remove()
    finally:
        user.remove()
        engine.volumes.get("tuner-cache-clean-test").remove()


def test_a_container_that_another_boot_has_left_is_nobodys(engine, base_image):
    owner = "another-boot/4026531836/1/0.00"
    labels = {"tuner.launch": "old-0", "tuner.study": "old", "tuner.owner": owner}
    container = engine.containers.create(base_image, "true", labels=labels)
    (left,) = clean.left_overs()
    assert "study old" in str(left)
    left.remove()
    until(lambda: container.id not in [one.id for one in engine.containers.list(all=True)])
