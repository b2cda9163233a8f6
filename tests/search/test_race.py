"""A race: the product's search on a landscape of one's own."""

from statistics import median

import numpy as np
import pytest

from tests.bench.landscapes import LANDSCAPES, Hill, live, optimum, worth
from tests.present import present
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Observation
from tuner.space import SearchSpace
from tuner.testing.proof import Died
from tuner.testing.race import race


def test_the_deployment_comes_first_and_no_configuration_twice():
    launches = race(LANDSCAPES["saturating"], launches=15)
    assert launches[0].params == Hill().deployed
    assert len({str(sorted(launch.params.items(), key=str)) for launch in launches}) == 15
    assert all(launch.seconds > 0 for launch in launches)


def test_a_race_can_be_run_again():
    one, other = (race(LANDSCAPES["crossed"], launches=10, seed=3) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("kind", ["auto", "random"])
def test_what_is_recommended_ran(kind):
    launches = race(LANDSCAPES["low ceiling"], search=kind, launches=12, seed=1)
    alive = [launch.params for launch in launches if not launch.died]
    assert all(launch.recommended in alive for launch in launches)


def test_the_default_search_comes_near_the_optimum_where_chance_does_not():
    """A tenth of what ``make bench-search`` measures; seeds and landscape are others."""
    hill = Hill(users=48, tokens=13, expert=0.12, compiled=0.15)
    _, best = optimum(hill)

    def reached(kind):
        runs = [race(hill, search=kind, launches=20, seed=seed) for seed in (101, 102)]
        return [max(worth(hill, launch.params) for launch in run if not launch.died) / best for run in runs]

    assert min(reached("auto")) > 0.9 > max(reached("random"))


def test_a_launch_measures_settings_that_its_server_can_change_to():
    """The landscape itself refuses what is larger than the launch."""
    hill = live(LANDSCAPES["saturating"])
    launches = race(hill, launches=6, seed=1)
    assert launches[0].screened == ()
    assert any(launch.screened for launch in launches)
    assert all(set(setting) == set(hill.live) for launch in launches for setting in launch.screened)
    plain = [hill.seconds(each.params, [one.params for one in launches[:n]]) for n, each in enumerate(launches)]
    cost = [one.seconds - other for one, other in zip(launches, plain, strict=True)]
    assert cost == [len(each.screened) * hill.screen_seconds for each in launches]
    assert all(launch.recommended in [each.params for each in launches] for launch in launches)


def test_a_server_without_live_settings_screens_none():
    assert not any(launch.screened for launch in race(LANDSCAPES["saturating"], launches=4, seed=1))


def test_only_the_default_search_screens():
    hill = live(LANDSCAPES["saturating"])
    assert not any(launch.screened for launch in race(hill, search="random", launches=4, seed=1))


def test_screening_finds_the_batch_in_fewer_launches_although_it_is_biased():
    hill = Hill(users=64, tokens=14)
    _, best = optimum(hill)

    def reached(landscape):
        return median(_best(hill, race(landscape, launches=9, seed=seed)) / best for seed in range(100, 105))

    assert reached(live(hill)) > 0.95 > reached(hill)


def _best(hill, launches):
    return max(worth(hill, launch.params) for launch in launches if not launch.died)


def test_what_the_search_expects_holds_for_most_readings():
    hits = [hit for seed in (0, 1) for hit in _hits(Hill(), seed)]
    assert len(hits) >= 20
    assert sum(hits) / len(hits) >= 0.7


def _hits(hill, seed):
    """Of each launch but the first, whether its reading is within what was expected of it."""
    space, rng = SearchSpace.model_validate(hill.space), np.random.default_rng(seed)
    search = AdditiveSearch(space, "maximize", space.settings(space.candidate(hill.deployed)), seed)
    seen = [_read(hill, space.candidate(hill.deployed), rng)]
    while len(seen) < 14:
        candidate = present(search.propose(seen))
        expected = present(search.expectation(seen, candidate))
        seen.append(_read(hill, candidate, rng))
        if seen[-1].values:
            assert expected.low < expected.value < expected.high
            yield expected.low <= seen[-1].values[0] <= expected.high


def _read(hill, candidate, rng):
    try:
        return Observation(candidate, (hill.evaluate(candidate.params, rng)["output_tokens_per_s"],))
    except Died:
        return Observation(candidate, None)


def test_why_a_launch_is_asked_for_is_said():
    hill = Hill()
    space = SearchSpace.model_validate(hill.space)
    search = AdditiveSearch(space, "maximize", space.settings(space.candidate(hill.deployed)), 0)
    deployed, double = (space.candidate({**hill.deployed, "max_num_seqs": seqs}) for seqs in (16, 32))
    assert search.expectation([], deployed) is None
    assert (
        present(
            search.expectation(
                [Observation(deployed, (100.0,))], present(search.propose([Observation(deployed, (100.0,))]))
            )
        ).why
        == "new choices"
    )
    known = [Observation(deployed, (100.0,)), Observation(double, (130.0,))]
    more = space.candidate({**hill.deployed, "max_num_seqs": 64})
    assert present(search.expectation(known, more)).why == "exploit"
    assert present(search.expectation(known, space.candidate({**hill.deployed, "max_num_seqs": 8}))).why == "explore"
