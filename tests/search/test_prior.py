"""What the search is told before any launch, and that launches overrule it."""

from math import log

import pytest

from tests.present import present
from tuner.engines.base import NO_HINTS, Hints
from tuner.engines.ceilings import Ceilings
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Observation
from tuner.search.surrogate import Surrogate
from tuner.space import Choice, Range, SearchSpace, Settings

SPACE = SearchSpace(
    params={
        "seqs": Range(low=4, high=512, scale="pow2"),
        "mode": Choice(choices=("a", "b"), default="a"),
        "idle": Choice(choices=(0, 1, 2, 3), default=0),
    }
)
DEPLOYED = Settings({"seqs": 16, "mode": "a", "idle": 0})


def configured(seqs, mode="a", idle=0):
    return SPACE.candidate({"seqs": seqs, "mode": mode, "idle": idle})


def launched(candidate, value, ttft=0.5):
    return Observation(candidate, (value,), margins={"ttft": log(ttft)})


def allowed(candidate):
    """A memory that lets 64 sequences have four times what 16 get, and no more."""
    return 10.0 * min(candidate.params["seqs"], 64)


def refuted(candidate):
    """The same with the sign wrong."""
    return 1 / allowed(candidate)


def model(roofline, seen):
    deployed = SPACE.deployed(DEPLOYED)
    return Surrogate(SPACE, list(SPACE.params), "maximize", NO_HINTS, seen, deployed=deployed, roofline=roofline)


def test_a_roofline_is_expected_to_be_partly_true_after_the_first_launch():
    seen = [launched(configured(16), 100.0)]
    (without, *_), (with_it, *_), (wrong, *_) = (
        model(each, seen).reading(configured(64)) for each in (None, allowed, refuted)
    )
    assert without == pytest.approx(100, rel=0.01)
    assert with_it > 150
    assert wrong < 70


def test_launches_tell_how_much_of_a_roofline_is_true():
    """Where 32 sequences get as much as is allowed, 64 are expected to; where they get nothing, hardly anything is."""

    def expected(of_32):
        seen = [
            launched(configured(16), 100.0),
            launched(configured(8), 10000 / of_32),
            launched(configured(32), of_32),
        ]
        return model(allowed, seen).reading(configured(64))[0]

    assert expected(195.0) > 300
    assert expected(101.0) < 150


def test_a_roofline_of_the_wrong_sign_is_left_alone_after_a_few_launches():
    seen = [launched(configured(each), 100.0 * each / 16) for each in (8, 16, 32)]
    wrong, without = (model(each, seen).reading(configured(64))[0] for each in (refuted, None))
    assert wrong == pytest.approx(without, rel=0.1)


def test_a_roofline_that_knows_nothing_changes_nothing():
    seen = [launched(configured(16), 100.0), launched(configured(32), 120.0)]
    unknown, without = (model(each, seen).reading(configured(64)) for each in (lambda candidate: None, None))
    assert unknown == pytest.approx(without, rel=0.02)


def test_as_many_users_as_run_at_once_get_less_than_all():
    ceilings = Ceilings(sequences=4, users=16, tokens_per_s=800.0, alone_tokens_per_s=100.0)
    assert ceilings.running_tokens_per_s == pytest.approx(100 * 8**0.5)
    plenty = ceilings.model_copy(update={"sequences": 64})
    assert plenty.running_tokens_per_s == 800.0
    assert Ceilings().running_tokens_per_s is None


def test_a_launch_that_may_break_a_limit_is_not_repeated_in_copies():
    """64 sequences gain 40 % and are so near the limit that they are not the best; 32 gain less and are safe."""
    seen = [
        launched(configured(16), 100.0),
        launched(configured(32), 120.0, ttft=0.8),
        launched(configured(64), 140.0, ttft=0.99),
        launched(configured(64, idle=1), 140.0, ttft=0.98),
        launched(configured(16, "b"), 103.0),
    ]
    found, copy = model(None, seen), configured(64, idle=2)
    assert present(found.best).candidate == configured(32)
    promised = log(140 / 120) * found.keeps([copy])[0]
    assert found.expected_improvement([copy])[0] < promised / 2


def test_what_is_wrongly_said_to_be_slow_is_launched_when_nothing_else_promises_much():
    """A switch that gains 10 %."""
    space = SearchSpace(params={"mode": Choice(choices=("a", "b")), "idle": Choice(choices=tuple(range(12)))})
    search = AdditiveSearch(space, "maximize", Settings({"mode": "a", "idle": 0}), 0, Hints(slow={"mode": "b"}))
    seen = [Observation(space.candidate({"mode": "a", "idle": 0}), (100.0,))]
    while len(seen) < 13 and seen[-1].candidate.params["mode"] == "a":
        asked = present(search.propose(seen))
        seen.append(Observation(asked, (110.0 if asked.params["mode"] == "b" else 100.0,)))
    assert seen[-1].candidate.params["mode"] == "b"
    assert len(seen) > 3
