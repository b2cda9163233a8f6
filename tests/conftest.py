"""What all tests share: a state folder of their own, and what to do where a part is not installed."""

import os
import signal
import zlib
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec

import docker
import pytest

from tuner import secrets

NO_ENGINE = "needs a Docker engine and an image with Python: TUNER_TEST_DOCKER=python:3.11-slim make test"


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_works():
    """A shell that runs the tests in the background has them ignore Ctrl-C, and so would every program they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    """Locks and traces of launches go to the test's own folder, so that tests never meet the user's studies."""
    folder = tmp_path / "state"
    monkeypatch.setenv("TUNER_STATE_DIR", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TUNER_SCOPE", f"test-{os.getpid()}-{zlib.crc32(str(tmp_path).encode())}")
    return folder


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch):
    """A program serves one site and hides its secrets for good; here, one test's are text of another's files."""
    monkeypatch.setattr(secrets, "_listed", {})


@pytest.fixture(autouse=True, scope="session")
def others_may_work():
    """Tests run next to other work, which must not have their stages sent again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_HOST_JUDGE", "false")
        yield


@pytest.fixture(scope="session")
def base_image():
    """The image with Python in it that tests of containers start from."""
    return os.environ["TUNER_TEST_DOCKER"]


@pytest.fixture(scope="session")
def sim_image(base_image):
    """The simulated engine as an image, built as tuner builds it."""
    from tuner.launchers.docker import images
    from tuner.launchers.docker.daemon import connected
    from tuner.launchers.docker.options import Build

    with connected() as client:
        build = Build(dockerfile="sim", args={"BASE": base_image})
        images.build(client, "tuner-test/sim:1", build, lambda text: None)
        yield "tuner-test/sim:1"
        client.images.remove("tuner-test/sim:1", force=True)


@pytest.fixture
def engine():
    """The Docker engine that the environment names."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def gpu_engine(base_image):
    """An engine that takes requests for GPUs, whether it has any or not."""
    client = docker.from_env()
    try:
        wanted = docker.types.DeviceRequest(device_ids=["0"], capabilities=[["gpu"]])
        client.containers.run(base_image, ["true"], device_requests=[wanted], remove=True)
    except docker.errors.APIError as refused:
        pytest.skip(f"needs an engine that can give containers GPUs (nvidia-container-toolkit): {refused.explanation}")
    finally:
        client.close()


PRODUCTION = "tuner-test-production"
SERVE = """
import http.server, time, sys
time.sleep(float(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"production")
    def log_message(self, *args): pass
http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
ASK = "import urllib.request as http; http.urlopen('http://127.0.0.1:8000/health', timeout=5)"


@pytest.fixture
def production(engine, base_image, gpu_engine):
    """A service that holds GPUs 0 and 1, as somebody else deployed it; call it to choose how."""
    made = []

    def start(policy="unless-stopped", slow_s=0.2, checked=True, **more):
        check = {"test": ["CMD", "python3", "-c", ASK], "interval": 500_000_000, "start_period": 60_000_000_000}
        container = engine.containers.run(
            base_image,
            ["python3", "-c", SERVE, str(slow_s)],
            name=PRODUCTION,
            detach=True,
            init=True,
            ports={"8000/tcp": ("127.0.0.1", None)},
            restart_policy={"Name": policy, "MaximumRetryCount": 3 if policy == "on-failure" else 0},
            device_requests=[docker.types.DeviceRequest(device_ids=["0", "1"], capabilities=[["gpu"]])],
            healthcheck=check if checked else None,
            **more,
        )
        made.append(container)
        return container

    yield start
    for container in made:
        with suppress(docker.errors.NotFound):
            container.remove(force=True)


def pytest_collection_modifyitems(items):
    """What takes long is begun first; what needs torch or a Docker engine is skipped where there is none."""
    items.sort(key=_order(items))
    if not os.environ.get("TUNER_TEST_DOCKER"):
        skip(items, "docker", NO_ENGINE)
    if not all(find_spec(name) for name in ("torch", "scipy", "greenlet")):
        skip(items, "gp", "needs torch: .venv/bin/pip install -e '.[gp]'")


def skip(items, marker, reason):
    """The tests with a marker are skipped."""
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def _order(items):
    """Files whose tests are given more time than others come first, then those of many tests.

    A file is one process's (``--dist loadfile``), and one of whole studies that is begun last leaves the others idle.
    """
    tests = Counter(item.path for item in items)
    patient = {item.path for item in items if item.get_closest_marker("timeout")}
    return lambda item: (item.path not in patient, -tests[item.path], str(item.path))
