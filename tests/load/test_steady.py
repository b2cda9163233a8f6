"""When a stage stops: decided by a pure function."""

import random
from math import sqrt
from statistics import mean

import pytest

from tuner.load.stage import StopRule
from tuner.load.steady import Block, enough, join, student_t

RULE = StopRule(least_s=10.0, most_s=60.0, least_requests=20, rate=0.03)
STEADY = [Block(100.0 + n % 2, 0.1, 0.01) for n in range(8)]
ERRATIC = [Block(100.0 * (1 + n % 2), 0.1, 0.01) for n in range(8)]


def test_a_steady_stage_stops_at_the_floor_and_not_before():
    assert [enough(RULE, elapsed_s, 40, STEADY) for elapsed_s in (9.9, 10.0)] == [False, True]


def test_an_erratic_stage_lasts_until_the_ceiling():
    assert [enough(RULE, elapsed_s, 40, ERRATIC) for elapsed_s in (59.9, 60.0)] == [False, True]


def test_a_stage_waits_for_its_requests_up_to_ten_times_the_ceiling():
    assert [enough(RULE, elapsed_s, 19, STEADY) for elapsed_s in (60.0, 599.0, 600.0)] == [False, False, True]


def test_three_blocks_prove_nothing():
    assert not enough(RULE, 30.0, 40, STEADY[:3])


def test_only_what_decides_must_be_precise():
    wild = [Block(100.0, 0.1 * (1 + n % 2), 0.01) for n in range(8)]
    assert enough(RULE, 10.0, 40, wild)
    assert not enough(StopRule(10.0, 60.0, 20, ttft=0.05), 10.0, 40, wild)


def test_many_blocks_are_joined_without_losing_their_mean():
    values = [float(n) for n in range(90)]
    assert len(join(values)) == 30
    assert mean(join(values)) == mean(values)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (120, 1.980)])
def test_students_t_is_that_of_the_tables(freedom, value):
    assert student_t(freedom) == pytest.approx(value, abs=0.0006)


def test_what_stops_at_a_precision_is_as_precise_as_it_says():
    """Of 300 simulated stages, the mean at the moment of stopping lies within the precision of the truth in 90 %."""
    dice, hits = random.Random(7), 0
    for _ in range(300):
        blocks: list[Block] = []
        while not enough(RULE, 10.0 + len(blocks), 20 + len(blocks), blocks):
            blocks.append(Block(100.0 * (1 + dice.gauss(0, 0.05)), None, None))
        hits += abs(mean(block.rate for block in blocks) / 100 - 1) <= 0.03
    assert hits / 300 > 0.9 - 2 * sqrt(0.09 / 300)
