"""vLLM's log names why it does not start or stopped; by single lines, by what else is known, and by order."""

import csv
import re
from importlib.resources import files
from pathlib import Path

import pytest

from tuner.engines.causes import Cause, Evidence
from tuner.engines.vllm.engine import VllmEngine
from tuner.engines.vllm.log.signs import SIGNS

diagnose = VllmEngine(("vllm", "serve"), "m").diagnose

READY = "INFO:     Application startup complete."
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.52 GiB"
WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
LINES = list(csv.DictReader((Path(__file__).parents[2] / "data" / "lines.csv").read_text().splitlines()))
STATS = "INFO 06-16 10:03:14 [loggers.py:87] Engine 000: Avg prompt throughput: 1254.4 tokens/s"


@pytest.mark.parametrize(("cause", "line"), [(row["cause"], row["line"]) for row in LINES])
def test_a_line_alone_names_its_cause(cause, line):
    assert diagnose(Evidence((line,))).cause == cause


@pytest.mark.parametrize("line", [row["line"] for row in LINES if row["cause"] == Cause.UNKNOWN])
def test_what_only_sounds_like_a_failure_decides_nothing(line):
    assert diagnose(Evidence((line,))).line is None


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (
            "ValueError: Free memory on device cuda:0 (7.34/139.72 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 125.75 GiB). Decrease GPU memory utilization",
            {"free_gib": 7.34, "total_gib": 139.72, "utilization": 0.9, "desired_gib": 125.75},
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (4.11 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (4.0 GiB). Based on the available memory, the "
            "estimated maximum model length is 127776. Try increasing",
            {
                "max_model_len": 131072,
                "needed_kv_gib": 4.11,
                "available_kv_gib": 4.0,
                "estimated_max_model_len": 127776,
            },
        ),
        (
            "ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that can be stored "
            "in KV cache (2400). Try increasing",
            {"max_model_len": 8192, "kv_tokens": 2400},
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of "
            "23.52 GiB of which 512.00 MiB is free.",
            {"tried_mib": 1536, "total_gib": 23.52, "free_mib": 512},
        ),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", {
            "dummy_requests": 1024,
        }),
        (
            "  Value error, User-specified max_model_len (300000) is greater than the derived max_model_len "
            "(max_position_embeddings=202752 or model_max_length=None in model's config.json).",
            {"max_model_len": 300000, "derived_max_model_len": 202752},
        ),
        (
            "ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).",
            {"max_num_batched_tokens": 64, "max_num_seqs": 256},
        ),
        (
            "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (6).",
            {"heads": 40, "tensor_parallel_size": 6},
        ),
        ("ERROR [a] Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor.", {
            "exit_code": -11,
        }),
        ("RuntimeError: Insufficient space in /dev/shm: 160 MiB required, 64 MiB free.", {"needed_shm_mib": 160}),
    ],
)  # fmt: skip
def test_the_figures_in_a_line_are_read(line, numbers):
    assert diagnose(Evidence((line,))).numbers == numbers


def test_the_root_cause_wins_over_the_lines_that_every_failure_ends_in():
    aftermath = ["ERROR 01-01 00:00:00 [core.py:1] EngineCore failed to start.", "RuntimeError: NCCL error: timeout"]
    found = diagnose(Evidence((*aftermath, OOM, WRAPPER)))
    assert (found.cause, found.line, found.line_number) == (Cause.CUDA_OOM, OOM, 3)


def test_a_wrapper_without_a_root_is_unknown_and_shows_itself():
    found = diagnose(Evidence((WRAPPER,)))
    assert (found.cause, found.line, found.confidence) == (Cause.UNKNOWN, WRAPPER, "guess")


def test_a_wrapper_around_an_exception_that_no_sign_knows_shows_the_exception():
    found = diagnose(Evidence(("AttributeError: 'tuple' object has no attribute 'ndim'", WRAPPER)))
    assert (found.cause, found.line_number) == (Cause.UNKNOWN, 1)


def test_what_was_said_comes_before_the_code_that_a_traceback_quotes():
    quoted = ["Traceback (most recent call last):", "    self.pynccl_comm = PyNcclCommunicator("]
    said = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert diagnose(Evidence((*quoted, WRAPPER))).cause is Cause.DISTRIBUTED
    assert diagnose(Evidence((*quoted, said))).line == said


def test_an_exception_may_be_written_as_its_repr():
    died = "ERROR 11-20 10:15:31 engine.py:366] AttributeError(\"'Worker' object has no attribute 'x'\")"
    assert diagnose(Evidence((died, WRAPPER))).line == died


def test_the_same_wrapper_after_serving_means_that_the_engine_died():
    found = diagnose(Evidence((READY, "IndexError: out of range", "ERROR EngineCore encountered a fatal error.")))
    assert (found.cause, found.line_number) == (Cause.ENGINE_DIED, 2)


def test_memory_that_ran_out_while_serving_is_told_as_such():
    assert diagnose(Evidence((READY, STATS, OOM, "ERROR AsyncLLM output_handler failed."))).cause is Cause.CUDA_OOM


@pytest.mark.parametrize("line", ["ValueError: No available memory for the cache blocks.", "vllm: error: argument --x"])
def test_what_only_a_start_can_say_does_not_count_once_it_serves(line):
    assert diagnose(Evidence((READY, line), exit_code=0)).cause is Cause.HEALTHY


def test_what_was_said_before_it_became_ready_was_survived():
    assert diagnose(Evidence((OOM, READY))).cause is Cause.HEALTHY


