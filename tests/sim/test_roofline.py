"""Step times: never below the hardware's limits, and moving in the right direction with each flag."""

import random

import pytest

from tests.sim.conftest import SITE_ENV, SITE_FLAGS, Configure
from tuner.sim.hardware import PRESETS
from tuner.sim.noise import Noise, StepTimer
from tuner.sim.roofline import Roofline, StepShape
from tuner.sim.settings import Settings

MODELS = ("QuantTrio/GLM-4.7-Flash-AWQ", "zai-org/GLM-4.7-Flash", "Qwen3-32B-AWQ", "Qwen3-Coder-Next", "tiny")


def limit_s(settings: Settings, shape: StepShape) -> float:
    """The least a step can take, from the data sheet alone: weights of the experts of one token, all operations."""
    hardware, model, tp = settings.site.hardware, settings.model, settings.tensor_parallel_size
    active = model.experts.active if model.experts else 0
    moved = model.step_bytes(active) / (hardware.bandwidth_gb_s * 1e9 * tp)
    moved += (
        shape.decode_context
        * model.kv_bytes(settings.kv_element_bytes, settings.use_mla, tp)
        / (hardware.bandwidth_gb_s * 1e9)
    )
    operations = shape.tokens * model.token_flops + (shape.prefill_pairs + shape.decode_context) * model.pair_flops
    return max(moved, operations / (hardware.peak_tflops * 1e12 * tp))


def shapes(chance: random.Random) -> StepShape:
    decodes = chance.choice((0, 1, 5, 64, 256))
    prefill = chance.choice((0, 7, 500, 8192, 32768)) or (0 if decodes else 1)
    before = chance.choice((0, 1000, 60000)) if prefill else 0
    return StepShape(
        decodes=decodes,
        decode_context=decodes * chance.randrange(1, 100_000),
        prefill_tokens=prefill,
        prefills=1 if prefill else 0,
        prefill_pairs=prefill * (before + prefill / 2),
        prefill_context=before,
    )


def test_nothing_is_ever_faster_than_the_hardware(configure: Configure) -> None:
    """Over all hardware, models and versions, with the best flags and loud noise, whatever the batch."""
    chance = random.Random(0)
    flags = "--max-model-len 32768 --max-num-batched-tokens 32768 -cc.compile_sizes=[1,2,4,8] --performance-mode"
    checked = 0
    for hardware in PRESETS:
        for model in MODELS:
            for tp in (1, 2):
                arguments = f"-tp {tp} {flags} throughput --max-num-seqs {chance.choice((8, 64, 256))}"
                settings = configure(arguments, model=model, hardware=hardware, version="0.26")
                timer = StepTimer(Roofline(settings), Noise(0.3, 0.5), seed=checked, launch_id="x")
                for _ in range(20):
                    shape = shapes(chance)
                    assert timer.duration_s(shape) >= limit_s(settings, shape)
                    checked += 1
    assert checked == len(PRESETS) * len(MODELS) * 2 * 20


def decode_s(settings: Settings, sequences: int, context: int = 500) -> float:
    return Roofline(settings).step_s(StepShape(decodes=sequences, decode_context=sequences * context))


def test_batches_are_padded_to_captured_sizes(configure: Configure) -> None:
    roofline = Roofline(configure(SITE_FLAGS))
    assert [roofline.padded(tokens) for tokens in (1, 3, 5, 9, 128, 129)] == [1, 4, 8, 16, 128, 0]


def test_only_padded_sizes_that_were_compiled_are_faster(configure: Configure) -> None:
    plain, tuned = configure(SITE_FLAGS), configure(f"{SITE_FLAGS} -cc.compile_sizes=[8]")
    assert decode_s(tuned, 5) < 0.85 * decode_s(plain, 5)
    assert decode_s(tuned, 1) == decode_s(plain, 1)
    assert decode_s(tuned, 9) == decode_s(plain, 9)


def test_each_inductor_toggle_gives_a_part_of_the_gain(configure: Configure) -> None:
    sizes = f"{SITE_FLAGS} -cc.compile_sizes=[8]"
    times = [
        decode_s(
            configure(
                sizes,
                env={
                    **SITE_ENV,
                    "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE": autotune,
                    "VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING": descent,
                },
            ),
            5,
        )
        for autotune, descent in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0"))
    ]
    assert times == sorted(times)
    assert len(set(times)) == 4


def test_a_large_chunk_of_prompt_holds_up_the_decodes_beside_it(configure: Configure) -> None:
    roofline = Roofline(configure(SITE_FLAGS))
    small, large = (roofline.step_s(StepShape(1, 500, tokens, 1, tokens * tokens / 2)) for tokens in (1024, 16384))
    assert large > 8 * small


@pytest.mark.parametrize(
    ("arguments", "env", "low", "high"),
    [
        ("--no-enable-expert-parallel", SITE_ENV, 0.95, 1.0),
        ("", {**SITE_ENV, "VLLM_MARLIN_USE_ATOMIC_ADD": "0"}, 1.0, 1.03),
        ("", {**SITE_ENV, "OMP_NUM_THREADS": "1"}, 1.0, 1.05),
        ("", {**SITE_ENV, "VLLM_USE_DEEP_GEMM": "1"}, 1.0, 1.0),
        ("--block-size 32", SITE_ENV, 1.0, 1.0),
        ("--no-async-scheduling", SITE_ENV, 1.02, 1.10),
        ("--enforce-eager", SITE_ENV, 2.0, 4.0),
    ],
)
def test_the_other_flags_have_their_mild_effects_on_decode(
    configure: Configure, arguments: str, env: dict[str, str], low: float, high: float
) -> None:
    ratio = decode_s(configure(f"{SITE_FLAGS} {arguments}", env=env), 5) / decode_s(configure(SITE_FLAGS), 5)
    assert low <= ratio <= high


def test_a_launch_repeats_itself_and_differs_from_others(configure: Configure) -> None:
    roofline = Roofline(configure(SITE_FLAGS))
    shape = StepShape(decodes=5, decode_context=2500)

    def times(seed: int, launch: str) -> list[float]:
        timer = StepTimer(roofline, Noise(), seed, launch)
        return [timer.duration_s(shape) for _ in range(5)]

    assert times(1, "a") == times(1, "a")
    assert times(1, "a") != times(1, "b")
    assert times(1, "a") != times(2, "a")


def test_launch_noise_has_the_spread_that_was_asked_for(configure: Configure) -> None:
    roofline = Roofline(configure(SITE_FLAGS))
    factors = [StepTimer(roofline, Noise(0.01, 0.0), 0, str(launch)).launch_factor for launch in range(400)]
    mean = sum(factors) / len(factors)
    spread = (sum((factor - mean) ** 2 for factor in factors) / len(factors)) ** 0.5
    assert mean == pytest.approx(1.0, abs=0.002)
    assert spread == pytest.approx(0.01, rel=0.15)
