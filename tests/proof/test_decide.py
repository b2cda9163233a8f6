"""The rule on launches with known ends: who can win, who cannot, and what is said in between."""

import random
from collections.abc import Mapping
from math import exp, inf, isfinite, nan

import pytest

from tuner.load.naming import comparable
from tuner.objective import Direction, Limit
from tuner.proof.decision import Kind
from tuner.proof.rule import ALPHA, FIRST_LOOK, ProofLaunch, Terms
from tuner.proof.rule import decide as rule
from tuner.testing import Died, decide
from tuner.testing.proof import Source

SPEED, TPOT, TTFT = "output_tokens_per_s", "tpot_p50_ms", "ttft_p50_ms"
UP: Mapping[str, Direction] = {SPEED: "maximize"}
KNOWN = {SPEED: (0.01, 20.0), TPOT: (0.01, 20.0), TTFT: (0.01, 20.0)}
SEEDS = range(20)


def _source(seed: object, sd: float = 0.01, **means: float) -> Source:
    """Launches of these true figures, with noise."""
    dice = random.Random(f"source {seed} {sorted(means)}")
    return lambda: {name: mean * exp(dice.gauss(0, sd)) for name, mean in means.items()}


def _equal(seed: object, **means: float) -> tuple[Source, Source]:
    """What is deployed, and what is compared with it, by their differing figures."""
    plain = {SPEED: 100.0, TPOT: 10.0, TTFT: 300.0}
    return _source(f"{seed} baseline", **plain), _source(f"{seed} candidate", **{**plain, **means})


def _after(launches, source, odd):
    """The source, but for one launch: ``odd`` is returned, or raised."""
    made = iter(range(1000))

    def launch():
        if next(made) != launches:
            return source()
        if isinstance(odd, Exception):
            raise odd
        return odd

    return launch


# the four verdicts


@pytest.mark.parametrize("seed", SEEDS)
def test_a_large_gain_is_found_with_few_launches(seed):
    decision = decide(*_equal(seed, **{SPEED: 120.0}), UP, {}, seed=seed)
    assert (decision.kind, decision.launches) == (Kind.BETTER, 4)
    assert decision.low < 0.2 < decision.high
    assert decision.gain == pytest.approx(0.2, abs=0.03)


def test_where_the_noise_is_known_a_large_gain_needs_one_launch_less():
    decision = decide(*_equal(0, **{SPEED: 120.0}), UP, {}, noise=KNOWN)
    assert (decision.kind, decision.launches) == (Kind.BETTER, FIRST_LOOK)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_is_never_better_and_ends_early(seed):
    decision = decide(*_equal(seed, **{SPEED: 80.0}), UP, {}, seed=seed)
    assert (decision.kind, decision.launches, decision.over) == (Kind.NO_DIFFERENCE, 4, True)
    assert decision.high < 0


@pytest.mark.parametrize("pooled", [None, KNOWN])
def test_equal_values_without_any_noise_are_no_difference(pooled):
    same = {SPEED: 100.0, TPOT: 10.0, TTFT: 300.0}
    decision = decide(lambda: same, lambda: same, UP, {}, noise=pooled)
    assert decision.kind is Kind.NO_DIFFERENCE
    assert (decision.gain, decision.over) == (0.0, True)
    assert decision.low <= 0.0 <= decision.high


def test_a_gain_too_small_for_its_noise_is_not_decided():
    plain, slightly = _source(1, sd=0.15, **{SPEED: 100.0}), _source(2, sd=0.15, **{SPEED: 105.0})
    decision = decide(plain, slightly, UP, {}, max_launches=8)
    assert decision.kind is Kind.NOT_DECIDED
    assert decision.low < 0.05 < decision.high


def test_what_would_not_be_worth_a_change_is_no_difference():
    small = _equal(3, **{SPEED: 101.0})
    assert decide(*small, UP, {}, min_gain=0.05).kind is Kind.NO_DIFFERENCE


# deaths, and numbers that are none