def test_only_the_last_start_counts():
    start = "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.11.2"
    assert diagnose(Evidence((start, OOM, WRAPPER, start, READY))).cause is Cause.HEALTHY
    assert diagnose(Evidence((start, READY, start, OOM, WRAPPER))).cause is Cause.CUDA_OOM


def test_a_start_that_is_cut_off_is_told_by_the_one_before_unless_it_still_runs():
    start = "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.11.2"
    log = (start, OOM, WRAPPER, start)
    assert diagnose(Evidence(log)).cause is Cause.CUDA_OOM
    assert diagnose(Evidence(log, running=True)).cause is Cause.UNKNOWN


def test_what_follows_an_order_to_stop_is_not_why_it_stopped():
    stop = "INFO 01-01 00:00:00 [launcher.py:1] API server: shutdown triggered"
    log = (READY, stop, "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.")
    assert diagnose(Evidence(log, exit_code=-15)).cause is Cause.HEALTHY


def test_a_family_of_words_decides_only_when_the_server_has_ended():
    line = "NotImplementedError"
    assert diagnose(Evidence((line,), running=True)).cause is Cause.UNKNOWN
    assert diagnose(Evidence((line,))).cause is Cause.UNSUPPORTED


def test_an_exception_alone_decides_nothing_while_the_server_runs():
    assert diagnose(Evidence(("ValueError: odd",), running=True)).line is None
    assert diagnose(Evidence(("ValueError: odd",))).line == "ValueError: odd"


def test_stalled_is_only_what_a_deadline_says():
    log = (STATS.replace("Avg", "avg"), "No available shared memory broadcast block found in 60 seconds.")
    assert diagnose(Evidence(log)).cause is Cause.UNKNOWN
    found = diagnose(Evidence(log, stalled_phase="loading weights"))
    assert (found.cause, found.line_number) == (Cause.STALLED, 2)
    assert "loading weights" in found.advice


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [(137, Cause.HOST_OOM), (-9, Cause.HOST_OOM), (-11, Cause.ENGINE_DIED), (1, Cause.UNKNOWN), (None, Cause.UNKNOWN)],
)
def test_a_silent_end_is_told_by_its_exit_code(exit_code, cause):
    found = diagnose(Evidence(("INFO 01-01 00:00:00 [a.py:1] loading",), exit_code=exit_code))
    assert (found.cause, found.line) == (cause, None)
    assert found.confidence != "certain"


def test_the_container_engines_word_for_an_oom_kill_needs_no_line():
    assert diagnose(Evidence((OOM,), oom_killed=True)).cause is Cause.HOST_OOM


def test_a_server_that_served_and_was_killed_did_not_end_well():
    assert diagnose(Evidence((READY,), exit_code=-9)).cause is Cause.HOST_OOM
    assert diagnose(Evidence((READY,), exit_code=0)).cause is Cause.HEALTHY


def test_a_kill_by_the_server_itself_is_no_shortage_of_memory():
    fatal = "CRITICAL 05-07 19:18:17 [core_client.py:359] Got fatal signal from worker processes, shutting down."
    assert diagnose(Evidence((fatal, "Killed"))).cause is Cause.UNKNOWN
    assert diagnose(Evidence(("Killed",))).cause is Cause.HOST_OOM


def test_a_probe_that_fails_while_the_server_loads_is_no_network_error():
    probe = "Warning Unhealthy pod/x Readiness probe failed: Get /health: Max retries exceeded with url: /health"
    assert diagnose(Evidence((probe,))).cause is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("INFO 08-01 06:01:10 [utils.py:287] vLLM API server version 0.10.2", "0.10.2"),
        ("INFO 11-01 03:00:00 api_server.py:528] vLLM API server version 0.6.3.post1", "0.6.3.post1"),
        ("INFO 08-01 06:00:00 [utils.py:345]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.26.0", "0.26.0"),
        ("INFO 07-17 00:07:07 [core.py:69] Initializing a V1 LLM engine (v0.9.2) with config: model='m'", "0.9.2"),
        ("hello", None),
    ],
)
def test_the_version_is_read_where_the_log_names_it(line, version):
    assert diagnose(Evidence((line,))).engine_version == version


def test_every_sign_gives_advice_that_one_can_follow():
    assert all(sign.advice.endswith(".") and len(sign.advice) > 20 for sign in SIGNS)


def test_every_figure_has_a_unit_in_its_name_or_is_a_plain_number():
    names = {name for sign in SIGNS for name in sign.regex.groupindex}
    assert {name.removesuffix("_unit") for name in names if name.endswith("_unit")} <= names
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in names)


def test_a_long_log_is_read_in_a_moment(log):
    lines = log("vllm-0.26.0-h100-A_cold.log") * 20
    assert diagnose(Evidence(tuple(lines))).cause is Cause.HEALTHY


def test_the_table_of_flags_ships_with_the_package():
    assert (files("tuner.engines.vllm") / "flags.json").is_file()


def test_the_setting_that_a_value_was_refused_for_is_named():
    log = [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig",
        "gpu_memory_utilization",
        "  Input should be less than or equal to 1 [type=less_than_equal, input_value=1.5, input_type=float]",
    ]
    assert diagnose(Evidence(log, exit_code=1)).advice == "Give gpu_memory_utilization a value that the message allows."
    assert diagnose(Evidence([log[0], log[2]], exit_code=1)).advice.startswith("Give the setting a value")
