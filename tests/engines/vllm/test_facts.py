"""What the start-up lines say is read in the words of every version."""

import dataclasses

import pytest

from tuner.engines.base import StartupFacts
from tuner.engines.vllm.log.facts import facts


def stated(lines):
    """The facts that are not ``None``."""
    return {name: value for name, value in dataclasses.asdict(facts(lines)).items() if value not in (None, ())}


@pytest.mark.parametrize(
    ("file", "weights", "kv_gib", "kv_tokens", "compile_s", "graphs_s", "warm"),
    [
        ("vllm-0.26.0-h100-A_cold.log", 14.41, 56.39, 4379824, 27.86, 18, False),
        ("vllm-0.26.0-h100-B_warm.log", 14.41, 56.39, 4379824, 3.02, 17, True),
        ("vllm-0.26.0-h100-C_seqs8.log", 14.41, 56.48, 4386816, 30.93, 6, False),
        ("vllm-0.26.0-h100-E_full_cold.log", 55.83, 14.77, 292960, 52.29, 21, False),
    ],
)
def test_the_real_logs_say_what_was_measured(file, weights, kv_gib, kv_tokens, compile_s, graphs_s, warm, log):
    found = facts(log(file))
    assert (found.weights_gib, found.kv_cache_gib, found.kv_tokens) == (weights, kv_gib, kv_tokens)
    assert (found.compile_s, found.graph_capture_s, found.compile_cache_hit) == (compile_s, graphs_s, warm)
    assert (found.engine_version, found.max_model_len) == ("0.26.0", 8192)


def test_a_gpu_log_says_how_its_memory_was_divided(log):
    found = facts(log("vllm-0.26.0-h100-A_cold.log"))
    assert (found.total_gib, found.free_gib, found.utilization, found.requested_gib) == (79.18, 78.66, 0.92, 72.84)
    assert (found.peak_activation_gib, found.non_torch_gib, found.graph_gib) == (1.63, 0.23, 0.21)
    assert found.suggested_kv_bytes == 60364448584
    assert (found.attention_backend, found.cudagraph_mode) == ("FLASH_ATTN_MLA", "FULL_AND_PIECEWISE")
    assert (found.eager, found.degradations) == (False, ())


def test_the_cpu_backend_says_less(log):
    found = stated(log("vllm-0.32.0-cpu-ok_qwen3_compile.log"))
    assert [each["name"] for each in found.pop("degradations")] == ["v1_model_runner"]
    assert found == {
        "engine_version": "0.32.0",
        "kv_cache_gib": 1.0,
        "kv_tokens": 524288,
        "max_model_len": 2048,
        "compile_cache_hit": False,
        "init_s": 112.69,
        "eager": False,
        "cudagraph_mode": "NONE",
    }


def test_a_log_that_says_nothing_gives_nothing():
    assert facts([]) == StartupFacts()
    assert facts(["hello"]) == StartupFacts()


V0 = """
INFO 03-27 10:28:40 [llm_engine.py:241] Initializing a V0 LLM engine (v0.7.3) with config: max_seq_len=32768, x
INFO 03-27 10:28:58 [model_runner.py:1115] Loading model weights took 14.2487 GB
INFO 03-27 10:29:01 [worker.py:267] Memory profiling takes 4.26 seconds
INFO 03-27 10:29:01 [worker.py:267] the current vLLM instance can use total_gpu_memory (44.53GiB) x \
gpu_memory_utilization (0.90) = 40.08GiB
INFO 03-27 10:29:01 [worker.py:267] model weights take 14.25GiB; non_torch_memory takes 0.28GiB; PyTorch activation \
peak memory takes 1.52GiB; the rest of the memory reserved for KV Cache is 24.03GiB.
INFO 03-27 10:29:01 [executor_base.py:111] # cuda blocks: 12303, # CPU blocks: 2048
INFO 03-27 10:29:20 [model_runner.py:1562] Graph capturing finished in 17 secs, took 0.30 GiB
INFO 03-27 10:29:21 [llm_engine.py:436] init engine (profile, create kv cache, warmup model) took 22.80 seconds
"""


def test_the_v0_engine_counts_blocks_of_sixteen_tokens():
    assert stated(V0.splitlines()) == {
        "engine_version": "0.7.3",
        "weights_gib": 14.25,
        "kv_cache_gib": 24.03,
        "kv_tokens": 12303 * 16,
        "max_model_len": 32768,
        "graph_capture_s": 17,
        "init_s": 22.8,
        "peak_activation_gib": 1.52,
        "non_torch_gib": 0.28,
        "graph_gib": 0.3,
        "total_gib": 44.53,
        "utilization": 0.9,
        "requested_gib": 40.08,
    }


def test_of_several_ranks_the_most_loaded_weighs_and_the_smallest_cache_counts():
    found = facts(
        [
            "(Worker_TP0 pid=1) INFO 01-01 00:00:00 [a.py:1] Model loading took 7.20 GiB memory and 18.1 seconds",
            "(Worker_TP1 pid=2) INFO 01-01 00:00:00 [a.py:1] Model loading took 7.50 GiB memory and 18.9 seconds",
            "(Worker_TP0 pid=1) INFO 01-01 00:00:00 [a.py:1] Available KV cache memory: 10.10 GiB",
            "(Worker_TP1 pid=2) INFO 01-01 00:00:00 [a.py:1] Available KV cache memory: 9.80 GiB",
            "(EngineCore pid=3) INFO 01-01 00:00:00 [a.py:1] GPU KV cache size: 150,768 tokens",
        ]
    )
    assert (found.weights_gib, found.kv_cache_gib, found.kv_tokens) == (7.5, 9.8, 150768)


def test_only_the_last_start_counts(log):
    twice = [*log("vllm-0.26.0-h100-A_cold.log"), *log("vllm-0.26.0-h100-C_seqs8.log")]
    assert facts(twice) == facts(log("vllm-0.26.0-h100-C_seqs8.log"))


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("INFO 01-01 00:00:00 [monitor.py:33] torch.compile takes 17.34 s in total", "compile_s", 17.34),
        ("INFO 01-01 00:00:00 [monitor.py:53] torch.compile took 17.34 s in total", "compile_s", 17.34),
        ("INFO 01-01 00:00:00 [kv_cache_utils.py:1] CPU KV cache size: 87,296 tokens", "kv_tokens", 87296),
        ("INFO 01-01 00:00:00 [config.py:1604] Using max model len 131072", "max_model_len", 131072),
        ("INFO 01-01 00:00:00 [a.py:1] Using Flash Attention backend on V1 engine.", "attention_backend", "Flash"),
        ("INFO 01-01 00:00:00 [a:1] Using AttentionBackendEnum.FLASHINFER backend", "attention_backend", "FLASHINFER"),
        ("INFO 01-01 00:00:00 [a.py:1] Directly load the compiled graph(s) for shape None", "compile_cache_hit", True),
        ("INFO 01-01 00:00:00 [a.py:1] Cache the graph of shape None for later use", "compile_cache_hit", False),
    ],
)  # fmt: skip
def test_every_version_words_it_differently(line, name, value):
    found = getattr(facts([line]), name)
    assert found.startswith(value) if isinstance(value, str) else found == value
