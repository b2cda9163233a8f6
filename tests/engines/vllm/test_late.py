"""What comes after the KV cache is learned from what fitted and what did not."""

import pytest

from tuner.engines.vllm.memory.late import FLOOR, PRIOR, Late, Need

NEED = Need(workspace_gib=0.5, gather_gib=0.1, warm_up_gib=2.4)


def learned(*shown):
    late = Late()
    for room_gib, fitted in shown:
        late.learn(NEED, room_gib, fitted)
    return late


def test_before_any_start_the_formulas_are_believed_and_little_is_ruled_out():
    assert learned().likely == pytest.approx(1.0, abs=0.15)
    assert learned().least == pytest.approx(learned().likely * (1 - PRIOR))


def test_failures_raise_the_likely_share_and_successes_lower_it():
    plain = learned().likely
    assert learned((3.6, False)).likely > plain > learned((1.8, True)).likely
    assert learned((3.6, False), (3.6, False)).likely > learned((3.6, False)).likely


def test_what_was_bound_to_fit_or_to_fail_teaches_next_to_nothing():
    assert learned((30.0, True)).likely == pytest.approx(learned().likely, rel=0.01)
    assert learned((0.1, False)).likely == pytest.approx(learned().likely, rel=0.01)


def test_failures_that_were_likely_narrow_the_margin():
    shares = [late.least / late.likely for late in (learned(*[(2.0, False)] * count) for count in (0, 1, 3))]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] <= 1 - FLOOR


def test_one_that_was_likely_to_fail_and_fitted_widens_it_to_three_times_the_error():
    late = learned((1.5, True))
    error = 1 - 1.5 / (learned().likely * NEED.gib)
    assert late.least == pytest.approx(max(0.0, late.likely * (1 - 3 * error)))


def test_whatever_needs_as_much_and_has_no_more_room_is_known_to_fail():
    late = learned((2.0, False))
    larger = Need(0.5, 0.2, 2.4)
    assert late.failed(NEED, 2.0) == late.failed(larger, 1.0) == 2.0
    assert late.failed(NEED, 2.1) is None
    assert late.failed(Need(0.4, 0.1, 9.9), 1.0) is None
    late.learn(Need(0.0, 0.0, 1.0, 8192), 2.0, False)
    assert late.failed(Need(0.0, 0.0, 1.0, 4096), 1.0) is None
    assert late.failed(Need(0.0, 0.0, 1.0, 16384), 1.0) == 2.0
    assert learned((2.0, True)).failed(NEED, 1.0) is None


def test_nothing_follows_from_a_start_that_needs_nothing():
    late = Late()
    late.learn(Need(0.0, 0.0, 0.0), 1.0, True)
    assert late.likely == Late().likely
