"""What the relaunches of a proof teach a search that goes on after it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.present import present
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.study.proposals import Proposer, observations

RECORDED = Path(__file__).parents[2] / "studies" / "recorded" / "h200-budget"


@pytest.fixture
def outcome():
    """Three launches, a proof of eight more, and a soak."""
    return Outcome.of(StudyFolder(RECORDED))


def seen(outcome):
    every = observations(outcome.teaching, outcome.config.space, outcome.all_readings)
    return {each.asked: each for each in every if not each.screened}


def test_each_configuration_counts_by_all_of_its_launches(outcome):
    launches = {digest: each.launches for digest, each in seen(outcome).items()}
    assert launches == {outcome.baseline.digest: 5, outcome.best.digest: 6, outcome.records[1].digest: 1}
    assert {each.launches for each in seen(replace(outcome, relaunches=())).values()} == {1}


def test_their_scatter_is_the_noise_that_the_search_reckons_with(outcome):
    noise = present(seen(outcome)[outcome.best.digest].noise)
    assert noise.dof == 9
    assert 0.03 < noise.sd < 0.06
    assert seen(replace(outcome, relaunches=()))[outcome.best.digest].noise is None


def test_the_order_is_that_in_which_they_ran_whatever_is_launched_after_the_proof(outcome):
    later = outcome.records[1].model_copy(update={"number": 3, "started_at": "2099-01-01T00:00:00+00:00"})
    grown = replace(outcome, records=(*outcome.records, later))
    assert grown.teaching[-1] == later
    assert [each.started_at for each in grown.teaching] == sorted(each.started_at for each in grown.teaching)
    assert grown.all_readings.records[-1] == later
    assert grown.readings.noise("output_tokens_per_s") != grown.all_readings.noise("output_tokens_per_s")


def test_what_is_expected_of_the_next_launch_follows_from_them(outcome):
    def asked(outcome):
        return present(Proposer(outcome.config, None, lambda text: None).next(outcome))

    alone, taught = asked(replace(outcome, relaunches=())), asked(outcome)
    assert taught.candidate.digest not in {each.digest for each in outcome.teaching}
    assert present(taught.expected) != present(alone.expected)
