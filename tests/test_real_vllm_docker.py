"""A study on real vLLM in real containers: each trial a redeploy; its winner served by Docker Compose."""

import os
import subprocess
from pathlib import Path

import docker
import httpx
import pytest
from rich.console import Console

from tests.deploying import write_compose
from tests.present import present
from tuner import composing
from tuner.launchers.docker.survey import vllm_version
from tuner.records.record import State
from tuner.study.loop import run_study
from tuner.terminal.live import PlainLines, Standing

IMAGE, HERE = os.environ.get("TUNER_TEST_DOCKER_VLLM"), os.environ.get("TUNER_TEST_VLLM")
SITE_PACKAGES = "venv/lib/python3.11/site-packages"

pytestmark = [
    pytest.mark.docker,
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (IMAGE and HERE),
        reason="needs an image whose entrypoint is `vllm serve`, with PYTHONPATH=/opt/site: "
        "TUNER_TEST_DOCKER=… TUNER_TEST_DOCKER_VLLM=IMAGE TUNER_TEST_VLLM=DIR make test",
    ),
]


@pytest.fixture
def asked(tmp_path):
    """Two configurations of GLM-4.7-Flash's architecture in miniature that run, and one that vLLM would reject."""
    return composing.load(
        [
            "experiment=vllm-cpu-docker",
            "search.live=off",
            f"launcher.image={IMAGE}",
            f"launcher.mounts=[{HERE}/{SITE_PACKAGES}:/opt/site:ro,{HERE}/models:/models:ro]",
            "launcher.caches={vllm-cpu: null, vllm-cpu-test: /cache/vllm}",
            "model.id=/models/glm-tiny",
            "model.service={name: tuner-test-vllm, port: 18556}",
            f"study.folder={tmp_path}",
            "study.confirm=0",
            "workload.warm_up={longest_tokens: 200, max_rounds: 2}",
            "workload.ttft_prompt_tokens=[]",
            # the noise of a busy CPU must not make the sixteen streams infeasible
            "objective.limits=null",
            "space.params={not_a_flag: {choices: [null, 3]}}",
            "model.known_good=[{not_a_flag: 3}, {max_num_seqs: 16}]",
            "budget.trials=2",
        ]
    )


@pytest.fixture
def engine():
    client = docker.from_env()
    yield client
    client.volumes.get("tuner-cache-vllm-cpu-test").remove(force=True)
    client.close()


def test_a_study_in_containers_finds_the_most_sequences_and_its_compose_file_serves_them(asked, engine):
    before = sorted(one.name for one in engine.containers.list(all=True))
    outcome = run_study(asked, PlainLines(Standing(asked), Console()).hear)
    baseline, sixteen = outcome.launched
    assert [record.state for record in outcome.launched] == [State.COMPLETE] * 2
    assert outcome.best == sixteen
    assert present(outcome.best.verdict).values > present(baseline.verdict).values
    assert present(baseline.facts).engine_version == present(vllm_version(asked.launcher)).partition("+")[0] == "0.32.0"
    (rejected,) = outcome.ruled_out
    assert present(rejected.failure).cause == "bad_flag"
    assert sorted(one.name for one in engine.containers.list(all=True)) == before
    # the study itself would write it only after relaunches that prove it: four more starts of vLLM
    _serves(write_compose(outcome.folder.path, outcome.best.number), engine)


def _serves(path: Path, engine):
    try:
        _compose(path, "up", "-d", "--wait")
        body = {"model": "glm", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        reply = httpx.post("http://127.0.0.1:18556/v1/chat/completions", json=body, timeout=120)
        assert reply.json()["usage"]["completion_tokens"] >= 1
        command = engine.containers.get("tuner-test-vllm").attrs["Config"]["Cmd"]
        assert command[command.index("--max-num-seqs") + 1] == "16"
    finally:
        _compose(path, "down")


def _compose(path, *arguments):
    done = subprocess.run(["docker", "compose", "-f", path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
