"""The simulated engine gives the first user's figures, and the H100's."""

import sys
from collections.abc import Callable, Sequence

import pytest

from tests.sim.conftest import SITE_ENV, SITE_FLAGS, Configure
from tests.sim.offline import Job, Outcome, measure
from tuner.sim.settings import Settings

TOLERANCE = 0.10
FINAL = f"{SITE_FLAGS} -cc.compile_sizes=[1,2,4,8]"
EAGER = f"{SITE_FLAGS} --enforce-eager"


def run(settings: Settings, streams: int, requests: int, prompt: int, output: int) -> Outcome:
    """Closed-loop streams of fresh prompts."""
    jobs = [[Job(((f"{stream}/{index}", prompt),), output) for index in range(requests)] for stream in range(streams)]
    outcome = measure(settings, jobs)
    assert isinstance(outcome, Outcome)
    return outcome


def one_user(settings: Settings) -> float:
    """Decode tokens/s of a single stream, short prompts."""
    (served,) = run(settings, 1, 1, 128, 256).served
    assert served.tpot_s is not None
    return 1 / served.tpot_s


def five_users(settings: Settings) -> float:
    """Output tokens/s of five streams together, short prompts."""
    return run(settings, 5, 4, 128, 256).output_tokens_per_s


def ttft_s(settings: Settings, tokens: int, *, cached: bool) -> float:
    """Time to first token of a prompt sent for the first or for the second time."""
    outcome = measure(settings, [[Job((("prompt", tokens),), 8)] * 2])
    assert isinstance(outcome, Outcome)
    return outcome.served[1 if cached else 0].ttft_s


def tool_call_s(settings: Settings) -> float:
    """A tool call with a short answer, from start to end."""
    return run(settings, 1, 1, 300, 44).served[0].latency_s


def test_the_first_users_table_is_reproduced_within_ten_percent(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    final, before, eager = configure(FINAL), configure(SITE_FLAGS), configure(EAGER)
    v0 = configure(EAGER, version="0.10", env={**SITE_ENV, "VLLM_USE_V1": "0"})
    small = "--max-model-len 32768 --max-num-seqs 16"
    coder = configure(f"-pp 3 {small} --enforce-eager", model="qwen3-coder-next", gpus=3)
    dense = configure(f"-tp 2 {small}", model="Qwen3-32B-AWQ")
    table: list[tuple[str, float, Callable[[Settings], float], Settings]] = [
        ("decode, 1 user, final (compile sizes), tok/s", 55.0, one_user, final),
        ("decode, 1 user, before autotune, tok/s", 45.0, one_user, before),
        ("decode, 1 user, eager and V0 (12-13), tok/s", 12.5, one_user, v0),
        ("decode, 1 user, first deployment (13.8-15.1), tok/s", 14.45, one_user, eager),
        ("5 users, final (compile sizes), tok/s", 216.0, five_users, final),
        ("5 users, before autotune, tok/s", 166.0, five_users, before),
        ("5 users, first deployment, tok/s", 70.2, five_users, eager),
        ("TTFT, 5K prompt, cached, s", 0.25, lambda it: ttft_s(it, 5000, cached=True), final),
        ("TTFT, 30K prompt after warm-up, cached, s", 0.49, lambda it: ttft_s(it, 30000, cached=True), final),
        ("TTFT, 30K prompt, cached, s", 0.54, lambda it: ttft_s(it, 30000, cached=True), final),
        ("tool call, short answer, s", 1.0, tool_call_s, final),
        ("Qwen3-Coder-Next, PP=3, 1 user (5-6), tok/s", 5.5, one_user, coder),
        ("Qwen3-Coder-Next, PP=3, 5 users, tok/s", 21.6, five_users, coder),
        ("Qwen3-32B-AWQ, 1 user (about 15), tok/s", 15.0, one_user, dense),
        ("Qwen3-32B-AWQ, 5 users (about 40), tok/s", 40.0, five_users, dense),
    ]
    rows = [(name, measured, simulate(settings)) for name, measured, simulate, settings in table]
    with capsys.disabled():
        sys.stdout.write(_table(rows))
    off = {name: value for name, measured, value in rows if abs(value / measured - 1) > TOLERANCE}
    assert not off


def _table(rows: Sequence[tuple[str, float, float]]) -> str:
    lines = [f"  {name:<54}{there:>8g}{here:>9.3g}{here / there - 1:>+8.1%}" for name, there, here in rows]
    return "\n".join(["", f"  {'':<54}{'there':>8}{'here':>9}", *lines, ""])


def test_a_cold_30k_prompt_takes_two_to_four_seconds(configure: Configure) -> None:
    assert 2.0 < ttft_s(configure(FINAL), 30000, cached=False) < 4.0


def test_eager_is_three_to_four_times_slower(configure: Configure) -> None:
    assert 3.0 < one_user(configure(SITE_FLAGS)) / one_user(configure(EAGER)) < 4.0


@pytest.mark.parametrize(
    ("layers", "eager", "tokens_per_s"),
    [(12, False, 3847.0), (47, False, 1709.0), (12, True, 460.0)],
)
def test_the_h100_runs_are_reproduced_within_fifteen_percent(
    configure: Configure, glm_layers: Callable[[int], str], layers: int, eager: bool, tokens_per_s: float
) -> None:
    arguments = "--max-model-len 8192 --max-num-seqs 64 --load-format dummy" + (" --enforce-eager" if eager else "")
    settings = configure(arguments, model=glm_layers(layers), hardware="h100", gpus=1, version="0.26", env={})
    assert run(settings, 16, 4, 512, 128).output_tokens_per_s == pytest.approx(tokens_per_s, rel=0.15)
