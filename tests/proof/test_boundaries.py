"""The levels against published ones, and against paths drawn at random."""

import numpy as np
import pytest
from scipy.special import ndtri

from tuner.proof.boundaries import levels, spent

ALPHA = 0.025


def test_three_even_looks_have_the_bounds_that_gsdesign_prints():
    """The default design of R's gsDesign: Hwang-Shih-DeCani, gamma -4, one-sided 2.5 %."""
    bounds = [-ndtri(level) for level in levels(ALPHA, (1, 2, 3), -4.0)]
    assert bounds == pytest.approx([3.0107, 2.5465, 1.9992], abs=2e-3)


def test_what_three_even_looks_spend_is_what_gsdesign_prints():
    spends = np.diff([0.0, *(spent(ALPHA, share, -4.0) for share in (1 / 3, 2 / 3, 1.0))])
    assert spends == pytest.approx([0.0013, 0.0049, 0.0188], abs=5e-5)


@pytest.mark.parametrize("gamma", [-4.0, 0.0, 1.0])
def test_all_of_alpha_is_spent_in_the_end_and_none_before_the_beginning(gamma):
    assert spent(ALPHA, 0.0, gamma) == 0.0
    assert spent(ALPHA, 1.0, gamma) == pytest.approx(ALPHA)


def test_a_single_look_has_the_level_of_a_single_test():
    assert levels(ALPHA, (8,), -4.0) == pytest.approx((ALPHA,), abs=1e-4)


@pytest.mark.parametrize("looks", [(4, 5, 6, 7, 8), (3, 4, 5, 6, 7, 8), (3, 10)])
@pytest.mark.parametrize("gamma", [-4.0, 0.0])
def test_random_walks_cross_as_often_as_is_spent(looks, gamma):
    paths, dice = 200_000, np.random.default_rng(1)
    steps = dice.standard_normal((paths, looks[-1])).astype(np.float32)
    sums = steps.cumsum(axis=1)
    crossed = np.zeros(paths, dtype=bool)
    for look, level in zip(looks, levels(ALPHA, looks, gamma), strict=True):
        crossed |= sums[:, look - 1] / np.sqrt(look) > -ndtri(level)
        expected = spent(ALPHA, look / looks[-1], gamma)
        assert crossed.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / paths))
