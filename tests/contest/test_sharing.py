"""Launches alternate until one engine cannot win, and no engine is given up that could."""

import random
from math import log

import pytest

from tuner.contest.levels import ConcurrencyLevel
from tuner.contest.sharing import Share, given_up, turn
from tuner.proof.estimate import Noise
from tuner.proof.reach import Reach

ONE = ConcurrencyLevel("users_1", {"output_tokens_per_s.users_1": "maximize"}, {})
FIVE = ConcurrencyLevel("users_5", {"output_tokens_per_s": "maximize"}, {})
LEVELS = (ONE, FIVE)
KNOWN = Noise(0.03, 6)


def share(name, one, five, noise=KNOWN, launched=None, over=False):
    reaches = {
        "output_tokens_per_s.users_1": Reach([log(value) for value in one], noise),
        "output_tokens_per_s": Reach([log(value) for value in five], noise),
    }
    return Share(name, len(one) if launched is None else launched, over, reaches)


def near(value, count=6):
    return [value * (1 + 0.01 * (number % 3)) for number in range(count)]


def test_launches_alternate_beginning_with_the_one_that_is_named_first():
    none = [Share("vllm", 0, over=False, reaches={}), Share("llamacpp", 0, over=False, reaches={})]
    assert turn(none, (), 8) == "vllm"
    assert turn([share("vllm", [50], [200]), none[1]], LEVELS, 8) == "llamacpp"
    assert turn([share("vllm", [50], [200]), share("llamacpp", [100], [120])], LEVELS, 8) == "vllm"


def test_the_budget_is_one_for_both():
    both = [share("vllm", near(50, 4), near(200, 4)), share("llamacpp", near(100, 4), near(120, 4))]
    assert turn(both, LEVELS, 8) is None
    assert turn(both, LEVELS, 9) == "vllm"


def test_an_engine_whose_space_is_used_up_leaves_its_launches_to_the_other():
    both = [share("vllm", [50, 51], [200, 201]), share("llamacpp", [100], [120], over=True)]
    assert turn(both, LEVELS, 8) == "vllm"


def test_an_engine_that_loses_at_every_level_gets_no_more_launches_and_it_is_said_why():
    both = [share("vllm", near(50), near(100)), share("llamacpp", near(100), near(200))]
    why = given_up(both[0], both, LEVELS, 24)
    assert why is not None
    assert why.startswith("vllm gets no more launches")
    assert "at 1 user throughput" in why
    assert "at 5 users throughput" in why
    assert "llamacpp has" in why
    assert given_up(both[1], both, LEVELS, 24) is None
    assert turn(both, LEVELS, 24) == "llamacpp"


def test_one_level_at_which_it_may_win_keeps_it_in():
    both = [share("vllm", near(50), near(200)), share("llamacpp", near(100), near(120))]
    assert given_up(both[0], both, LEVELS, 24) is None
    assert given_up(both[1], both, LEVELS, 24) is None


@pytest.mark.parametrize(
    "vllm",
    [
        share("vllm", near(50, 3), near(100, 3)),
        share("vllm", near(50), near(100), noise=None),
        share("vllm", [20, 30, 50, 80, 40, 25], [40, 60, 100, 160, 80, 50]),
    ],
    ids=["few configurations", "noise of neither is known", "its configurations differ by much"],
)
def test_what_could_still_win_as_far_as_is_known_is_not_given_up(vllm):
    both = [vllm, share("llamacpp", near(100), near(200), noise=vllm.reaches["output_tokens_per_s"].noise)]
    assert given_up(vllm, both, LEVELS, 24) is None


def test_less_of_a_latency_is_better():
    level = ConcurrencyLevel("users_1", {"ttft_ms.p50.users_1": "minimize"}, {})
    fast = Share("fast", 6, False, {"ttft_ms.p50.users_1": Reach([-log(value) for value in near(100)], KNOWN)})
    slow = Share("slow", 6, False, {"ttft_ms.p50.users_1": Reach([-log(value) for value in near(300)], KNOWN)})
    why = given_up(slow, [fast, slow], (level,), 24)
    assert why is not None
    assert "at least" in why
    assert given_up(fast, [fast, slow], (level,), 24) is None


CONFIGURATIONS = {
    "normal": lambda dice: dice.gauss(0, 0.1),
    "a few better ones": lambda dice: 0.1 * (dice.expovariate(1) - 1),
    "one in ten 40 % faster": lambda dice: dice.gauss(0, 0.03) + 0.34 * (dice.random() < 0.1),
}
NOISE = {
    "normal": lambda dice: dice.gauss(0, 0.03),
    "two speeds": lambda dice: dice.choice((-0.03, 0.03)),
    "rare outliers": lambda dice: dice.gauss(0, 0.015) - 0.15 * (dice.random() < 0.04),
    "skewed": lambda dice: 0.03 * (dice.expovariate(1) - 1),
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("noise", NOISE)
def test_of_two_equal_engines_hardly_ever_one_is_given_up(configuration, noise):
    """The bound is that of a normal distribution: others are no reason to give up an engine that could win."""
    dice, wrong = random.Random(f"{configuration} {noise}"), 0
    for _ in range(400):
        truth = [[CONFIGURATIONS[configuration](dice) for _ in range(16)] for _ in range(2)]
        read = [[each + NOISE[noise](dice) for each in configurations] for configurations in truth]
        wrong += any(_given_up([logs[:count] for logs in read]) for count in range(4, 17))
    assert wrong <= 8  # 1 % of 400, and what chance adds to that in one run of a thousand


def _given_up(read):
    level = ConcurrencyLevel("users_5", {"output_tokens_per_s": "maximize"}, {})
    both = [
        Share(name, len(logs), False, {"output_tokens_per_s": Reach([4 + each for each in logs], KNOWN)})
        for name, logs in zip(("one", "other"), read, strict=True)
    ]
    return any(given_up(each, both, (level,), 32) for each in both)
