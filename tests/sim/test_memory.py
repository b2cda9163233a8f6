"""The memory model: the check points it is fitted to, and that it is monotone."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.sim.conftest import SITE_FLAGS, Configure
from tuner.sim import memory
from tuner.sim.memory import MemoryPlan, StartupFailure


def planned(outcome: MemoryPlan | StartupFailure) -> MemoryPlan:
    assert isinstance(outcome, MemoryPlan), outcome
    return outcome


def failed(outcome: MemoryPlan | StartupFailure) -> StartupFailure:
    assert isinstance(outcome, StartupFailure), outcome
    return outcome


def test_the_first_users_service_has_222k_kv_tokens(configure: Configure) -> None:
    plan = planned(memory.plan(configure(SITE_FLAGS)))
    assert plan.kv_tokens == pytest.approx(222_000, rel=0.01)
    assert plan.weights_gib == pytest.approx(8.75, rel=0.01)


def test_095_asks_for_more_than_is_free_in_vllms_words(configure: Configure) -> None:
    failure = failed(memory.plan(configure(SITE_FLAGS.replace("0.92", "0.95"))))
    assert failure.lines == (
        "ValueError: Free memory on device cuda:0 (22.26/23.99 GiB) on startup is less than desired GPU memory "
        "utilization (0.95, 22.79 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    )


def test_092_is_the_most_that_starts(configure: Configure) -> None:
    assert failed(memory.plan(configure(SITE_FLAGS.replace("0.92", "0.93")))).stage == "free"


def test_the_sampler_of_vllm_33920_runs_out_of_memory(configure: Configure) -> None:
    failure = failed(memory.plan(configure("-tp 2 --gpu-memory-utilization 0.90", hardware="rtx4090-linux", env={})))
    assert failure.stage == "sampler"
    assert "Tried to allocate 304.00 MiB" in failure.lines[0]
    assert "CUDA out of memory occurred when warming up sampler with 256 dummy requests." in failure.lines[1]


@pytest.mark.parametrize(
    ("layers", "sequences", "weights_gib", "kv_tokens", "graph_gib"),
    [(12, 64, 14.41, 4_379_824, 0.21), (12, 8, 14.41, 4_386_816, 0.06), (47, 64, 55.83, 292_960, 0.40)],
)
def test_the_h100_runs_are_met(
    configure: Configure,
    glm_layers: Callable[[int], str],
    layers: int,
    sequences: int,
    weights_gib: float,
    kv_tokens: int,
    graph_gib: float,
) -> None:
    arguments = f"--max-model-len 8192 --max-num-seqs {sequences} --load-format dummy"
    settings = configure(arguments, model=glm_layers(layers), hardware="h100", gpus=1, version="0.26", env={})
    plan = planned(memory.plan(settings))
    assert plan.weights_gib == pytest.approx(weights_gib, rel=0.01)
    assert plan.kv_tokens == pytest.approx(kv_tokens, rel=0.03)
    assert plan.graph_gib == pytest.approx(graph_gib, abs=0.02)
    assert plan.activation_gib == pytest.approx(1.63, rel=0.02)


def test_the_h100_without_room_for_kv_fails_as_it_did(configure: Configure, glm_layers: Callable[[int], str]) -> None:
    arguments = "--max-model-len 8192 --gpu-memory-utilization 0.15 --enforce-eager"
    settings = configure(arguments, model=glm_layers(12), hardware="h100", gpus=1, version="0.26", env={})
    failure = failed(memory.plan(settings))
    assert failure.lines[0].startswith("ValueError: No available memory for the cache blocks.")
    assert failure.plan_gib == pytest.approx(-5.28, abs=0.2)


def test_bf16_weights_do_not_fit_two_24_gb_cards(configure: Configure) -> None:
    failure = failed(memory.plan(configure("-tp 2", model="zai-org/GLM-4.7-Flash")))
    assert failure.stage == "weights"
    assert failure.lines[0].startswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")


def test_a_context_beyond_the_kv_cache_names_the_length_that_would_fit(configure: Configure) -> None:
    arguments = SITE_FLAGS.replace("0.92", "0.60")
    failure = failed(memory.plan(configure(arguments)))
    assert failure.stage == "context"
    estimated = int(failure.lines[0].partition("the estimated maximum model length is ")[2].partition(".")[0])
    shorter = arguments.replace("131072", str(estimated))
    assert planned(memory.plan(configure(shorter))).kv_tokens >= estimated
    longer = arguments.replace("131072", str(estimated + 16))
    assert failed(memory.plan(configure(longer))).stage == "context"


def test_a_cold_compile_cache_leaves_less_kv_cache_for_small_batches(configure: Configure) -> None:
    warm = configure(SITE_FLAGS.replace("32768", "2048"))
    cold = replace(warm, warm=False)
    assert planned(memory.plan(cold)).kv_tokens < 0.98 * planned(memory.plan(warm)).kv_tokens


def test_a_fixed_kv_cache_is_taken_as_it_is(configure: Configure) -> None:
    plan = planned(memory.plan(configure(f"{SITE_FLAGS} --kv-cache-memory-bytes 8G")))
    assert plan.kv_gib == 8.0


def test_020_and_later_set_memory_aside_for_graphs(configure: Configure) -> None:
    old, new = (planned(memory.plan(configure(SITE_FLAGS, version=version))) for version in ("0.15", "0.26"))
    assert (old.graph_estimate_gib, new.graph_estimate_gib > 0.3) == (0.0, True)
    assert new.kv_tokens < old.kv_tokens


@pytest.mark.parametrize("version", ["0.15", "0.26"])
def test_what_fails_still_fails_with_more_of_anything(configure: Configure, version: str) -> None:
    """More utilization, sequences or batched tokens never mends a start that ran out of memory."""
    grid: dict[tuple[int, int, int], bool] = {}
    shares, sequences, tokens = (80, 86, 90, 92, 94), (8, 32, 64, 128, 256), (2048, 8192, 32768)
    for share in shares:
        for count in sequences:
            for batched in tokens:
                flags = f"-tp 2 --max-model-len 32768 --gpu-memory-utilization {share / 100} --max-num-seqs {count}"
                settings = configure(f"{flags} --max-num-batched-tokens {batched}", version=version)
                grid[share, count, batched] = isinstance(memory.plan(settings), MemoryPlan)
    assert set(grid.values()) == {True, False}
    for (share, count, batched), fits in grid.items():
        if not fits:
            above = [other for at, other in grid.items() if at[0] >= share and at[1] >= count and at[2] >= batched]
            assert not any(above)


@pytest.mark.parametrize("stage", ["weights", "profile", "kv", "graphs", "sampler"])
def test_every_stage_can_be_made_to_fail(configure: Configure, stage: str) -> None:
    failure = memory.forced(configure(SITE_FLAGS), stage)
    assert failure.stage == stage
    assert ("out of memory" in failure.lines[-1]) == (stage != "kv")
