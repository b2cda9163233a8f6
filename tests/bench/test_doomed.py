"""Pre-flight and lessons spare launches, on the simulated 4090s, and lose nothing that is worth finding."""

from statistics import fmean

import pytest

from tests.bench.doomed import memory, tallies

SITE = "RTX 4090 x2, 0.15, AWQ"
SEEDS = range(3)
LOSS = 0.01


@pytest.fixture(scope="module")
def arms():
    """The same studies with each arm."""
    return {arm: tallies(SITE, "tpe", arm, SEEDS) for arm in ("plain", "and lessons")}


def test_at_most_a_quarter_of_the_launches_die_that_die_in_a_plain_search(arms):
    dead = {arm: sum(each.dead for each in found) for arm, found in arms.items()}
    assert dead["plain"] > 15
    assert dead["and lessons"] <= 0.25 * dead["plain"]


def test_less_gpu_time_goes_to_launches_that_die(arms):
    minutes = {arm: sum(each.dead_minutes for each in found) for arm, found in arms.items()}
    assert minutes["and lessons"] < 0.5 * minutes["plain"]


def test_the_optimum_is_not_lost(arms):
    best = {arm: fmean(each.best for each in found) for arm, found in arms.items()}
    assert best["and lessons"] > (1 - LOSS) * best["plain"]


def test_every_study_uses_its_whole_budget_of_launches(arms):
    assert {each.launches for found in arms.values() for each in found} == {40}
    assert all(each.ruled_out == 0 for each in arms["plain"])
    assert sum(each.ruled_out for each in arms["and lessons"]) > 0


def test_the_table_of_real_runs_has_every_run_before_and_after_a_start():
    rows = [(name, taught) for name, taught, _ in memory()]
    assert rows == [
        ("A_cold", "nothing"),
        ("B_warm", "nothing"),
        ("B_warm", "A_cold"),
        ("C_seqs8", "nothing"),
        ("C_seqs8", "A_cold"),
        ("E_full_cold", "nothing"),
    ]
    assert all("(" in cells[0] and "(" in cells[-1] for _, _, cells in memory())
