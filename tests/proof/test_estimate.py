"""The estimate against numpy's least squares."""

import random
from math import exp, inf, log, sqrt

import numpy as np
import pytest

from tests.present import present
from tuner.proof.estimate import MOST, Noise, Point, level, ratio, share
from tuner.proof.order import turns


def _points(pairs, seed=0, gain=0.1, sd=0.03, drift=0.0):
    dice = random.Random(f"points {seed}")
    order = turns(f"order {seed}", pairs)
    return [Point(of, 100 * exp(log(1 + gain) * of + drift * at + dice.gauss(0, sd))) for at, of in enumerate(order)]


def _least_squares(points, *, drift):
    """Center, standard error and degrees of freedom of the candidate's coefficient."""
    columns = [[1.0, float(point.candidate), *([float(at)] if drift else [])] for at, point in enumerate(points)]
    design, logs = np.array(columns), np.log([point.value for point in points])
    solution, squares, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    dof = len(points) - int(rank)
    error = sqrt(float(squares[0]) / dof * np.linalg.inv(design.T @ design)[1, 1])
    return float(solution[1]), error, dof


@pytest.mark.parametrize("pairs", [3, 4, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_from_three_launches_of_each_a_line_in_time_is_taken_out_as_by_least_squares(pairs, seed):
    points = _points(pairs, seed, drift=0.01)
    found = ratio(points)
    assert (found.center, found.error, found.dof) == pytest.approx(_least_squares(points, drift=True))


@pytest.mark.parametrize("seed", range(5))
def test_two_launches_of_each_are_compared_by_their_means_alone(seed):
    points = _points(2, seed)
    found = ratio(points)
    assert (found.center, found.error, found.dof) == pytest.approx(_least_squares(points, drift=False))


@pytest.mark.parametrize("pairs", [4, 6, 8])
def test_a_steady_drift_changes_neither_estimate_nor_error(pairs):
    plain, drifting = ratio(_points(pairs)), ratio(_points(pairs, drift=0.02))
    assert (drifting.center, drifting.error) == pytest.approx((plain.center, plain.error))


def test_known_noise_is_pooled_by_degrees_of_freedom():
    points = _points(4)
    alone, pooled = ratio(points), ratio(points, Noise(0.04, 10))
    expected = sqrt((alone.dof * present(alone.noise) ** 2 + 10 * 0.04**2) / (alone.dof + 10))
    assert pooled.noise == pytest.approx(expected)
    assert pooled.dof == alone.dof + 10


def test_launches_that_scatter_more_than_the_known_noise_explains_stand_alone():
    points = _points(4, sd=0.2)
    assert ratio(points, Noise(0.01, 20)) == ratio(points)


def test_noise_known_as_none_at_all_is_not_believed_where_launches_scatter():
    points = _points(4)
    assert ratio(points, Noise(0.0, 20)) == ratio(points)


def test_one_launch_of_each_tells_nothing_without_known_noise():
    found = ratio(_points(1))
    assert (found.error, found.noise) == (inf, None)
    assert found.bounds(0.02) == (-inf, inf)


def test_a_level_is_the_geometric_mean_with_its_standard_error():
    values = [90.0, 100.0, 110.0]
    logs = np.log(values)
    found = level(values)
    assert (found.center, found.error) == pytest.approx((logs.mean(), logs.std(ddof=1) / sqrt(3)))
    assert found.dof == 2


def test_the_interval_of_a_level_is_students():
    low, high = level([90.0, 100.0, 110.0]).bounds(0.025)
    error = np.log([90.0, 100.0, 110.0]).std(ddof=1) / sqrt(3)
    assert (high - low) / 2 == pytest.approx(4.302653 * error)


@pytest.mark.parametrize(("log_ratio", "higher", "lower"), [(log(1.1), 0.1, -0.1), (log(0.5), -0.5, 0.5), (0, 0, 0)])
def test_a_share_says_by_how_much_the_candidate_is_better(log_ratio, higher, lower):
    assert share(log_ratio, better_if_higher=True) == pytest.approx(higher)
    assert share(log_ratio, better_if_higher=False) == pytest.approx(lower)


@pytest.mark.parametrize("log_ratio", [-inf, -1e6, 1e6, inf])
@pytest.mark.parametrize("higher", [True, False])
def test_a_share_is_finite_whatever_the_ratio(log_ratio, higher):
    assert -MOST <= share(log_ratio, better_if_higher=higher) <= MOST


@pytest.mark.parametrize("seed", range(50))
def test_the_order_is_balanced_after_every_pair_and_free_of_drift_after_every_block(seed):
    order = turns(f"{seed}", 8)
    assert all(order[at] != order[at + 1] for at in range(0, 16, 2))
    for block in range(0, 16, 4):
        of_candidate = sum(at for at in range(block, block + 4) if order[at])
        assert of_candidate == sum(at for at in range(block, block + 4) if not order[at])


def test_the_order_differs_between_seeds_and_is_the_same_for_one():
    assert len({turns(f"{seed}", 8) for seed in range(50)}) > 10
    assert turns("one", 8) == turns("one", 8)
