"""A study on real vLLM: the architecture of GLM-4.7-Flash in miniature, on a CPU."""

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from tests.present import present
from tests.simulated import simulated_study
from tuner import composing
from tuner.export import forms
from tuner.export.inplace.winner import winner_of
from tuner.export.profile import profile_of
from tuner.load.naming import CONCURRENT
from tuner.load.records import read_records
from tuner.records.idle import idle_parameters
from tuner.records.record import State
from tuner.study.loop import run_study
from tuner.terminal.closing import write_results
from tuner.terminal.live import PlainLines, Standing

HERE = os.environ.get("TUNER_TEST_VLLM")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not HERE, reason="needs real vLLM: TUNER_TEST_VLLM=DIR make test (DIR/venv/bin/vllm, DIR/models)"
    ),
]


def test_a_study_sees_what_vllm_overrides_and_what_does_nothing(tmp_path):
    """With MLA on, this CPU forces block size 16 and another number of batched tokens, and says so only if asked."""
    if "amx_tile" in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has AMX: its MLA backend takes any block size, so that vLLM overrides nothing")
    vllm = Path(str(HERE))
    asked = composing.load(
        [
            "experiment=vllm-cpu",
            "search.live=off",
            f"engine.executable=[{vllm}/venv/bin/vllm,serve]",
            f"model.id={vllm}/models/glm-tiny",
            "model.env.VLLM_MLA_DISABLE=0",
            "model.args.block_size=32",
            "model.args.max_num_seqs=16",
            f"study.folder={tmp_path}",
            "study.confirm=0",
            "objective.limits=null",
            # what is wanted is the server's own word, not its speed
            "workload={requests: 16, min_duration_s: 0, single_user: {requests: 1}, ttft_prompt_tokens: []}",
            "workload.warm_up={longest_tokens: 200, max_rounds: 2}",
            "space.params={max_num_batched_tokens: {choices: [256, 512]}, max_num_seqs: null}",
            "+space.params.block_size={choices: [16, 32, 64]}",
            "+space.params.not_a_flag={choices: [null, 3]}",
            "model.known_good=[{not_a_flag: 3}, {block_size: 64}, {max_num_batched_tokens: 512, block_size: 16}]",
            "budget.trials=3",
        ]
    )
    outcome = run_study(asked, PlainLines(Standing(asked), Console()).hear)
    (refused,) = outcome.ruled_out
    assert "--not-a-flag" in present(refused.failure).message
    assert "vllm serve --help=all" in present(refused.failure).message
    for record in outcome.launched:
        seen = {setting.name: setting for setting in record.effective}
        assert seen["block_size"].effective == 16
        assert seen["max_num_batched_tokens"].effective == 2048
    idle = {each.name for each in idle_parameters(outcome.searched, asked.space)}
    assert idle == {"block_size", "max_num_batched_tokens"}
    write_results(outcome)
    page = outcome.folder.report.read_text()
    assert "block_size does nothing here: whatever is asked, 16 runs" in page
    assert "<td><code>max_num_batched_tokens</code></td><td>256</td><td>2048" in page
    assert "--not-a-flag is not known to this vLLM" in page


def test_a_study_of_one_line_runs_for_agents_and_their_goodput(tmp_path):
    """Another model than the presets': what is tried comes from its configuration and from this vLLM's own flags."""
    vllm = Path(str(HERE))
    asked = composing.load(
        [
            f"model.id={vllm}/models/qwen3-tiny",
            f"engine.executable=[{vllm}/venv/bin/vllm,serve]",
            # the folder has no weights, and the host little memory
            "model.args={load_format: dummy, optimization_level: 0, max_model_len: 2048}",
            "model.env={VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}",
            # an hour of coding agents as a few seconds of small ones
            *("workload=agents", "workload.agents.scale=0.01", "workload.concurrency=[2,4]", "workload.requests=8"),
            *("workload.min_duration_s=3", "workload.max_duration_s=6", "workload.ttft_prompt_tokens=[]"),
            *("workload.tool_call=false", "workload.single_user.requests=1", "quality=none", "search.live=off"),
            *("objective=goodput", "workload.slo={ttft_ms: 20000, tpot_ms: 5000}", "objective.limits=null"),
            *(f"study.folder={tmp_path}", "study.confirm=0", "budget.trials=2"),
        ]
    )
    assert asked.study.name == "qwen3-tiny"
    assert set(asked.space.params) == {"max_num_seqs", "max_num_batched_tokens"}
    outcome = run_study(asked, PlainLines(Standing(asked), Console()).hear)
    baseline, tried = outcome.launched
    assert baseline.state is tried.state is State.COMPLETE
    assert "--max-num-seqs" in tried.argv
    assert present(baseline.verdict).values[0] > 0
    sent = read_records(outcome.folder.trial(0).requests)
    talks: dict[int, list[int]] = {}
    for request in sent:
        if request.stage == CONCURRENT and request.prompt_tokens:
            talks.setdefault(request.stream, []).append(request.prompt_tokens)
    assert any(later > earlier for lengths in talks.values() for earlier, later in pairwise(lengths)), "contexts grow"


PARSED = """
import json, sys
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
ServeSubcommand().subparser_init(parser.add_subparsers(dest="command"))
print(json.dumps(vars(parser.parse_args(["serve", *sys.argv[1:]])), default=str))
"""


def parsed(*words):
    command = [f"{HERE}/venv/bin/python", "-c", PARSED, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_reads_a_winners_settings_file_as_its_command_line(tmp_path):
    outcome = simulated_study(tmp_path, 6)
    args = {
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "hf_overrides": {"a": 1},
        "served_model_name": ["a", "b"],
    }
    profile = present(profile_of(outcome)).model_copy(update={"args": {**args, "enforce_eager": True}})
    (tmp_path / "config.yml").write_text(forms.config(profile))
    words = [word for flag in winner_of(profile).flags for word in (flag.name, *flag.values)]
    line = parsed(profile.model, *words, "--port", str(profile.service.port))
    file = parsed("--config", str(tmp_path / "config.yml"))
    assert file == {**line, "model": profile.model, "model_tag": None, "config": file["config"]}
