"""What the Docker launcher promises, on a real engine: the contract, and what only containers can do."""

import docker
import pytest

from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.testing.launcher import ECHO_SERVER, LauncherContract, answer, until

pytestmark = pytest.mark.docker


@pytest.fixture
def engine():
    client = docker.from_env()
    yield client
    client.close()


def options(**more):
    return DockerLauncherConfig(kind="docker", image="unused", hf_home=None, **more)


@pytest.fixture
def make(base_image):
    return lambda **more: DockerLauncher(Contents(base_image, options(**more), None, {}, wsl=False))


@pytest.fixture
def spec(tmp_path):
    def make(*arguments, program=ECHO_SERVER, **more):
        argv = ("python3", "-c", program, "{host}", "{port}", *arguments)
        log = tmp_path / "logs" / f"{len(list(tmp_path.glob('logs/*')))}.log"
        return LaunchSpec("contract/trials/0000", argv, log, **more)

    return make


@pytest.fixture
def footprint(engine, state_dir):
    def take():
        containers = sorted(c.id for c in engine.containers.list(all=True))
        volumes = sorted(v.id for v in engine.volumes.list())
        networks = sorted(n.id for n in engine.networks.list())
        return containers, volumes, networks

    return take


class TestDockerLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self, make):
        return make()

    @pytest.fixture
    def spec(self, spec):
        return spec

    @pytest.fixture
    def footprint(self, footprint):
        return footprint
