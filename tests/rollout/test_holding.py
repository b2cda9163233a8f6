"""One more launch of a winner is held against the launches of its proof."""

import random
from math import exp

import pytest

from tests.simulated import simulated_study
from tuner.errors import ConfigError, MeasurementError
from tuner.export.profile import profile_of
from tuner.proof.decision import Bound, Effect
from tuner.rollout.holding import held, needed

NOISE = 0.03


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    found = profile_of(simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s"))
    assert found is not None
    return found


def proven(profile, goals=(), limits=(), others=()):
    decision = profile.verdict.decision
    update = {"goals": dict(goals), "limits": dict(limits), "others": dict(others)}
    verdict = profile.verdict.model_copy(update={"decision": decision.model_copy(update=update)})
    return profile.model_copy(update={"verdict": verdict})


def effect(*read, noise=NOISE):
    return Effect(
        gain=0.1, low=0.05, high=0.15, baseline=tuple(each / 1.1 for each in read), candidate=read, noise=noise
    )


SPEED = {"output_tokens_per_s": effect(100.0, 103.0, 97.0, 100.0)}
BOUND = Bound(value=0.9, low=0.85, high=0.95, kept=True, broken=False)


def test_a_launch_like_those_of_the_proof_holds_and_a_slower_one_does_not(profile):
    found = proven(profile, SPEED)
    (good,) = held(found, [{"output_tokens_per_s": 95.0}])
    (bad,) = held(found, [{"output_tokens_per_s": 85.0}])
    (better,) = held(found, [{"output_tokens_per_s": 500.0}])
    assert (good.holds, bad.holds, better.holds) == (True, False, True)
    assert good.low < 95 < good.proven < good.high


def test_sound_launches_are_seldom_refused(profile):
    dice, refused, tries = random.Random(1), 0, 2000
    for _ in range(tries):
        read = [exp(dice.gauss(0, NOISE)) for _ in range(9)]
        spread = (sum((value - sum(read[:8]) / 8) ** 2 for value in read[:8]) / 7) ** 0.5
        found = proven(profile, {"output_tokens_per_s": effect(*read[:4], noise=spread)})
        refused += not held(found, [{"output_tokens_per_s": read[8]}])[0].holds
    assert 0 < refused / tries < 0.02


def test_several_measurements_count_by_their_mean(profile):
    found = proven(profile, SPEED)
    (mean,) = held(found, [{"output_tokens_per_s": 85.0}, {"output_tokens_per_s": 105.0}])
    assert mean.holds
    assert 94 < mean.measured < 95


def test_a_limit_fails_only_beyond_its_bound(profile):
    found = proven(
        profile, SPEED, {"ttft_p50_ms": BOUND}, {"ttft_p50_ms": effect(200.0, 202.0, 198.0, 200.0, noise=0.01)}
    )
    within, beyond = (
        held(found, [{"output_tokens_per_s": 100.0, "ttft_p50_ms": value}])[0] for value in (220.0, 230.0)
    )
    assert (within.limit, within.holds, beyond.holds) == (True, True, False)
    assert within.measured > within.high, "slower than ever, and within its limit"


def test_what_was_not_measured_is_no_proof(profile):
    with pytest.raises(MeasurementError, match="output_tokens_per_s was not measured"):
        held(proven(profile, SPEED), [{"tpot_p50_ms": 3.0}])
    with pytest.raises(ConfigError, match="no proof"):
        needed(proven(profile))


def test_what_only_a_launch_of_ours_tells_is_not_asked_for(profile):
    assert needed(proven(profile, {**SPEED, "startup_s": effect(10.0, 10.0)})) == {"output_tokens_per_s": False}
    assert needed(proven(profile, {**SPEED, "energy_per_token_j": effect(0.3, 0.2)})) == {"output_tokens_per_s": False}
    with pytest.raises(ConfigError, match="no proof that could be held"):
        needed(proven(profile, {"cost_per_million_tokens": effect(0.3, 0.2)}))
