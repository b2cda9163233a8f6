"""From flags and environment to what the engine runs with, and what vLLM refuses on the way."""

import pytest

from tests.sim.conftest import GLM_AWQ, SITE_ENV, SITE_FLAGS, Configure
from tuner.sim import backends
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.settings import Rejected, default_capture_sizes


def refused(configure: Configure, arguments: str, **site: object) -> str:
    with pytest.raises(Rejected) as rejected:
        configure(arguments, **site)
    assert rejected.value.exit_code == 1
    return str(rejected.value)


def stage(configure: Configure, arguments: str, **site: object) -> tuple[str, str]:
    outcome = backends.outcome(configure(arguments, **site))
    assert isinstance(outcome, StartupFailure)
    return outcome.stage, outcome.lines[-1]


def test_batched_tokens_below_sequences_is_refused_in_vllms_words(configure: Configure) -> None:
    text = refused(configure, "--max-num-batched-tokens 64 --max-num-seqs 256")
    assert "1 validation error for SchedulerConfig" in text
    assert "Value error, max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256)." in text


def test_zero_sequences_gives_two_errors_as_on_the_h100(configure: Configure) -> None:
    text = refused(configure, "--max-num-seqs 0")
    assert "2 validation errors for SchedulerConfig" in text
    assert text.count("Input should be greater than or equal to 1") == 2


def test_a_context_beyond_the_models_is_refused(configure: Configure) -> None:
    text = refused(configure, "--max-model-len 300000")
    assert "User-specified max_model_len (300000) is greater than the derived max_model_len" in text
    env = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    assert configure("--max-model-len 300000", env=env).max_model_len == 300000


def test_heads_must_divide_by_tensor_parallel_size(configure: Configure) -> None:
    text = refused(configure, "-tp 3", gpus=3)
    assert "Total number of attention heads (20) must be divisible by tensor parallel size (3)." in text


def test_more_ranks_than_gpus_are_refused(configure: Configure) -> None:
    text = refused(configure, "-tp 4", gpus=2)
    assert "World size (4) is larger than the number of available GPUs (2) in this node." in text


def test_utilization_above_one_is_refused(configure: Configure) -> None:
    assert "Input should be less than or equal to 1" in refused(configure, "--gpu-memory-utilization 1.2")


def test_an_unknown_model_is_refused(configure: Configure) -> None:
    assert "Invalid repository ID or local directory specified: 'no/such'" in refused(configure, "", model="no/such")


@pytest.mark.parametrize(("version", "starts"), [("0.15", False), ("0.26", True)])
def test_fp8_kv_cache_with_mla_on_ada_needs_0_20(configure: Configure, version: str, starts: bool) -> None:
    outcome = backends.outcome(configure("-tp 2 --max-num-seqs 16 --kv-cache-dtype fp8", version=version))
    if starts:
        assert isinstance(outcome, MemoryPlan)
    else:
        assert isinstance(outcome, StartupFailure)
        assert "TRITON_MLA: [kv_cache_dtype not supported]" in outcome.lines[-1]


def test_a_block_size_that_no_backend_takes_fails_in_the_worker(configure: Configure) -> None:
    assert stage(configure, "-tp 2 --block-size 24", version="0.26")[0] == "backend"


def test_a_compile_size_that_graphs_would_pad_is_refused(configure: Configure) -> None:
    where, text = stage(configure, f"{SITE_FLAGS} -cc.compile_sizes=[3]")
    assert (where, text.partition(":")[2][:57]) == (
        "dispatch",
        " compile_sizes contains 3 which would be padded to 4. All",
    )


def test_inductor_toggles_act_only_on_compile_sizes(configure: Configure) -> None:
    assert configure(SITE_FLAGS).tuned_sizes == frozenset()
    sizes = f"{SITE_FLAGS} -cc.compile_sizes=[1,8]"
    assert configure(sizes).tuned_sizes == {1, 8}
    off = {
        "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE": "0",
        "VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING": "0",
    }
    assert configure(sizes, env=off).tuned_sizes == frozenset()
    assert configure(f"{sizes} --enforce-eager").tuned_sizes == frozenset()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE", "true", "invalid literal for int() with base 10: 'true'"),
        ("VLLM_FLOAT32_MATMUL_PRECISION", "low", "Invalid value 'low' for VLLM_FLOAT32_MATMUL_PRECISION."),
    ],
)
def test_an_environment_variable_that_vllm_cannot_read_ends_the_start(
    configure: Configure, name: str, value: str, said: str
) -> None:
    assert said in refused(configure, SITE_FLAGS, env={name: value})


def test_compile_sizes_may_name_the_captured_ones(configure: Configure) -> None:
    settings = configure('-cc {"compile_sizes":["cudagraph_capture_sizes"]} --max-num-seqs 4')
    assert settings.compile_sizes == settings.capture_sizes == (1, 2, 4, 8)


def test_default_capture_sizes_are_vllms() -> None:
    assert len(default_capture_sizes(512)) == 51
    assert len(default_capture_sizes(128)) == 19
    assert default_capture_sizes(16) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("arguments", "env", "cause"),
    [
        ("--enable-chunked-prefill", {}, "--enable-chunked-prefill"),
        ("--preemption-mode recompute", {}, "--preemption-mode"),
        ("", {"VLLM_USE_V1": "0"}, "VLLM_USE_V1=0"),
        ("", {}, ""),
    ],
)
def test_old_vllm_falls_back_to_v0(configure: Configure, arguments: str, env: dict[str, str], cause: str) -> None:
    assert configure(f"-tp 2 {arguments}", version="0.10", env=env).v0 == cause


def test_insisting_on_v1_turns_the_fallback_into_an_error(configure: Configure) -> None:
    text = refused(configure, "--preemption-mode recompute", version="0.10", env={"VLLM_USE_V1": "1"})
    assert text == "NotImplementedError: VLLM_USE_V1=1 is not supported with --preemption-mode."


def test_there_is_no_v0_from_0_11_on(configure: Configure) -> None:
    assert configure("-tp 2 --enable-chunked-prefill", env={"VLLM_USE_V1": "0"}).v0 == ""


def test_without_chunked_prefill_a_batch_must_hold_a_whole_prompt(configure: Configure) -> None:
    assert configure("--no-enable-chunked-prefill --max-model-len 30000").max_num_batched_tokens == 30000
    text = refused(configure, "--no-enable-chunked-prefill --max-model-len 30000 --max-num-batched-tokens 8192")
    assert "max_num_batched_tokens (8192) is smaller than max_model_len (30000)" in text


def test_switching_mla_off_costs_17_8_times_the_kv_cache(configure: Configure) -> None:
    with_mla, without = configure("", env={}), configure("", env={"VLLM_MLA_DISABLE": "1"})
    assert with_mla.kv_token_bytes == 54144
    assert without.kv_token_bytes / with_mla.kv_token_bytes == pytest.approx(17.8, abs=0.05)


def test_the_sites_own_service_resolves_to_what_it_asks_for(configure: Configure) -> None:
    settings = configure(SITE_FLAGS, model=GLM_AWQ, env=SITE_ENV)
    asked = (settings.tensor_parallel_size, settings.max_model_len, settings.max_num_seqs)
    assert asked == (2, 131072, 64)
    assert (settings.atomic_add, settings.omp_num_threads, settings.use_mla) == (True, 4, True)
