"""Intervals hold the truth as often as they promise."""

import random

import pytest

from tuner.load.intervals import percentile_interval, rate_interval
from tuner.load.percentile import percentile
from tuner.load.records import Window


def covered(blocks, dice):
    """Whether the interval of one sample's median holds the true one, 100: the requests of a block share a shock."""
    drawn = []
    for _ in range(blocks):
        shock = dice.gauss(0, 5)
        drawn.append([100 + shock + dice.gauss(0, 5) for _ in range(5)])
    value = percentile([v for block in drawn for v in block], 50)
    interval = percentile_interval(drawn, 50, value, 5 * blocks, seed=1)
    return interval.low <= 100 <= interval.high


@pytest.mark.parametrize("blocks", [5, 10, 20])
def test_a_medians_interval_holds_the_truth_although_requests_of_a_block_are_alike(blocks):
    dice = random.Random(blocks)
    hits = sum(covered(blocks, dice) for _ in range(300)) / 300
    assert 0.90 <= hits <= 0.995


def test_fewer_than_three_blocks_give_no_interval():
    assert percentile_interval([[1.0], [2.0]], 50, 1.5, 2, seed=1) is None
    assert rate_interval([(0.5, 1.0)], Window(0.0, 1.0), rounds=2, n=2) is None


def test_the_same_records_give_the_same_interval():
    blocks = [[float(n), float(n + 3)] for n in range(8)]
    first, again = (percentile_interval(blocks, 50, 5.0, 16, seed=1) for _ in range(2))
    assert first == again


def test_an_interval_holds_its_own_estimate_and_is_in_its_unit():
    interval = rate_interval([(10.0 * n, 2.0) for n in range(100)], Window(0.0, 1000.0), rounds=10, n=50)
    assert interval.low <= 200 <= interval.high
    assert interval.high - interval.low < 20
    assert interval.n == 50


def test_a_hundred_thousand_values_take_no_longer_than_a_few_bins():
    blocks = [[float((n * 7919 + b) % 1000) for n in range(4000)] for b in range(30)]
    interval = percentile_interval(blocks, 50, 499.5, 500, seed=1)
    assert interval.low == pytest.approx(499.5, abs=15)
    assert interval.high == pytest.approx(499.5, abs=15)
