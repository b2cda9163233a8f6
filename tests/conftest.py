"""What all tests share: a state folder of their own, and what to do where a part is not installed."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    """Locks and traces of launches go to the test's own folder, so that tests never meet the user's studies."""
    folder = tmp_path / "state"
    monkeypatch.setenv("TUNER_STATE_DIR", str(folder))
    return folder


def pytest_collection_modifyitems(items):
    """Skip what needs torch where there is none."""
    if all(find_spec(name) for name in ("torch", "scipy", "greenlet")):
        return
    for item in items:
        if item.get_closest_marker("gp"):
            item.add_marker(pytest.mark.skip(reason="needs torch: .venv/bin/pip install -e '.[gp]'"))
