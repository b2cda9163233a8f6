"""Intervals hold the truth as often as they promise."""

import random

import pytest

from tests.present import present
from tuner.load.intervals import percentile_interval, rate_interval
from tuner.load.percentile import percentile


def covered(blocks, dice):
    """Whether the interval of one sample's median holds the true one, 100: the requests of a block share a shock."""
    drawn = []
    for _ in range(blocks):
        shock = dice.gauss(0, 5)
        drawn.append([100 + shock + dice.gauss(0, 5) for _ in range(5)])
    value = present(percentile([v for block in drawn for v in block], 50))
    interval = present(percentile_interval(drawn, 50, value, 5 * blocks, seed=1))
    return interval.low <= 100 <= interval.high


@pytest.mark.parametrize("blocks", [5, 10, 20])
def test_a_medians_interval_holds_the_truth_although_requests_of_a_block_are_alike(blocks):
    dice = random.Random(blocks)
    hits = sum(covered(blocks, dice) for _ in range(300)) / 300
    assert 0.90 <= hits <= 0.995


def test_fewer_than_three_blocks_give_no_interval():
    assert percentile_interval([[1.0], [2.0]], 50, 1.5, 2, seed=1) is None
    assert rate_interval([(0.5, 1.0)], [0.0, 0.5, 1.0], n=2) is None


def test_the_same_records_give_the_same_interval():
    blocks = [[float(n), float(n + 3)] for n in range(8)]
    first, again = (percentile_interval(blocks, 50, 5.0, 16, seed=1) for _ in range(2))
    assert first == again


def test_an_interval_holds_its_own_estimate_and_is_in_its_unit():
    interval = present(rate_interval([(10.0 * n, 2.0) for n in range(100)], [100.0 * n for n in range(11)], n=50))
    assert interval.low <= 200 <= interval.high
    assert interval.high - interval.low < 20
    assert interval.n == 50


def in_step(rounds, dice):
    """Users who wait for the same steps: a pause for their prompts, then a token each in every step."""
    at_ms, arrivals, ends = 0.0, [], [0.0]
    for _ in range(rounds):
        at_ms += 280 * (1 + dice.gauss(0, 0.05))
        for _ in range(128):
            at_ms += 13.4 * (1 + dice.gauss(0, 0.02))
            arrivals.append((at_ms, 16.0))
        ends.append(at_ms)
    return arrivals, ends


TRUE_IN_STEP = 16 * 128 / (0.280 + 128 * 0.0134)


@pytest.mark.parametrize("rounds", [3, 8, 40])
def test_a_rates_interval_is_as_narrow_as_the_rounds_are_alike_and_holds_the_truth(rounds):
    dice = random.Random(rounds)
    hits, widths = 0, []
    for _ in range(300):
        arrivals, ends = in_step(rounds, dice)
        interval = present(rate_interval(arrivals, ends, n=16 * rounds))
        hits += interval.low <= TRUE_IN_STEP <= interval.high
        widths.append((interval.high - interval.low) / TRUE_IN_STEP)
    assert 0.90 <= hits / 300 <= 0.99
    assert sorted(widths)[150] < 0.05  # equal slices of time gave 0.5 for three rounds


def apart(users, rounds, dice):
    """Users on their own, each of them as fast as chance has it: answers end one by one."""
    arrivals, answers = [], []
    for _ in range(users):
        at_ms = dice.random() * 2000
        while at_ms < 2000 * (rounds + 3):
            gap_ms = dice.gauss(15, 2)
            steps = [at_ms + gap_ms * n for n in range(1, 129)]
            arrivals += [(step, 1.0) for step in steps]
            answers.append(steps[-1])
            at_ms = steps[-1] + 80
    return arrivals, sorted(answers)


def test_of_users_on_their_own_the_interval_holds_the_truth_as_well():
    dice, users, hits = random.Random(3), 8, 0
    true = users * 128 / (0.080 + 128 * 0.015)
    for _ in range(200):
        arrivals, answers = apart(users, 8, dice)
        whole = [end for end in answers if end > 2000]
        interval = present(rate_interval(arrivals, whole[::users][:9], n=64))
        hits += interval.low <= true <= interval.high
    assert 0.88 <= hits / 200 <= 1.0


def test_a_hundred_thousand_values_take_no_longer_than_a_few_bins():
    blocks = [[float((n * 7919 + b) % 1000) for n in range(4000)] for b in range(30)]
    interval = present(percentile_interval(blocks, 50, 499.5, 500, seed=1))
    assert interval.low == pytest.approx(499.5, abs=15)
    assert interval.high == pytest.approx(499.5, abs=15)
