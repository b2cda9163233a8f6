"""A log is explained by the engine that wrote it."""

import pytest

from tuner.engines import llamacpp, sglang
from tuner.engines.causes import Cause, Evidence
from tuner.engines.explain import explain

START = ["(APIServer pid=1) INFO 08-01 06:01:10 [utils.py:287] vLLM API server version 0.26.0"]
READY = ["(APIServer pid=1) INFO:     Application startup complete."]
EAGER = "(EngineCore pid=60) WARNING 08-01 06:01:20 [vllm.py:1] Enforce eager set, disabling torch.compile"
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


@pytest.mark.parametrize("diagnose", [llamacpp.diagnose, sglang.diagnose])
def test_the_other_engines_obey_the_same_rules(diagnose):
    assert diagnose(Evidence(())).cause is Cause.UNKNOWN
    assert diagnose(Evidence(("loading",), stalled_phase="loading weights")).cause is Cause.STALLED
    assert diagnose(Evidence(("CUDA error: out of memory",))).cause is Cause.CUDA_OOM


def test_a_librarys_version_is_not_the_engines():
    assert explain(["INFO 01-01 00:00:00 [pynccl.py:1] NCCL version 2.27.3", "Killed"]).engine_version is None
