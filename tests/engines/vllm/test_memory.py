"""The memory formulas against real servers, without a single start to learn from; and what they must never do."""

import itertools
import sys

import pytest

from tests.engines.vllm.real import AWQ, FAILED, GLM, H100, H200, H200_STARTS, RTX4090X2, RUNS, SITE, asked, model_of
from tests.present import present
from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.calibration import Calibration, compare
from tuner.engines.vllm.memory.sizes import StartStage, account, sizes_of, unknown
from tuner.engines.vllm.model.architecture import of_mapping

_LINUX = Hardware("2 x RTX 4090", 2, 23.52, 23.10, (8, 9), 128)


def terms(args, hardware=RTX4090X2, version="0.15.0", model=None):
    model = model or model_of(AWQ)
    demand = asked(args, hardware, version, model)
    return account(present(sizes_of(model, demand, hardware)), demand, hardware)


@pytest.mark.parametrize("name", RUNS)
def test_the_h100_runs_are_predicted_before_any_start(name, log):
    """Weights within 1 %, KV tokens within 3 %, as the issue asks; it is ten times better than that."""
    run = RUNS[name]
    found = {each.name: each for each in compare(run.predicted(log).terms, run.start(log).facts)}
    assert abs(present(found["weights_gib"].error)) < 0.001
    assert abs(present(found["activation_gib"].error)) < 0.01
    assert abs(present(found["kv_tokens"].error)) < 0.003


def test_the_h100_without_room_for_kv_is_seen_in_advance(log):
    """Its log says "Available KV cache memory: -5.28 GiB"."""
    predicted = FAILED.predicted(log)
    assert predicted.terms.kv_gib == pytest.approx(-5.28, abs=0.03)
    assert predicted.terms.shortage.cause is Cause.NO_KV_CACHE
    assert predicted.ruled_out.cause is Cause.NO_KV_CACHE


def test_the_h200_starts_are_met(capsys):
    """Weights within 0.2 %; the profiling run's peak within 5 %, or 0.05 GiB where it is small."""
    rows = []
    for seen in H200_STARTS:
        found = present(sizes_of(seen.architecture, seen.demand, H200))
        rows.append((seen, found.weights_gib, found.activation_gib))
    with capsys.disabled():
        sys.stdout.write(_table(rows))
    for seen, weights_gib, peak_gib in rows:
        assert weights_gib == pytest.approx(seen.weights_gib, rel=0.002)
        assert peak_gib == pytest.approx(seen.peak_gib, rel=0.05, abs=0.05)


def _table(rows):
    columns = ("H200, vLLM 0.26.0", "tokens", "seqs", "weights GiB", "logged", "peak GiB", "logged")
    cells = [
        (
            seen.model.split("/")[1] + (", eager" if seen.eager else ""),
            *(seen.tokens, seen.seqs),
            *(f"{weights:.2f}", f"{seen.weights_gib:.2f}", f"{peak:.2f}", f"{seen.peak_gib:.2f}"),
        )
        for seen, weights, peak in rows
    ]
    lines = [f"  {name:<22}" + "".join(f"{cell:>12}" for cell in rest) for name, *rest in (columns, *cells)]
    return "\n".join(["", *lines, ""])


def test_the_first_users_service_has_222k_kv_tokens():
    found = terms(SITE)
    assert found.weights_gib == pytest.approx(8.75, rel=0.01)
    assert found.kv_tokens == pytest.approx(222_000, rel=0.03)
    assert found.kv_token_bytes == 54_144
    assert found.shortage is None


@pytest.mark.parametrize(("utilization", "starts"), [(0.92, True), (0.93, False), (0.95, False)])
def test_092_is_the_most_that_starts_there(utilization, starts):
    shortage = terms({**SITE, "gpu_memory_utilization": utilization}).shortage
    assert (shortage is None) is starts
    assert starts or shortage.cause is Cause.INSUFFICIENT_FREE_MEMORY


def test_the_sampler_of_vllm_33920_fails_first_and_its_index_takes_302_mib():
    """Free memory at that start is not in the report; 23.10 GiB is what native Linux leaves of 23.52."""
    found = terms({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.9}, _LINUX, "0.15.0rc2.dev40")
    assert found.shortage.stage is StartStage.WARM_UP
    assert found.shortage.allocation == "the sampler's warm-up"
    assert 256 * 154_880 * 8 / 2**20 == 302.5
    fewer = terms({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.9, "max_num_seqs": 255}, _LINUX, "0.15.0")
    one_sequence_mib = (found.sampler_gib - fewer.sampler_gib) * 1024
    assert one_sequence_mib * 256 == pytest.approx(302.5 * 38 / 8)


REAL_LAUNCHES = [
    *[(run.args, H100, "0.26.0", run.model, None) for run in RUNS.values()],
    (FAILED.args, H100, "0.26.0", FAILED.model, Cause.NO_KV_CACHE),
    (SITE, RTX4090X2, "0.15.0", model_of(AWQ), None),
    ({**SITE, "gpu_memory_utilization": 0.95}, RTX4090X2, "0.15.0", model_of(AWQ), Cause.INSUFFICIENT_FREE_MEMORY),
    ({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.9}, _LINUX, "0.15.0", model_of(AWQ), Cause.CUDA_OOM),
    *[(seen.demand, H200, "0.26.0", seen.architecture, None) for seen in H200_STARTS],
]


