"""A log is explained by the engine that wrote it."""

import io
import itertools
import os
import random
import tracemalloc

import pytest

from tests.engines.conftest import DATA
from tuner.engines import sglang
from tuner.engines.causes import Action, Cause, Evidence, Fate, consequence_of, described
from tuner.engines.explain import explain, lines_of
from tuner.engines.registry import ENGINES
from tuner.errors import ConfigError

START = ["(APIServer pid=1) INFO 08-01 06:01:10 [utils.py:287] vLLM API server version 0.26.0"]
READY = ["(APIServer pid=1) INFO:     Application startup complete."]
EAGER = "(EngineCore pid=60) WARNING 08-01 06:01:20 [vllm.py:1] Enforce eager set, disabling torch.compile"
DIED = "(EngineCore pid=60) RuntimeError: CUDA error: an illegal memory access was encountered"
UNTUNED = "WARNING 08-01 06:01:20 [fused_moe.py:1090] Using default MoE config. Performance might be sub-optimal!"


def test_each_engine_is_recognised_by_its_words():
    assert explain(["error: invalid argument: --foo"]).cause is Cause.BAD_FLAG
    assert explain(["INFO: sglang", "launch_server.py: error: unrecognized arguments: --foo"]).cause is Cause.BAD_FLAG


def test_a_vllm_log_that_mentions_another_engine_stays_vllms():
    noise = [f"INFO 08-01 06:01:20 [a.py:1] line {number}" for number in range(200)]
    log = [*START, *noise, "INFO 08-01 06:01:20 [a.py:1] plugin sglang_kernels found, sglang", *READY]
    assert explain(log).engine_version == "0.26.0"


def test_a_healthy_server_with_a_severe_degradation_is_degraded():
    found = explain([*START, EAGER, *READY])
    assert (found.cause, found.line, found.confidence) == (Cause.DEGRADED, EAGER, "certain")
    assert "eager" in found.advice


def test_a_healthy_server_that_was_asked_to_be_eager_is_healthy():
    asked = "INFO 08-01 06:01:11 [utils.py:278] non-default args: {'enforce_eager': True}"
    assert explain([*START, asked, EAGER, *READY]).cause is Cause.HEALTHY


def test_a_mild_degradation_counts_only_where_the_log_is_about_nothing_else():
    assert explain([*START, UNTUNED, *READY]).cause is Cause.HEALTHY
    assert explain([*START, UNTUNED]).cause is Cause.UNKNOWN
    assert explain([UNTUNED]).cause is Cause.DEGRADED


def test_a_failure_is_told_before_a_degradation():
    assert explain([EAGER, "ValueError: No available memory for the cache blocks."]).cause is Cause.NO_KV_CACHE


@pytest.mark.parametrize("log", [[], [""], ["hello"], ["\x00\ufffd"], ["x" * 20_000], ["("] * 50])
def test_anything_may_be_asked_and_nothing_is_guessed(log):
    assert explain(log).cause is Cause.UNKNOWN
    assert explain(log).line is None


def test_what_the_launcher_knows_reaches_the_engine():
    assert explain([], exit_code=137).cause is Cause.HOST_OOM
    assert explain([], oom_killed=True).cause is Cause.HOST_OOM


@pytest.mark.parametrize(
    "diagnose", [ENGINES["llamacpp"].engine(("llama-server",), "x.gguf").diagnose, sglang.diagnose]
)
def test_the_other_engines_obey_the_same_rules(diagnose):
    assert diagnose(Evidence(())).cause is Cause.UNKNOWN
    assert diagnose(Evidence(("loading",), stalled_phase="loading weights")).cause is Cause.STALLED
    assert diagnose(Evidence(("CUDA error: out of memory",))).cause is Cause.CUDA_OOM


def test_a_librarys_version_is_not_the_engines():
    assert explain(["INFO 01-01 00:00:00 [pynccl.py:1] NCCL version 2.27.3", "Killed"]).engine_version is None


STARTED = "INFO 11-02 09:20:09 [core.py:210] init engine (profile, create kv cache, warmup model) took 31 s"


def test_a_server_that_has_finished_its_start_is_healthy_whether_it_is_said_to_run_or_not():
    assert explain([*START, STARTED]) == explain([*START, STARTED], running=True)
    assert explain([*START, STARTED], running=True).cause is Cause.HEALTHY


def test_memory_that_another_process_gave_back_is_the_machines_fault():
    line = "AssertionError: Error in memory profiling. Initial free memory 20.11 GiB, current free memory 23.40 GiB."
    assert consequence_of(explain([line])).action is Action.RETRY


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "ValueError: No available memory for the cache blocks.",
        "ValueError: Free memory on device (1/23 GiB) on startup is less than desired GPU memory utilization",
        "ValueError: To serve at least one request with the models's max seq len (65536), 3.3 GiB KV cache is needed",
        "ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (72).",
    ],
)
def test_where_the_size_of_the_cache_is_given_no_advice_is_about_the_share(line):
    given = "INFO 08-01 06:01:11 [utils.py:278] non-default args: {'kv_cache_memory_bytes': 8589934592}"
    assert "gpu_memory_utilization" in explain([*START, line]).advice
    assert "gpu_memory_utilization" not in explain([*START, given, line]).advice


