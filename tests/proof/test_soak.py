"""A soak tells growing latency and storms of preemptions from what machines do anyway."""

import random

import pytest

from tuner.proof.soak import Soaked, SoakRound


def rounds(count=10, growth=0.0, noise=0.0, seed=0, **more):
    """Rounds of half a minute, the last of which is slower than the first by so much."""
    dice, grown = random.Random(seed), lambda n: (1 + growth) ** (n / (count - 1))
    return tuple(
        SoakRound(
            began_s=30.0 * n,
            seconds=30.0,
            requests=40,
            ttft_ms=300 * grown(n) * dice.lognormvariate(0, noise),
            tpot_ms=20 * grown(n) * dice.lognormvariate(0, noise),
            **{"preemptions": 0.0, "cached_tokens": 50_000.0, **more},
        )
        for n in range(count)
    )


def soaked(**more):
    return Soaked(rounds=rounds(**more), kv_tokens=200_000)


def test_a_server_that_stays_as_it_is_lasts():
    found = soaked(noise=0.05)
    assert found.faults == ()
    assert found.told == "5.0 minutes, 400 requests, KV cache filled 2.5 times"
    assert not found.enough
    assert soaked(cached_tokens=100_000.0).enough


@pytest.mark.parametrize("growth", [0.3, 1.0])
def test_growing_latency_is_found(growth):
    assert [fault[:8] for fault in soaked(growth=growth, noise=0.02).faults] == ["its TTFT", "its TPOT"]


def test_noise_alone_is_seldom_called_growth():
    """One side of a 99 % interval, and 10 % of growth on top: far fewer than one in a hundred."""
    assert sum(bool(soaked(noise=0.08, seed=seed).faults) for seed in range(300)) <= 3


def test_one_slow_round_is_no_growth():
    usual = rounds()
    stalled = usual[-1].model_copy(update={"ttft_ms": 9000.0, "tpot_ms": 900.0})
    assert Soaked(rounds=(*usual[:-1], stalled)).faults == ()


def test_few_rounds_tell_nothing_of_growth_and_it_is_said():
    found = Soaked(rounds=rounds(count=3, growth=2.0))
    assert found.faults == ()
    assert "KV cache filled an unknown number of times; too few rounds to tell" in found.told


def test_a_storm_of_preemptions_is_one_and_a_few_are_none():
    assert soaked(preemptions=10.0).faults == ()
    assert soaked(preemptions=30.0).faults == ("300 preemptions came on 400 requests in its soak",)


def test_more_failed_requests_than_the_workload_allows_speak_against_it():
    assert soaked(failed=1).faults == ()
    assert soaked(failed=10).faults == ("100 of 500 requests failed in its soak",)