def test_no_launch_that_is_admitted_ran_out_of_memory_and_none_that_started_is_ruled_out():
    """All real launches that are known here, without a single start to learn from."""
    for args, hardware, version, model, ended in REAL_LAUNCHES:
        demand = asked(args, hardware, version, model) if isinstance(args, dict) else args
        shortage = account(present(sizes_of(model, demand, hardware)), demand, hardware).shortage
        assert (shortage and shortage.cause) == ended
        if ended is None:
            assert Calibration(model, hardware).predict(demand).ruled_out is None


def test_bf16_does_not_fit_two_24_gb_cards():
    shortage = terms({"tensor_parallel_size": 2}, model=model_of(GLM)).shortage
    assert (shortage.cause, shortage.allocation) == (Cause.CUDA_OOM, "weights")


def test_a_cache_is_replicated_with_mla_and_sharded_without():
    def bytes_of(ranks, env):
        model = model_of(GLM)
        demand = asked({"tensor_parallel_size": ranks}, RTX4090X2, "0.15.0", model)
        demand = demand if env else demand.__class__(**{**_fields(demand), "use_mla": False})
        return present(sizes_of(model, demand, RTX4090X2)).cache.token_bytes

    assert bytes_of(1, True) == bytes_of(2, True) == 54_144
    assert bytes_of(1, False) == 962_560
    assert bytes_of(2, False) == 481_280


def _fields(demand):
    return {name: getattr(demand, name) for name in demand.__dataclass_fields__}


WINDOWED = {
    "num_hidden_layers": 30,
    "hidden_size": 1024,
    "vocab_size": 32000,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 2048,
    "max_position_embeddings": 131072,
    "sliding_window": 1024,
    "sliding_window_pattern": 3,
}


def test_windowed_layers_need_cache_for_their_window_only():
    """10 full and 20 windowed layers are three groups of ten, as vLLM's own docstring has it."""
    model = of_mapping("m", "test", WINDOWED)
    demand = asked({"max_num_batched_tokens": 2048, "max_num_seqs": 8}, RTX4090X2, "0.20.0", model)
    cache = present(sizes_of(model, demand, RTX4090X2)).cache
    page = 4 * 2 * 128 * 2 * 16
    assert cache.block_bytes == page * 10
    assert cache.blocks_per_request == 131072 // 16 + 2 * (-(-(1023 + 2048) // 16) + 1)
    assert cache.token_bytes == page * 30 / 16


def test_triton_mlas_workspace_grows_with_sequences_times_context():
    """2.5 GiB with 256 sequences and 131k of context on one card."""
    model = model_of(AWQ)
    demand = asked({"max_num_seqs": 256, "max_model_len": 131072}, RTX4090X2, "0.26.0", model)
    assert present(sizes_of(model, demand, RTX4090X2)).split_kv_gib == pytest.approx(2.5, abs=0.01)
    older = asked({"max_num_seqs": 256, "max_model_len": 131072}, RTX4090X2, "0.15.0", model)
    assert present(sizes_of(model, older, RTX4090X2)).split_kv_gib == 0


def test_stages_share_the_layers_and_the_fullest_counts():
    whole, half = (
        terms({"pipeline_parallel_size": n, "max_num_seqs": 8}, H100, "0.26.0", model_of(GLM)) for n in (1, 2)
    )
    assert half.weights_gib == pytest.approx(whole.weights_gib / 2, rel=0.05)
    assert half.kv_token_bytes == whole.kv_token_bytes * 24 / 47


@pytest.mark.parametrize("hardware", [RTX4090X2, H100])
@pytest.mark.parametrize("version", ["0.15.0", "0.26.0"])
@pytest.mark.parametrize("model", [model_of(AWQ), model_of("Qwen/Qwen3-8B"), model_of("Qwen/Qwen3-30B-A3B")])
def test_nothing_needs_less_memory_for_more(hardware, version, model):
    """Utilization only raises what is asked for; sequences, tokens and context only raise what is needed."""
    grid = {}
    for share, seqs, tokens, length in itertools.product((0.6, 0.9), (4, 64, 512), (2048, 32768), (8192, 40960)):
        args = {"gpu_memory_utilization": share, "max_num_seqs": seqs, "max_num_batched_tokens": tokens}
        grid[share, seqs, tokens, length] = terms({**args, "max_model_len": length}, hardware, version, model)
    for (here, less), (there, more) in itertools.product(grid.items(), repeat=2):
        if all(a <= b for a, b in zip(here, there, strict=True)):
            assert less.activation_gib <= more.activation_gib
            assert less.sampler_gib <= more.sampler_gib
            assert less.graph_gib <= more.graph_gib
            assert less.requested_gib <= more.requested_gib
            assert less.requested_gib - less.kv_gib <= more.requested_gib - more.kv_gib + 1e-9


def test_what_is_not_known_is_not_predicted():
    model = model_of(GLM)
    nobody = Hardware("?", 1)
    assert unknown(model, asked({}, nobody, None, model)) == ("max_num_seqs", "max_num_batched_tokens")
    packed = asked({"kv_cache_dtype": "turboquant_k8v4"}, H100, "0.33.0", model)
    assert unknown(model, packed) == ("the size of turboquant_k8v4",)
    assert sizes_of(model, packed, H100) is None
    sizes = {"max_num_seqs": 8, "max_num_batched_tokens": 2048}
    without_gpu = account(
        present(sizes_of(model, asked(sizes, nobody, None, model), nobody)), asked(sizes, nobody, None, model), nobody
    )
    assert without_gpu.kv_gib is None
    assert without_gpu.shortage is None
    assert without_gpu.weights_gib == pytest.approx(55.8, abs=0.1)