@pytest.mark.parametrize(
    "odd", [Died("out of memory"), None, {}, {SPEED: None}, {SPEED: nan}, {SPEED: 0.0}, {SPEED: -1.0}, {TPOT: 10.0}]
)
@pytest.mark.parametrize("launch", [0, 1, 3])
def test_a_candidate_never_wins_that_died_or_measured_nothing_in_one_launch(odd, launch):
    plain, faster = _equal(0, **{SPEED: 200.0})
    decision = decide(plain, _after(launch, faster, odd), UP, {}, noise=KNOWN)
    if decision.launches > launch:
        assert (decision.kind, decision.over, len(decision.died)) == (Kind.NOT_DECIDED, True, 1)
    else:
        assert decision.kind is Kind.BETTER


def test_why_a_launch_died_is_said():
    plain, faster = _equal(0, **{SPEED: 200.0})
    assert decide(plain, _after(0, faster, Died("out of memory")), UP, {}).died == ("out of memory",)
    assert decide(plain, _after(0, faster, {TPOT: 10.0}), UP, {}).died == (f"did not measure {SPEED}",)


def test_a_death_of_the_baseline_does_not_hold_the_candidate_up():
    plain, faster = _equal(0, **{SPEED: 200.0})
    decision = decide(_after(0, plain, Died("port taken")), faster, UP, {})
    assert (decision.kind, decision.died) == (Kind.BETTER, ("port taken",))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_gain_low_and_high_are_finite_whatever_is_measured(seed, most):
    dice = random.Random(f"finite {seed}")
    values = [0.0, -1.0, nan, inf, 1e-300, 1e300, 100.0]

    def launch():
        if dice.random() < 0.1:
            raise Died("died")
        return {name: dice.choice(values) for name in (SPEED, TPOT, TTFT) if dice.random() < 0.9}

    decision = decide(launch, launch, UP, {TPOT: {"max": 1.1, "of": "baseline"}}, max_launches=most, seed=seed)
    effects = [*decision.goals.values(), *decision.others.values()]
    assert all(isfinite(end) for effect in effects for end in (effect.gain, effect.low, effect.high))
    assert all(isfinite(end) for bound in decision.limits.values() for end in (bound.value, bound.low, bound.high))


# few launches


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_fewer_launches_than_a_first_look_needs_decide_nothing(most, seed):
    decision = decide(*_equal(seed, **{SPEED: 110.0}), UP, {}, max_launches=most, seed=seed)
    assert (decision.kind, decision.launches, decision.over) == (Kind.NOT_DECIDED, most, True)


def test_three_launches_of_each_can_decide_where_the_noise_is_known():
    assert decide(*_equal(0, **{SPEED: 110.0}), UP, {}, max_launches=3, noise=KNOWN).kind is Kind.BETTER


def test_before_any_launch_nothing_is_decided():
    decision = rule([], Terms(goals=UP, limits={}))
    assert (decision.kind, decision.over, decision.launches, decision.spent) == (Kind.NOT_DECIDED, False, 0, 0.0)


def test_a_launch_without_its_partner_does_not_count():
    pair = [ProofLaunch(False, {SPEED: 100.0}), ProofLaunch(True, {SPEED: 110.0})]
    assert rule([*pair, ProofLaunch(True, {SPEED: 900.0})], Terms(goals=UP, limits={})) == rule(pair, Terms(UP, {}))


@pytest.mark.parametrize("seed", SEEDS)
def test_both_are_launched_equally_often_and_in_turns(seed):
    made: list[str] = []
    plain, same = _equal(seed)

    def counted(name, source):
        def launch():
            made.append(name)
            return source()

        return launch

    decision = decide(counted("A", plain), counted("B", same), UP, {}, seed=seed)
    assert len(made) == 2 * decision.launches
    assert all({made[at], made[at + 1]} == {"A", "B"} for at in range(0, len(made), 2))


# limits


@pytest.mark.parametrize("pooled", [None, KNOWN, {TTFT: (0.01, 1000.0), SPEED: (0.01, 1000.0)}])
@pytest.mark.parametrize("launch", range(8))
@pytest.mark.parametrize("limit", [{"max": 1.25, "of": "baseline"}, {"max": 400.0}])
def test_a_candidate_with_one_launch_at_30_seconds_never_passes_its_limit(pooled, launch, limit):
    plain, faster = _equal(0, **{SPEED: 120.0})
    slow = _after(launch, faster, {SPEED: 120.0, TPOT: 10.0, TTFT: 30_000.0})
    decision = decide(plain, slow, UP, {TTFT: limit}, noise=pooled)
    if decision.launches > launch:
        assert decision.kind is not Kind.BETTER
        assert not decision.limits[TTFT].kept


