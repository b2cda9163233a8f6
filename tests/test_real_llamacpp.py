"""A whole study on a real llama.cpp server, on a CPU."""

import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from tuner import composing
from tuner.engines.causes import Cause
from tuner.records.record import State
from tuner.study.loop import run_study
from tuner.terminal.closing import write_results
from tuner.terminal.live import PlainLines, Standing

HERE = os.environ.get("TUNER_TEST_LLAMACPP")

pytestmark = [
    pytest.mark.llamacpp,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not HERE, reason="needs llama.cpp: TUNER_TEST_LLAMACPP=DIR make test (DIR/bin/llama-server, DIR/tiny.gguf)"
    ),
]

QUICK = [
    "workload.concurrency=4",
    "workload.requests=8",
    "workload.output_tokens=16",
    "workload.min_duration_s=1",
    "workload.max_duration_s=3",
    "workload.ttft_prompt_tokens=[]",
    "workload.single_user.requests=2",
    "workload.single_user.output_tokens=16",
    "workload.warm_up.longest_tokens=200",
    "workload.warm_up.max_rounds=2",
    "objective.limits=null",
    # what is shown here is what happens, not how fast it is
    "host.judge=false",
    # idle threads would wait in loops, on cores that the load needs
    "+model.args.threads=1",
    "+model.args.poll=0",
]


def study(folder, *overrides):
    """A study of the tiny model."""
    here = Path(str(HERE))
    asked = composing.load(
        [
            "experiment=llamacpp-cpu",
            f"engine.executable=[{here}/bin/llama-server]",
            f"model.id={here}/tiny.gguf",
            f"study.folder={folder}",
            *QUICK,
            *overrides,
        ]
    )
    return run_study(asked, PlainLines(Standing(asked), Console()).hear)


def test_a_study_measures_the_slots_and_launches_nothing_that_cannot_run(tmp_path):
    outcome = study(
        tmp_path,
        "study.confirm=1",
        "budget.trials=4",
        # only the last of them can be launched
        "model.known_good=[{cache_type_v: q8_0, flash_attn: false}, {flash_attn: 'on'}, "
        "{ctx_size: 1000000000, parallel: 1}, {parallel: 1, ctx_size: 4096}]",
        "space.params.ctx_size.choices=[4096,8192,1000000000]",
    )
    baseline, one = outcome.launched[:2]
    assert baseline.facts.kv_tokens == 8192
    assert baseline.facts.max_model_len == 2048
    assert baseline.forecast.weights_gib == pytest.approx(baseline.facts.weights_gib, rel=0.01)
    assert baseline.forecast.kv_gib == pytest.approx(baseline.facts.kv_cache_gib, rel=0.01)
    assert baseline.forecast.activation_gib == pytest.approx(baseline.facts.peak_activation_gib, rel=0.15)
    became = {each.name: (each.requested, each.effective) for each in baseline.effective}
    assert became["ctx_size"] == (8192, 8192)
    assert became["parallel"] == (4, 4)
    assert baseline.measurement.engine.stage_generation_tokens > 0
    assert one.params["parallel"] == 1
    assert {"unsupported", "bad_flag", "host_oom"} <= {each.failure.cause for each in outcome.ruled_out}
    assert outcome.best in (baseline, one)  # which of them depends on what else the cores do
    write_results(outcome)
    assert "needs flash attention" in outcome.folder.report.read_text()


def test_what_a_real_server_refuses_is_explained_and_learned(tmp_path):
    outcome = study(
        tmp_path,
        "study.confirm=0",
        "study.preflight=false",
        "budget.trials=5",
        "+space.params.not_a_flag={choices: [null, 3]}",
        "space.params.parallel.choices=[1,4,5000]",
        "space.params.model_draft={choices: [null, nowhere.gguf]}",
        "model.known_good=[{cache_type_v: q8_0, flash_attn: false}, {not_a_flag: 3}, {parallel: 5000}, "
        "{model_draft: nowhere.gguf}]",
    )
    failed = {each.failure.cause: each.failure.line for each in outcome.records if each.state is State.PRUNED}
    assert {Cause.UNSUPPORTED, Cause.BAD_FLAG} == set(failed)
    assert re.search("V cache quantization requires flash_attn|n_seq_max must be", failed[Cause.UNSUPPORTED])
    assert sum(each.state is State.PRUNED for each in outcome.records) == 4
    assert max(each.seconds for each in outcome.records if each.state is State.PRUNED) < 30
