"""Measurements without a server."""

import pytest

from tests.sim.conftest import SITE_FLAGS, Configure
from tests.sim.offline import Job, Outcome, block_hashes, measure
from tuner.sim.memory import StartupFailure
from tuner.sim.noise import Noise
from tuner.sim.settings import Settings


def agents(streams: int = 5, requests: int = 6) -> list[list[Job]]:
    """Coding agents: one long system prompt for all, and a little of their own."""
    return [
        [Job((("system", 20000), (f"{stream}/{index}", 700)), 150) for index in range(requests)]
        for stream in range(streams)
    ]


def outcome(settings: Settings, jobs: list[list[Job]], **how: object) -> Outcome:
    result = measure(settings, jobs, **how)  # type: ignore[arg-type]
    assert isinstance(result, Outcome)
    return result


def test_taking_many_steps_at_once_changes_nothing(configure: Configure) -> None:
    settings = configure(SITE_FLAGS)
    leaping, stepping = (outcome(settings, agents(), leap=leap) for leap in (True, False))
    assert leaping.duration_s == pytest.approx(stepping.duration_s, rel=0.003)
    assert leaping.output_tokens_per_s == pytest.approx(stepping.output_tokens_per_s, rel=0.003)
    mean = [sum(served.ttft_s for served in result.served) / 30 for result in (leaping, stepping)]
    assert mean[0] == pytest.approx(mean[1], rel=0.02)


def test_every_job_is_served_once_and_in_order(configure: Configure) -> None:
    result = outcome(configure(SITE_FLAGS), agents())
    assert len(result.served) == 30
    for stream in range(5):
        starts = [served.start_s for served in result.served if served.stream == stream]
        assert starts == sorted(starts)
        assert len(starts) == 6


def test_the_same_seed_and_launch_repeat_and_another_launch_differs(configure: Configure) -> None:
    settings = configure(SITE_FLAGS)
    first, again, other = (
        outcome(settings, agents(), seed=3, launch_id=launch, noise=Noise()).output_tokens_per_s
        for launch in ("a", "a", "b")
    )
    assert first == again != other
    assert other == pytest.approx(first, rel=0.08)


def test_a_start_that_fails_is_told_as_such(configure: Configure) -> None:
    result = measure(configure(SITE_FLAGS.replace("0.92", "0.95")), agents())
    assert isinstance(result, StartupFailure)


def test_a_shared_system_prompt_is_cached_across_streams(configure: Configure) -> None:
    result = outcome(configure(SITE_FLAGS), agents())
    cold, warm = result.served[0], result.served[-1]
    assert warm.cached_tokens == 20000
    assert warm.ttft_s < cold.ttft_s / 2.5


def test_sequences_below_the_concurrency_queue(configure: Configure) -> None:
    few, enough = (outcome(configure(SITE_FLAGS.replace("seqs 64", f"seqs {count}")), agents()) for count in (2, 8))
    assert few.output_tokens_per_s < 0.8 * enough.output_tokens_per_s


def test_small_chunks_make_long_prompts_wait(configure: Configure) -> None:
    small, large = (
        outcome(configure(SITE_FLAGS.replace("32768", str(tokens))), agents(1, 1)).served[0].ttft_s
        for tokens in (512, 16384)
    )
    assert small > 1.3 * large


def test_a_small_kv_cache_loses_prefix_hits(configure: Configure) -> None:
    def hits(share: str) -> int:
        settings = configure(SITE_FLAGS.replace("0.92", share).replace("131072", "32000"))
        jobs = [
            [Job(((f"system {stream}", 24000), (f"{stream}/{turn}", 200)), 50) for turn in range(4)]
            for stream in range(5)
        ]
        return sum(served.cached_tokens for served in outcome(settings, jobs).served)

    assert hits("0.60") < 0.7 * hits("0.92")


def test_prompts_share_hashes_exactly_as_far_as_they_agree() -> None:
    first = block_hashes((("a", 40), ("b", 40)), 16)
    second = block_hashes((("a", 40), ("c", 40)), 16)
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])
    assert block_hashes((("a", 40), ("b", 40)), 16) == first
    assert block_hashes((("a", 5), ("b", 40)), 16)[0] != block_hashes((("a", 6), ("b", 40)), 16)[0]


def test_time_per_output_token_is_none_for_a_single_token(configure: Configure) -> None:
    (served,) = outcome(configure(SITE_FLAGS), [[Job((("a", 10),), 1)]]).served
    assert served.tpot_s is None
