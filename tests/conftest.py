"""What all tests share: a state folder of their own, and what to do where a part is not installed."""

import os
from importlib.util import find_spec

import pytest

NO_ENGINE = "needs a Docker engine and an image with Python: TUNER_TEST_DOCKER=python:3.11-slim make test"


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    """Locks and traces of launches go to the test's own folder, so that tests never meet the user's studies."""
    folder = tmp_path / "state"
    monkeypatch.setenv("TUNER_STATE_DIR", str(folder))
    return folder


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


def pytest_collection_modifyitems(items):
    """Skip what needs torch or a Docker engine where there is none."""
    if not os.environ.get("TUNER_TEST_DOCKER"):
        for item in items:
            if item.get_closest_marker("docker"):
                item.add_marker(pytest.mark.skip(reason=NO_ENGINE))
    if all(find_spec(name) for name in ("torch", "scipy", "greenlet")):
        return
    for item in items:
        if item.get_closest_marker("gp"):
            item.add_marker(pytest.mark.skip(reason="needs torch: .venv/bin/pip install -e '.[gp]'"))
