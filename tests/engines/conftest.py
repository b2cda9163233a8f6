"""What the tests of engines share: the logs in tests/data."""

import time
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def log():
    """A log by its file's name, as its lines."""

    def read(name):
        return (DATA / name).read_bytes().decode().removesuffix("\n").split("\n")

    return read


@pytest.fixture
def cpu_s():
    """What a call takes, in seconds of CPU: the least of three."""

    def measure(call):
        taken = []
        for _ in range(3):
            began = time.process_time()
            call()
            taken.append(time.process_time() - began)
        return min(taken)

    return measure