@pytest.mark.parametrize("launch", range(8))
def test_one_launch_of_the_baseline_at_30_seconds_does_not_excuse_a_broken_limit(launch):
    plain, slower = _equal(0, **{SPEED: 120.0, TTFT: 400.0})
    odd = _after(launch, plain, {SPEED: 100.0, TPOT: 10.0, TTFT: 30_000.0})
    assert decide(odd, slower, UP, {TTFT: {"max": 1.25, "of": "baseline"}}, noise=KNOWN).kind is not Kind.BETTER


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ({"max": 320.0}, True),
        ({"max": 280.0}, False),
        ({"min": 280.0}, True),
        ({"min": 320.0}, False),
        ({"max": 1.1, "of": "baseline"}, True),
        ({"max": 0.9, "of": "baseline"}, False),
        ({"min": 0.9, "of": "baseline"}, True),
        ({"min": 1.1, "of": "baseline"}, False),
    ],
)
def test_limits_of_either_side_bind_a_faster_candidate(limit, kept):
    decision = decide(*_equal(0, **{SPEED: 120.0}), UP, {TTFT: limit})
    bound = decision.limits[TTFT]
    assert (decision.kind is Kind.BETTER, decision.over) == (kept, True)
    assert (bound.kept, bound.broken, bound.upper) == (kept, not kept, "max" in limit)
    assert bound.low < bound.value < bound.high


def test_a_limit_right_at_its_bound_is_not_shown():
    decision = decide(*_equal(0, **{SPEED: 120.0, TTFT: 330.0}), UP, {TTFT: {"max": 1.1, "of": "baseline"}})
    assert decision.kind is Kind.LIMIT_NOT_SHOWN
    assert decision.open_limits == (TTFT,)


def test_a_limit_whose_metric_nobody_measured_is_not_kept():
    plain, faster = _source(1, **{SPEED: 100.0}), _source(2, **{SPEED: 120.0})
    decision = decide(plain, faster, UP, {TTFT: {"max": 400.0}})
    assert decision.kind is Kind.NOT_DECIDED
    assert decision.open_limits == (TTFT,)


def test_a_limit_of_zero_is_never_kept():
    assert decide(*_equal(0, **{SPEED: 120.0}), UP, {TTFT: {"max": 0.0}}).kind is Kind.LIMIT_NOT_SHOWN


# goals


def test_less_is_more_where_a_goal_is_minimized():
    decision = decide(*_equal(0, **{TPOT: 8.0}), {TPOT: "minimize"}, {})
    assert decision.kind is Kind.BETTER
    assert decision.gain == pytest.approx(0.2, abs=0.03)
    assert decide(*_equal(0, **{TPOT: 12.0}), {TPOT: "minimize"}, {}).kind is Kind.NO_DIFFERENCE


BOTH: Mapping[str, Direction] = {SPEED: "maximize", TPOT: "minimize"}


@pytest.mark.parametrize(
    ("speed", "tpot", "kind"),
    [
        (120.0, 8.0, Kind.BETTER),
        (120.0, 10.0, Kind.BETTER),
        (100.0, 8.0, Kind.BETTER),
        (80.0, 12.0, Kind.NO_DIFFERENCE),
    ],
)
def test_of_two_goals_one_must_gain_and_the_other_not_lose(speed, tpot, kind):
    decision = decide(*_equal(0, **{SPEED: speed, TPOT: tpot}), BOTH, {})
    assert decision.kind is kind
    assert set(decision.goals) == set(BOTH)


def test_a_gain_in_one_goal_that_costs_much_of_another_is_not_better():
    assert decide(*_equal(0, **{SPEED: 120.0, TPOT: 12.0}), BOTH, {}).kind is not Kind.BETTER


# the guard


