"""Predictions held against the simulated engine, on configurations at random: nothing that starts is ruled out."""

import sys

import pytest

from tests.engines.vllm.replay import COLUMNS, Tally, replay
from tests.engines.vllm.world import WORLDS

STARTS = (0, 1, 4, 16)
SEEDS = range(4)
CONFIGURATIONS = 60


def tally(world, starts, warm):
    return sum((replay(world, starts, warm, CONFIGURATIONS, seed) for seed in SEEDS), Tally())


@pytest.fixture(scope="module")
def rows():
    """The tally after so many starts, cold or warm, in every world."""
    return {
        (world.name, warm, starts): tally(world, starts, warm)
        for world in WORLDS
        for warm in (False, True)
        for starts in STARTS
    }


def test_nothing_that_starts_is_ruled_out(rows, capsys):
    """Over some thousand configurations, in four worlds, before and after up to sixteen starts."""
    with capsys.disabled():
        sys.stdout.write(table(rows))
    assert sum(row.asked for row in rows.values()) >= 5000
    assert sum(row.wronged for row in rows.values()) == 0


def test_most_of_what_is_doomed_is_ruled_out_after_a_few_starts(rows):
    after = [row for (_, _, starts), row in rows.items() if starts == STARTS[-1]]
    assert sum(row.caught for row in after) > 0.7 * sum(row.doomed for row in after)
    assert sum(row.foreseen for row in after) > 0.9 * sum(row.doomed for row in after)


def test_the_kv_cache_is_hardly_ever_larger_than_the_margin_allows(rows):
    warm = [row for (_, warm, _), row in rows.items() if warm]
    assert sum(row.beyond for row in warm) <= 0.005 * sum(row.asked - row.doomed for row in warm)


def test_starts_make_the_predictions_better(rows):
    for world in WORLDS:
        first, last = (rows[world.name, True, starts] for starts in (STARTS[0], STARTS[-1]))
        assert last.caught / last.doomed > first.caught / first.doomed
        assert sum(map(abs, last.errors)) / len(last.errors) < sum(map(abs, first.errors)) / len(first.errors)


def table(rows):
    head = f"\n  {'world':<32}{'starts':>10}" + "".join(f"{name:>11}" for name in COLUMNS)
    lines = [
        f"  {name:<32}{f'{starts} ' + ('warm' if warm else 'cold'):>10}" + "".join(f"{cell:>11}" for cell in row.row)
        for (name, warm, starts), row in rows.items()
    ]
    return "\n".join([head, *lines, ""])
