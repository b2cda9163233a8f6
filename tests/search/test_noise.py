"""What the search makes of configurations that ran more than once."""

import pytest

from tests.present import present
from tests.search.test_live import candidate, search
from tuner.proof.estimate import Noise
from tuner.search.base import Observation


def expected(noise, launches=1):
    """Of a larger batch, after three launches."""
    values = {16: 100.0, 32: 110.0, 64: 105.0}
    seen = [
        Observation(candidate(max_num_seqs=seqs), (value,), -0.5, launches=launches, noise=noise)
        for seqs, value in values.items()
    ]
    return present(search().expectation(seen, candidate(max_num_seqs=128)))


@pytest.mark.parametrize(("less", "more"), [(Noise(0.005, 10.0), None), (None, Noise(0.12, 10.0))])
def test_a_noise_that_repeats_have_shown_makes_what_is_expected_as_uncertain_as_it_is(less, more):
    widths = [each.high / each.low for each in (expected(less), expected(more))]
    assert widths[0] < 0.97 * widths[1]


def test_one_repeat_does_not_make_a_launch_certain():
    assert expected(Noise(0.0001, 1.0)).low < 0.97 * expected(Noise(0.0001, 1.0)).value


def test_a_configuration_that_ran_often_is_better_known():
    def told(launches):
        seen = [Observation(candidate(), (100.0,), -0.5), Observation(candidate(max_num_seqs=64), (110.0,), -0.5)]
        model = search().model([seen[0], Observation(seen[1].candidate, (110.0,), -0.5, launches=launches)])
        return model.reading(seen[1].candidate)[0]

    assert 100 < told(1) < told(20) < 110.5