def test_a_metric_that_nobody_limited_and_that_got_much_worse_stops_the_winner():
    decision = decide(*_equal(0, **{SPEED: 120.0, TTFT: 600.0}), UP, {})
    assert (decision.kind, decision.sacrificed) == (Kind.LIMIT_NOT_SHOWN, (TTFT,))


@pytest.mark.parametrize(("guard", "ttft"), [(None, 600.0), (0.25, 330.0), (1.5, 600.0)])
def test_what_the_guard_allows_stops_nobody(guard, ttft):
    assert decide(*_equal(0, **{SPEED: 120.0, TTFT: ttft}), UP, {}, guard=guard).kind is Kind.BETTER


def test_what_got_worse_within_the_guard_is_said_all_the_same():
    decision = decide(*_equal(0, **{SPEED: 120.0, TTFT: 330.0}), UP, {})
    assert [name for name, _ in decision.worse()] == [TTFT]


# what a proof has used up


def test_a_proof_that_ends_without_a_winner_has_spent_all_of_its_error():
    assert decide(*_equal(0, **{SPEED: 80.0}), UP, {}).spent == ALPHA


def test_a_proof_under_way_has_spent_what_its_looks_have():
    launches = [
        ProofLaunch(bool(at % 2), {SPEED: (100 + 3 * (at % 2)) * (1.05 if at in (2, 3, 5) else 1)}) for at in range(10)
    ]
    spends = [rule(launches[: 2 * pairs], Terms(UP, {}, min_gain=0.0)).spent for pairs in range(6)]
    assert spends[:4] == [0.0] * 4
    assert 0 < spends[4] < spends[5] < ALPHA


def test_a_candidate_that_dies_before_the_first_look_has_spent_nothing():
    plain, faster = _equal(0, **{SPEED: 200.0})
    assert decide(plain, _after(0, faster, Died("died")), UP, {}).spent == 0.0


def test_the_same_seed_gives_the_same_decision():
    assert decide(*_equal(5), UP, {}, seed=5) == decide(*_equal(5), UP, {}, seed=5)


# what may be nothing


def _with(source, **more):
    """The same launches, with numbers that have no noise."""
    return lambda: {**source(), **{name: comparable(name, value) for name, value in more.items()}}


@pytest.mark.parametrize(("seen", "kept"), [(0.0, True), (1.0, False), (40.0, False)])
def test_a_limit_of_no_preemptions_is_kept_by_none_and_by_nothing_else(seen, kept):
    baseline, candidate = _equal(0, **{SPEED: 120.0})
    limits = {"preemptions": Limit(max=0)}
    decision = decide(_with(baseline, preemptions=7.0), _with(candidate, preemptions=seen), UP, limits)
    assert decision.limits["preemptions"].kept is kept
    assert (decision.kind is Kind.BETTER) is kept


def test_preemptions_and_prefix_hits_that_nobody_limits_veto_nothing():
    baseline, candidate = _equal(0, **{SPEED: 120.0})
    worse = _with(candidate, preemptions=50.0, prefix_hit_rate=0.0, kv_requests=2.0)
    decision = decide(_with(baseline, preemptions=0.0, prefix_hit_rate=0.8, kv_requests=9.0), worse, UP, {})
    assert (decision.kind, decision.sacrificed) == (Kind.BETTER, ())
    assert "preemptions" not in decision.others


def test_a_goodput_that_falls_is_sacrificed():
    baseline, candidate = _equal(0, **{SPEED: 120.0})
    decision = decide(_with(baseline, goodput_share=0.9), _with(candidate, goodput_share=0.0), UP, {})
    assert (decision.kind, decision.sacrificed) == (Kind.LIMIT_NOT_SHOWN, ("goodput_share",))


def test_a_goodput_of_nothing_can_be_improved_on():
    goals: Mapping[str, Direction] = {"goodput_requests_per_s": "maximize"}
    baseline, _ = _equal(0)
    some = _source(1, **{SPEED: 100.0, "goodput_requests_per_s": 2.0})
    decision = decide(_with(baseline, goodput_requests_per_s=0.0), some, goals, {})
    assert decision.kind is Kind.BETTER
    assert isfinite(decision.gain)
