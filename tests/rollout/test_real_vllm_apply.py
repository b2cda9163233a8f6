"""A winner applied to real vLLM in a compose deployment: killed while it is measured, put back, applied, verified."""

import json
import os
import signal

import pytest

from tests.rollout import test_apply as applied
from tests.rollout.test_apply import KILLED, answers, apply, compose, services, tuner
from tuner.rollout.journal import Step

IMAGE, HERE = os.environ.get("TUNER_TEST_DOCKER_VLLM"), os.environ.get("TUNER_TEST_VLLM")
pytestmark = [
    pytest.mark.docker,
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (IMAGE and HERE and os.environ.get("TUNER_TEST_LONG")),
        reason="takes nine minutes, and an image whose entrypoint is `vllm serve`, with PYTHONPATH=/opt/site: "
        "TUNER_TEST_LONG=1 TUNER_TEST_DOCKER=… TUNER_TEST_DOCKER_VLLM=IMAGE TUNER_TEST_VLLM=DIR make test",
    ),
]
COMPOSE = f"""
services:
  qwen:
    image: {IMAGE}
    command: >
      /models/glm-tiny --served-model-name glm --load-format dummy --optimization-level 0 --max-num-batched-tokens 256
      --max-model-len 2048 --max-num-seqs ${{SEQS:-2}} --host 0.0.0.0
    ipc: host
    environment: ["VLLM_API_KEY=${{VLLM_API_KEY}}"]
    volumes: ["{HERE}/venv/lib/python3.11/site-packages:/opt/site:ro", "{HERE}/models:/models:ro"]
    ports: ["127.0.0.1::8000"]
    restart: unless-stopped
"""
STUDY = (
    *("experiment=vllm-cpu", "workload=tiny", "study.name=s", "model.id=/models/glm-tiny"),
    *("workload.ttft_prompt_tokens=[]", "workload.warm_up={longest_tokens: 200, max_rounds: 2}"),
)
proven, winner = applied.proven, applied.winner


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(applied, "STUDY", STUDY)
    folder = tmp_path / f"v{os.getpid()}"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / ".env").write_text(applied.DOTENV.replace("SEQS=16", "SEQS=2"))
    try:
        compose(folder, "up", "-d")
        applied.until_it_answers(folder)
        yield folder
    finally:
        compose(folder, "down", "--timeout", "0")


def test_real_vllm_is_replaced_put_back_and_verified(here, winner, engine):
    before, old = (here / ".env").read_bytes(), services(here, engine)
    winner(noise=1.0, max_num_seqs=16)
    killed = apply(here, program=("-c", KILLED, Step.MEASURING, "25", str(int(signal.SIGKILL))))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    back = tuner(here, "profile", "rollback", "compose.yaml")
    assert "qwen answers" in back.stderr
    assert (here / ".env").read_bytes() == before
    now = services(here, engine)
    assert now.qwen.attrs["Config"]["Cmd"] == old.qwen.attrs["Config"]["Cmd"]
    assert answers(now.qwen)

    done = apply(here)
    assert done.returncode == 0, done.stderr
    assert "SEQS=16" in (here / ".env").read_text()
    verified = tuner(here, "profile", "verify", "compose.yaml", "--json")
    found = json.loads(verified.stdout)
    assert (verified.returncode, found["holds"]) == (0, True), verified.stderr
    assert [one["what"] for one in found["changed"]] == ["engine version"], "the simulated study's was another one"
