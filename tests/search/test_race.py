"""A race: the product's search on a landscape of one's own."""

import pytest

from tests.bench.landscapes import LANDSCAPES, Hill, optimum, worth
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
