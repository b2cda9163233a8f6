"""What is screened in a launch, and what the search makes of it."""

import math
from typing import cast

import pytest
from pydantic import JsonValue

from tests.bench.landscapes import DEPLOYED, SPACE
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Observation
from tuner.search.live import within
from tuner.space import Candidate, SearchSpace, Settings

LIVE = ("max_num_seqs", "max_num_batched_tokens")
START: dict[str, JsonValue] = {name: cast(JsonValue, value) for name, value in DEPLOYED.items()}
ROOM = SearchSpace.model_validate(SPACE)


def search():
    return AdditiveSearch(ROOM, "maximize", Settings(), 0)


def candidate(**values: JsonValue) -> Candidate:
    return ROOM.candidate({**START, **values})


def seen(value=100.0, screened=False, **values):
    return Observation(candidate(**values), (value,), -0.5, screened=screened)


def test_settings_are_nowhere_above_the_launch():
    found = list(within(ROOM, LIVE, candidate(max_num_seqs=16, max_num_batched_tokens=4096)))
    assert {each.params["max_num_seqs"] for each in found} == {4, 8, 16}
    assert {each.params["max_num_batched_tokens"] for each in found} == {2048, 4096}
    assert all({**each.params, **dict.fromkeys(LIVE)} == {**DEPLOYED, **dict.fromkeys(LIVE)} for each in found)


def test_what_is_left_to_the_engine_is_not_changed():
    found = within(ROOM, LIVE, candidate(max_num_seqs=None, max_num_batched_tokens=2048))
    assert [each.params["max_num_seqs"] for each in found] == [None]


def test_a_proposal_is_launched_larger_than_any_that_ran_and_by_one_step_only():
    launch = search().plan(LIVE, 6, [seen()])
    assert launch.candidate.params["max_num_seqs"] == 64
    assert launch.candidate.params["max_num_batched_tokens"] == 16384
    assert 1 <= len(launch.screened) <= 6
    assert launch.candidate.digest not in {each.digest for each in launch.screened}


def test_it_is_launched_as_proposed_where_something_speaks_against_more():
    launch = search().plan(LIVE, 6, [seen()], sound=lambda one: one.params["max_num_seqs"] not in (64, 128))
    assert launch.candidate.params == search().propose([seen()]).params


def test_what_died_ends_the_steps():
    died = [Observation(candidate(max_num_seqs=seqs), None) for seqs in (32, 64, 128)]
    launch = search().plan(LIVE, 6, [seen(), *died])
    assert launch.candidate.params["max_num_seqs"] in (4, 8, 16)


def test_what_was_screened_can_still_be_launched_and_is_never_recommended():
    better = seen(200.0, screened=True, max_num_seqs=8)
    known = [seen(), seen(90.0, max_num_seqs=8, block_size=32), better]
    assert search().recommend(known) == candidate()
    model = search().model(known)
    assert model.expected_improvement([better.candidate])[0] > 0.03


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_by_how_much_screening_differs_follows_from_what_was_both(bias):
    """A constant bias of screening does not make what was only screened look better than launches."""
    launched = [seen(100 * math.exp(0.1 * math.log2(seqs)), max_num_seqs=seqs) for seqs in (8, 16, 32)]
    values = {seqs: 100 * math.exp(0.1 * math.log2(seqs) + bias) for seqs in (8, 16, 32, 64)}
    live = [seen(value, screened=True, max_num_seqs=seqs) for seqs, value in values.items()]
    points = [candidate(max_num_seqs=64), candidate(max_num_seqs=32)]
    model = search().model([*launched, *live])
    gains = model.expected_improvement(points)
    assert gains[0] == pytest.approx(0.1, abs=0.05)
    assert gains[1] < 0.02