def test_a_line_that_was_cut_is_counted_and_its_end_still_decides():
    log = lines_of(io.BytesIO(b" " * 1_000_000 + b"RuntimeError: CUDA error: out of memory"))
    found = explain(log)
    assert (found.cause, found.cut) == (Cause.CUDA_OOM, 1)
    assert "too long to be read whole" in described(found)


def test_a_log_is_read_as_it_comes_and_never_kept():
    noise = (f"INFO 08-01 06:01:20 [a.py:1] line {number} of many" for number in range(200_000))
    tracemalloc.start()
    assert explain(itertools.chain(START, noise, READY)).cause is Cause.HEALTHY
    assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()


WAITS = (
    "(EngineCore pid=9) INFO 11-02 09:21:09 [shm_broadcast.py:681] "
    "No available shared memory broadcast block found in 60 seconds."
)
TIMED_OUT = [
    "TimeoutError: RPC call to sample_tokens timed out.",
    "(APIServer pid=1) ERROR 11-02 09:26:09 [async_llm.py:704] AsyncLLM output_handler failed.",
]
MOVES = "(APIServer pid=1) INFO 11-02 09:21:19 [loggers.py:259] Engine 000: Avg generation throughput: 8.0 tokens/s"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ([WAITS], Cause.HEALTHY),
        ([WAITS] * 3, Cause.STALLED),
        ([WAITS, MOVES] * 5, Cause.HEALTHY),
        ([*[WAITS] * 3, *TIMED_OUT], Cause.STALLED),
        ([WAITS, *TIMED_OUT], Cause.ENGINE_DIED),
        ([*[WAITS] * 3, "IndexError: out of range", TIMED_OUT[1]], Cause.ENGINE_DIED),
    ],
)
def test_a_server_that_waits_again_and_again_hangs_also_if_it_gives_up_in_the_end(said, cause):
    assert explain([*START, STARTED, *READY, *said]).cause is cause


def test_a_server_that_was_ended_before_it_served_did_not_start():
    assert explain([*START, STARTED], exit_code=143).cause is Cause.UNKNOWN
    assert "probe" in explain([*START, STARTED], exit_code=143).advice
    assert explain([*START, STARTED, *READY], exit_code=143).cause is Cause.HEALTHY


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("PermissionError: [Errno 13] Permission denied: '/.cache'", "write to this folder"),
        ("OSError: [Errno 30] Read-only file system: '/srv/cache/vllm'", "write to this folder"),
        ("OSError: PermissionError at /srv/cache/huggingface/hub when downloading org/m.", "write to this folder"),
        ("Normal  Killing  4m  kubelet  Container vllm failed startup probe, will be restarted", "probe"),
        ("vllm-1 exited with code 143", "probe"),
    ],
)
def test_what_the_host_lacks_is_named_with_its_line(line, advice):
    found = explain([*START, line])
    assert (found.line, consequence_of(found).action) == (line, Action.RETRY)
    assert advice in found.advice


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", "compiler"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'ninja'", "compiler"),
        (
            "ImportError: /opt/vllm/_C.abi3.so: undefined symbol: _ZN5torch3jit17parseSchemaOrNameERKSsb",
            "other versions",
        ),
        ("ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.31' not found", "other versions"),
        ("RuntimeError: operator torchvision::nms does not exist", "other versions"),
        ("ModuleNotFoundError: No module named 'flash_attn_interface'", "Install flash_attn_interface"),
    ],
)
def test_what_an_image_lacks_is_named_with_its_line_and_lacks_at_every_start(line, advice):
    found = explain([*START, line])
    assert (found.line, consequence_of(found).action) == (line, Action.TEACH)
    assert advice in found.advice


@pytest.mark.parametrize("seed", range(20))
def test_passing_over_lines_that_change_nothing_changes_nothing(seed):
    """Starts, failures and traffic in any order, over and over: as if each line had been read by itself."""
    dice = random.Random(seed)
    logs = [path.read_text().split("\n") for path in sorted(DATA.glob("vllm-*.log"))]
    served = [f'INFO: 10.0.0.{n % 9}:{n} - "POST /v1/chat/completions HTTP/1.1" 200 OK' for n in range(50)]
    pieces = [*logs, START, READY, [EAGER], [f"{DIED}: {n}" for n in range(3)]]
    lines = [line for _ in range(20) for line in [*dice.choice(pieces), *served * dice.choice([0, 1, 4])]]
    reader = ENGINES["vllm"].log.reader()
    for line in lines:
        reader.read(line)
    found, expected = explain(lines, running=bool(seed % 2)), reader.diagnose(Fate(running=bool(seed % 2)))
    assert found == expected or (found.cause is Cause.DEGRADED and expected.cause in (Cause.HEALTHY, Cause.UNKNOWN))


def test_a_device_without_an_end_is_no_log():
    with open("/dev/zero", "rb") as device, pytest.raises(ConfigError, match="/dev/zero is a device"):
        explain(lines_of(device))
    with open(os.devnull, "rb") as nothing:
        assert explain(lines_of(nothing)).cause is Cause.UNKNOWN
