"""Who is to blame for a failed launch, in every case that a study meets."""

from pathlib import Path

import pytest

from tests.present import present
from tuner.errors import GpuBusy
from tuner.records.folder import StudyFolder
from tuner.records.record import Failure, ProofTerms, Role, State
from tuner.study.blame import Blame, Circumstances, blame, settled

RECORDED = Path(__file__).parents[1] / "data" / "recorded" / "42c3e30" / "demo"
BUSY = GpuBusy("others hold 3 GiB")
PROOF = ProofTerms(candidate="abc", alpha=0.01, most=4)


@pytest.fixture(scope="module")
def measured():
    return StudyFolder(RECORDED).records()[1]


@pytest.fixture
def failed(measured):
    """Makes a record of a launch that failed with an error."""

    def make(error, state=State.FAILED, **more):
        failure = Failure(error=error, cause="engine_died", message="it ended")
        return measured.model_copy(
            update={"measurement": None, "verdict": None, "failure": failure, "state": state, **more}
        )

    return make


def test_nobody_is_to_blame_for_a_launch_that_was_measured(measured):
    assert blame(measured, Circumstances(last=True)) is None
    assert settled(measured, Circumstances(last=True)) == measured


def test_what_the_log_explains_is_the_configurations(failed):
    assert blame(failed("OutOfMemory", State.PRUNED), Circumstances()) is Blame.CONFIGURATION


@pytest.mark.parametrize(("error", "state"), [("OutOfMemory", State.PRUNED), ("Unexplained", State.FAILED)])
def test_memory_that_others_held_excuses_every_failure(failed, error, state):
    record = failed(error, state)
    known = Circumstances(others=BUSY, before=record, last=True, baseline_runs=True)
    assert blame(record, known) is Blame.OTHERS
    assert settled(record, known).state is State.FAILED
    assert present(settled(record, known).failure).message == "others hold 3 GiB"


def test_what_the_launcher_found_others_to_hold_stays_as_it_is(failed):
    record = failed("GpuBusy")
    assert blame(record, Circumstances()) is Blame.OTHERS
    assert settled(record, Circumstances()) == record


def test_one_death_without_a_reason_says_nothing(failed):
    assert blame(failed("Unexplained"), Circumstances()) is Blame.MACHINE


@pytest.mark.parametrize(
    ("baseline_runs", "whose"), [(None, Blame.OPEN), (True, Blame.CONFIGURATION), (False, Blame.MACHINE)]
)
def test_two_deaths_alike_are_the_configurations_while_the_baseline_runs(failed, baseline_runs, whose):
    record = failed("Unexplained")
    assert blame(record, Circumstances(before=record, baseline_runs=baseline_runs)) is whose


def test_a_record_says_why_two_deaths_alike_count(failed):
    record = failed("Unexplained")
    judged = settled(record, Circumstances(before=record, baseline_runs=True))
    assert judged.state is State.PRUNED
    assert (
        present(judged.failure).message == "unexplained: died alike in two attempts, while the baseline runs (it ended)"
    )


@pytest.mark.parametrize("role", [Role.BASELINE, Role.CONFIRM_BASELINE])
def test_the_baseline_is_not_measured_against_itself(failed, role):
    record = failed("Unexplained", role=role)
    assert blame(record, Circumstances(before=record)) is Blame.MACHINE


@pytest.mark.parametrize(
    ("error", "last", "whose"),
    [
        ("Unexplained", False, Blame.CONFIGURATION),
        ("MeasurementError", False, Blame.MACHINE),
        ("MeasurementError", True, Blame.CONFIGURATION),
        ("PortTaken", True, Blame.MACHINE),
    ],
)
def test_a_relaunch_of_a_proof_is_not_left_out_for_dying(failed, error, last, whose):
    record = failed(error, proof=PROOF)
    assert blame(record, Circumstances(last=last)) is whose
    assert settled(record, Circumstances(last=last)).failure == record.failure


def test_in_the_search_what_could_not_be_measured_is_no_fault_of_the_configuration(failed):
    assert blame(failed("MeasurementError"), Circumstances(last=True)) is Blame.MACHINE
