"""A study over engines on real vLLM and real llama.cpp, on a CPU: which for one user, which for five?"""

import os

import pytest
import typer
from typer.testing import CliRunner

from tuner.cli.entry import app
from tuner.contest.outcome import ContestOutcome
from tuner.proof.decision import Kind

VLLM = os.environ.get("TUNER_TEST_VLLM")
LLAMACPP = os.environ.get("TUNER_TEST_LLAMACPP")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.llamacpp,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (VLLM and LLAMACPP), reason="needs both: TUNER_TEST_VLLM=DIR TUNER_TEST_LLAMACPP=DIR make test"
    ),
]

QUICK = [
    "workload.requests=15",
    "workload.output_tokens=16",
    "workload.min_duration_s=1",
    "workload.max_duration_s=3",
    "workload.ttft_prompt_tokens=[]",
    "workload.single_user.requests=2",
    "workload.single_user.output_tokens=4",
    "workload.warm_up.longest_tokens=100",
    "workload.warm_up.max_rounds=2",
    "objective.limits=null",
    "search.live=off",
    # what else these cores do is no concern of this test
    "host.judge=false",
]


def test_both_engines_are_searched_and_compared_for_one_user_and_for_five(tmp_path):
    command = [
        "study",
        "start",
        "experiment=engines-cpu",
        f"study.folder={tmp_path}",
        "budget.trials=12",
        f"engines.vllm.engine.executable=[{VLLM}/venv/bin/vllm,serve]",
        f"engines.vllm.model.id={VLLM}/models/glm-tiny",
        f"engines.llamacpp.engine.executable=[{LLAMACPP}/bin/llama-server]",
        f"engines.llamacpp.model.id={LLAMACPP}/tiny.gguf",
        # idle threads would wait in loops, on cores that the load needs
        "engines.llamacpp.model.args.threads=1",
        "engines.llamacpp.model.args.poll=0",
        *QUICK,
    ]
    ran = CliRunner().invoke(app, command)
    typer.echo(ran.output)
    assert ran.exit_code == 0, ran.output
    outcome = ContestOutcome.of(tmp_path / "engines-cpu")
    assert outcome.over
    assert [share.launched for share in outcome.shares] == [2, 2]
    assert [verdict.level.name for verdict in outcome.verdicts] == ["users_1", "users_5"]
    for verdict in outcome.verdicts:
        # which of them is faster depends on two models that have nothing in common but that they are tiny
        assert verdict.kind in (Kind.BETTER, Kind.NO_DIFFERENCE, Kind.NOT_DECIDED)
        assert verdict.sentence in ran.output
    page = (outcome.folder.path / "report.html").read_text()
    assert "1 user" in page
    assert "5 users" in page
    seeds = [record.seed for record in outcome.counted]
    assert seeds[::2] == seeds[1::2], "both launches of a pair get the same prompts"
    again = CliRunner().invoke(app, command)
    assert "is complete" in again.output
