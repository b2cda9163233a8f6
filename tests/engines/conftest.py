"""What the tests of engines share: the logs in tests/data."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def log():
    """A log by its file's name, as its lines."""

    def read(name):
        return (DATA / name).read_bytes().decode().removesuffix("\n").split("\n")

    return read
