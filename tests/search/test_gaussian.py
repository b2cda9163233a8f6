"""The Gaussian process over a space, against what is known of it in closed form."""

import numpy as np
import pytest

from tuner.search.gaussian import Axes, GaussianProcess, Kin, Posterior, Precision

RNG = np.random.default_rng(7)
AXES = Axes((True, True, False), (1.0, 0.1, 1.0))


def points(count):
    return np.column_stack([RNG.random((count, 2)), RNG.integers(0, 3, count)])


def of_studies(*counts):
    """So many observations of this study, and of each other."""
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("counts", [(15,), (6, 4, 5)])
def test_the_gradient_by_which_variances_are_found_is_that_of_the_posterior(counts):
    seen, values = points(15), 0.2 * RNG.normal(size=15)
    expected, known = (
        np.log([0.06, 0.0006, 0.06, 0.3, 0.0009]),
        Precision(0.03, 0.5, RNG.integers(1, 4, 15).astype(np.float64), 1e-4),
    )
    spreads, kin = np.array([1.0, 1.0, 1.0, 1.0, 0.5]), Kin.of(of_studies(*counts))
    posterior = Posterior(AXES.alike(seen, seen), values, expected, spreads, known, kin)
    at = posterior.expected + 0.3 * RNG.normal(size=5)
    steps = 1e-5 * np.eye(5)
    numeric = [(posterior(at + step)[0] - posterior(at - step)[0]) / 2e-5 for step in steps]
    assert posterior(at)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_what_was_seen_is_known_and_what_is_far_away_is_not():
    seen = np.array([[0.0, 0.5, 0.0], [0.1, 0.5, 0.0], [0.2, 0.5, 0.0]])
    process = GaussianProcess(AXES, seen, np.array([1.0, 1.1, 1.2]), np.zeros(3), Precision(0.01))
    mean, deviation = process.at(np.vstack([seen, [[1.0, 0.5, 2.0]]]), np.zeros(4))
    assert mean[:3] == pytest.approx([1.0, 1.1, 1.2], abs=0.02)
    assert deviation[3] > 5 * deviation[:3].max()


def test_a_parameter_without_effect_is_given_less_than_one_with():
    seen = points(60)
    values = 0.5 * np.sin(3 * seen[:, 0]) + 0.02 * RNG.normal(size=60)
    found = GaussianProcess(Axes((True, True, False), (1.0, 1.0, 1.0)), seen, values, np.zeros(60), Precision(0.03))
    assert found.variances.effects[0] > 3 * found.variances.effects[1:].max()


def test_two_points_that_differ_in_nothing_that_matters_are_known_to_be_alike():
    """So that a copy of the best is worth nothing, however noisy its reading was."""
    seen = points(40)
    process = GaussianProcess(AXES, seen, 0.5 * seen[:, 0], np.zeros(40), Precision(0.03))
    best = np.array([0.9, 0.2, 1.0])
    copy, other = np.array([0.9, 0.8, 1.0]), np.array([0.1, 0.2, 1.0])
    gain, deviation = process.difference(np.array([best, copy, other]), best, np.zeros(3), 0.0)
    assert deviation[0] < 1e-5
    assert deviation[1] < 0.2 * np.sqrt(process.variances.whole)
    assert gain[2] < -0.3


def test_a_space_without_parameters_has_a_level_and_nothing_else():
    process = GaussianProcess(Axes((), ()), np.zeros((3, 0)), np.array([1.0, 2.0, 3.0]), np.zeros(3), Precision(0.03))
    assert process.at(np.zeros((1, 0)), np.zeros(1))[0] == pytest.approx([2.0])


def test_variances_stay_where_observations_that_agree_have_an_inverse():
    seen = np.repeat(points(3), 8, axis=0)
    process = GaussianProcess(AXES, seen, np.zeros(24), np.zeros(24), Precision(0.03))
    assert np.abs(process.posterior.mode_logs - process.posterior.expected).max() <= 8.0


def truth(seen):
    return 0.5 * seen[:, 0] - 0.2 * (seen[:, 2] == 1) + 0.1 * seen[:, 1]


def begun_with(sign, own, other=25):
    """What is known of this study's truth after some launches, begun with another that has its sign or the opposite."""
    seen, earlier = points(own), points(other)
    values = np.r_[truth(seen), 3.0 + sign * truth(earlier)] + 0.03 * RNG.normal(size=own + other)
    both, study = np.vstack([seen, earlier]), of_studies(own, other)
    return GaussianProcess(AXES, both, values, np.zeros(own + other), Precision(0.03), study=study)


def error(process):
    """Of the differences to one point, in the mean."""
    asked, one = points(50), np.array([0.5, 0.5, 0.0])
    mean, _ = process.difference(asked, one, np.zeros(50), 0.0)
    return np.mean(np.abs(mean - (truth(asked) - truth(one[None, :]))))


def test_another_study_of_the_same_truth_is_believed_whatever_its_level():
    alone = GaussianProcess(AXES, seen := points(3), truth(seen), np.zeros(3), Precision(0.03))
    process = begun_with(1.0, own=3)
    assert error(process) < 0.5 * error(alone)
    assert begun_with(1.0, own=12).kin.agreement[1] > 0.85


def test_a_study_that_misleads_loses_its_weight_after_a_few_launches():
    beforehand = Kin.of(of_studies(1, 1)).agreement[1]
    after = [begun_with(-1.0, own=own).kin.agreement[1] for own in (1, 5, 12)]
    assert after[0] == pytest.approx(beforehand, abs=0.1)
    assert after[1] < 0.5
    assert after[2] < 0.2


def test_studies_are_believed_each_by_itself():
    seen, good, bad = points(12), points(25), points(25)
    values = np.r_[truth(seen), 1.0 + truth(good), -truth(bad)] + 0.03 * RNG.normal(size=62)
    both, study = np.vstack([seen, good, bad]), of_studies(12, 25, 25)
    process = GaussianProcess(AXES, both, values, np.zeros(62), Precision(0.03), study=study)
    assert process.kin.agreement[1] > 0.8 > 0.3 > process.kin.agreement[2]
