"""What all tests share: a state folder of their own, so that they never meet the user's studies."""

import pytest


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    """Locks and traces of launches go to the test's own folder."""
    folder = tmp_path / "state"
    monkeypatch.setenv("TUNER_STATE_DIR", str(folder))
    return folder
