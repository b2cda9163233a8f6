"""The start-up phases stand in the log in the order in which they happen."""

import pytest

from tuner.engines.base import Phase
from tuner.engines.vllm.log.phases import phase

STARTING, WEIGHTS, COMPILING, PROFILING, GRAPHS, OPENING = list(Phase)[:6]
GPU = [STARTING, WEIGHTS, COMPILING, PROFILING, GRAPHS, OPENING]


def sequence(lines):
    """The phases in the order in which they begin."""
    announced = [found for line in lines if (found := phase(line))]
    return [found for found, before in zip(announced, [None, *announced], strict=False) if found is not before]


@pytest.mark.parametrize(
    ("file", "phases"),
    [
        ("vllm-0.26.0-h100-A_cold.log", GPU),
        ("vllm-0.26.0-h100-B_warm.log", GPU),
        ("vllm-0.26.0-h100-C_seqs8.log", GPU),
        ("vllm-0.26.0-h100-E_full_cold.log", GPU),
        ("vllm-0.26.0-h100-F3_no_kv_blocks.log", [STARTING, WEIGHTS, PROFILING]),
        ("vllm-0.26.0-h100-X_len_over.log", [STARTING]),
        ("vllm-0.32.0-cpu-ok_glm_O0_pyc.log", [STARTING, WEIGHTS, PROFILING, OPENING]),
        ("vllm-0.32.0-cpu-ok_glm_mns16.log", [STARTING, WEIGHTS, PROFILING, OPENING]),
        ("vllm-0.32.0-cpu-ok_qwen3_compile.log", [STARTING, WEIGHTS, COMPILING, PROFILING, OPENING]),
        ("vllm-0.32.0-cpu-fail_unknown_flag.log", []),
    ],
)
def test_a_real_log_goes_through_the_phases_in_order(file, phases, log):
    assert sequence(log(file)) == phases


V0 = """
INFO 11-01 03:00:00 api_server.py:528] vLLM API server version 0.6.3.post1
INFO 11-01 03:00:05 llm_engine.py:237] Initializing an LLM engine (v0.6.3.post1) with config: model='org/model-7b'
INFO 11-01 03:00:09 model_runner.py:1056] Starting to load model org/model-7b...
Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]
Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:02<00:00,  1.61it/s]
INFO 11-01 03:00:13 model_runner.py:1067] Loading model weights took 14.2487 GB
INFO 11-01 03:00:15 gpu_executor.py:122] # GPU blocks: 27908, # CPU blocks: 2048
INFO 11-01 03:00:15 gpu_executor.py:126] Maximum concurrency for 32768 tokens per request: 13.63x
INFO 11-01 03:00:18 model_runner.py:1395] Capturing the model for CUDA graphs. This may lead to unexpected consequences
INFO 11-01 03:00:35 model_runner.py:1523] Graph capturing finished in 17 secs.
INFO 11-01 03:00:36 launcher.py:19] Available routes are:
INFO:     Application startup complete.
"""


def test_the_v0_engine_has_the_same_phases_without_compiling():
    assert sequence(V0.splitlines()) == [STARTING, WEIGHTS, PROFILING, GRAPHS, OPENING]


@pytest.mark.parametrize(
    ("line", "announced"),
    [
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  45%|████▌     | 23/51 [00:05<00:06,  4.21it/s]",
            GRAPHS,
        ),
        ("Capturing CUDA graph shapes:   0%|          | 0/35 [00:00<?, ?it/s]", GRAPHS),
        (
            "(EngineCore pid=88) \rLoading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01, 1.9it/s]",
            WEIGHTS,
        ),
        (
            "(Worker_TP1 pid=9) INFO 01-01 00:00:00 [gpu_model_runner.py:1] Starting to load model org/model-7b...",
            WEIGHTS,
        ),
        (
            "INFO 03-14 00:55:21 [llm_engine.py:447] init engine (profile, create kv cache, warmup model) took 71.33 s",
            OPENING,
        ),
        ("Adding requests: 100%|██████████| 4/4 [00:00<00:00, 1.9it/s]", None),
        ('INFO:     10.0.0.7:50000 - "GET /health HTTP/1.1" 200 OK', None),
        ("ERROR 01-01 00:00:00 [core.py:1] Starting to load model", None),
        ("", None),
    ],
)
def test_a_line_announces_at_most_one_phase(line, announced):
    assert phase(line) is announced


def test_of_several_steps_on_one_line_the_last_counts():
    assert phase("Loading safetensors checkpoint shards: 100% Completed\rCapturing CUDA graph shapes:   0%|") is GRAPHS
