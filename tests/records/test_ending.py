"""What became of a trial is a property of its record."""

from pathlib import Path

import pytest

from tuner.objective import Verdict
from tuner.records.folder import StudyFolder
from tuner.records.record import Ending, Failure, State

RECORDED = Path(__file__).parents[1] / "data" / "recorded" / "42c3e30" / "demo"
MISSED = Verdict(values=(1.0,), violations={"ttft_p95_ms": 0.1}, reason="")
FAILURE = Failure(error="OutOfMemory", cause="cuda_oom", message="")


@pytest.fixture(scope="module")
def measured():
    return StudyFolder(RECORDED).records()[0]


@pytest.mark.parametrize(
    ("changed", "ending"),
    [
        ({}, Ending.MEASURED),
        ({"verdict": MISSED}, Ending.LIMIT_MISSED),
        ({"verdict": None, "failure": FAILURE, "state": State.PRUNED}, Ending.CANNOT_RUN),
        ({"verdict": None, "failure": FAILURE, "state": State.PRUNED, "launched": False}, Ending.RULED_OUT),
        ({"verdict": None, "failure": FAILURE, "state": State.FAILED}, Ending.FAILED),
    ],
)
def test_every_trial_ends_in_one_of_five_ways(measured, changed, ending):
    assert measured.model_copy(update=changed).ending is ending


def test_endings_are_read_off_old_records():
    endings = [record.ending for record in StudyFolder(RECORDED).records()]
    assert (endings.count(Ending.RULED_OUT), endings.count(Ending.FAILED)) == (2, 0)
