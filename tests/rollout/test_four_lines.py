"""README's main example, its four lines as they stand there, on a real Docker engine with Compose.

The engine that serves is the simulated one; with ``TUNER_TEST_LONG`` it is real vLLM as well.
"""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.rollout import test_apply as applied
from tests.rollout import test_real_vllm_apply as real
from tests.rollout.test_apply import answers, compose, services, tuner
from tuner.export.profile import read_profile
from tuner.proof.decision import Kind

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
BRIEF = (
    *("workload=tiny", "quality=none", "search.live=off", "objective.limits=null", "objective.guard=null"),
    *("space=none", "space.params={max_num_seqs: {choices: [2, 16]}}", "budget.trials=10"),
    *("study.confirm.max=4", "study.control_every=0", "study.soak_min=0", "study.min_effect=0"),
    *("workload.ttft_prompt_tokens=[]", "workload.single_user.requests=1", "workload.requests=24"),
    *("workload.min_duration_s=1", "workload.warm_up={longest_tokens: 200, max_rounds: 2}", "host.judge=false"),
)
"""Minutes in place of hours: one setting and a brief workload."""
SIMULATED = ("study.preflight=false", "launcher.hf_home=null", "engine.clock_scale=15")
"""Its model is nowhere to be had."""
image = applied.image


@pytest.fixture
def deployed(tmp_path):
    """Deploys a compose file whose service serves two requests at a time; its folder."""
    here = tmp_path / f"f{os.getpid()}"

    def deploy(text):
        here.mkdir()
        (here / "compose.yaml").write_text(text)
        (here / ".env").write_text(applied.DOTENV.replace("SEQS=16", "SEQS=2"))
        compose(here, "up", "-d")
        applied.until_it_answers(here)
        return here

    yield deploy
    compose(here, "down", "--volumes", "--timeout", "0")


def test_they_make_a_deployment_faster(deployed, image, engine):
    make_faster(deployed(applied.COMPOSE), engine, *SIMULATED)


@pytest.mark.vllm
@real.pytestmark[-1]
def test_they_make_real_vllm_faster(deployed, engine):
    make_faster(deployed(real.COMPOSE), engine, "engine.version=0.32.0")


def make_faster(here, engine, *overrides):
    """Type the four lines, and look at the deployment after each."""
    before, old = sorted(one.name for one in engine.containers.list(all=True)), services(here, engine)
    imported, study, write, apply = lines()
    assert "--max-num-seqs" in run(here, imported)
    ended = run(here, study, *BRIEF, *overrides)
    profile = read_profile(here / "studies" / "qwen" / "profile.yaml")
    assert (profile.verdict.kind, profile.args["max_num_seqs"]) == (Kind.BETTER, 16), ended
    assert services(here, engine).qwen.id == old.qwen.id, "the service went on meanwhile"
    assert "+SEQS=16" in run(here, write)
    assert "SEQS=2" in (here / ".env").read_text(), "it was only shown"
    run(here, apply)
    assert "SEQS=16" in (here / ".env").read_text()
    new = services(here, engine).qwen
    command = new.attrs["Config"]["Cmd"]
    assert command[command.index("--max-num-seqs") + 1] == "16"
    assert answers(new)
    assert sorted(one.name for one in engine.containers.list(all=True)) == before


def lines():
    """The four lines."""
    section = (ROOT / "README.md").read_text("utf-8").split("## From your compose file to a faster one")[1]
    return re.findall(r"^    tuner (.*)$", section.split("\n## ")[0], re.MULTILINE)


def run(here, line, *more):
    """What it prints."""
    done = tuner(here, *shlex.split(line), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
