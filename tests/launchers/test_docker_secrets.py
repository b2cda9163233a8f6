"""Secrets reach the container that needs them and nothing else: planted, then looked for in all that was written."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.deploying import write_compose
from tests.launchers.test_docker_study import FAST
from tuner.launchers.docker import images
from tuner.launchers.docker.options import Build

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

CACHE = "tuner-cache-secrets-test"
TOKEN, HUB, KEY, OUTSIDE = "hf_planted_0001", "hf_planted_0002", "key-planted-0003", "sk-planted-0004"
PLANTED = (TOKEN, HUB, KEY, OUTSIDE)
LEAKY = """
FROM {base}
RUN mv /usr/local/bin/vllm /usr/local/bin/vllm-real && printf '%s\\n' '#!/bin/sh' \\
    'env | while read -r line; do case "$line" in VLLM_*) echo "$line";; esac; done >> /cache/vllm/leak' \\
    'env; echo "non-default args: $(env)"; exec vllm-real "$@"' > /usr/local/bin/vllm && chmod 755 /usr/local/bin/vllm
"""
"""Does what vllm#52523 reports: its whole environment goes to the log, and what is named VLLM_ to the compile cache."""

READ_ALL = "import pathlib; print([one.read_bytes() for one in pathlib.Path('/c').rglob('*') if one.is_file()])"


@pytest.fixture
def leaky_image(engine, sim_image, tmp_path):
    (tmp_path / "Dockerfile").write_text(LEAKY.format(base=sim_image))
    image = images.build(
        engine, "tuner-test/leaky:1", Build(dockerfile=str(tmp_path / "Dockerfile")), lambda text: None
    )
    yield "tuner-test/leaky:1"
    engine.images.remove(image.id, force=True)


class Onlooker(threading.Thread):
    """Sees what anybody on this host can see while a study runs: process lists, and what its containers are given."""

    def __init__(self, engine):
        super().__init__(daemon=True)
        self.engine = engine
        self.lines = set()
        self.given = {}
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            self.lines |= {" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])}
            for one in self.engine.containers.list(filters={"label": "tuner.study=s"}, ignore_removed=True):
                self.given[one.id] = (one.attrs["Config"], one.labels)
            time.sleep(0.2)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join()


def tuner(folder, *arguments):
    env = {**os.environ, "OPENAI_API_KEY": OUTSIDE}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def holding(folder):
    """The files under a folder that hold a planted secret."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".env" and any(secret.encode() in path.read_bytes() for secret in PLANTED)
    ]


def test_planted_secrets_are_found_nowhere(engine, base_image, leaky_image, tmp_path, state_dir):
    """Study, records, logs, reports, profile, compose, messages, process lists, cache volume and SQLite."""
    (tmp_path / ".env").write_text(
        f"HF_TOKEN={TOKEN}\nHUGGING_FACE_HUB_TOKEN={HUB}\nVLLM_API_KEY_GLM={KEY}\nVLLM_API_KEY={KEY}\n"
    )
    study = [
        *FAST,
        f"launcher.image={leaky_image}",
        "engine.executable=[vllm,serve]",
        "launcher.caches={study-test: null, secrets-test: /cache/vllm}",
        "secrets.trial=[HF_TOKEN]",
        "secrets.deployment={VLLM_API_KEY: VLLM_API_KEY_GLM}",
        "engine.launch_args.sim_fault='crash-at=graphs@max_num_seqs=32'",
        "model.known_good=[{max_num_seqs: 32}]",
        "budget.trials=2",
        "study.retries=0",
        f"study.folder={tmp_path}/studies",
    ]
    try:
        with Onlooker(engine) as seen:
            ran = tuner(tmp_path, "study", "start", *study)
        looked = [
            tuner(tmp_path, "study", *words)
            for words in (["status"], ["status", "--json"], ["report"], ["export"], ["export", "--format", "json"])
        ]
        said = "".join(done.stdout + done.stderr for done in (ran, *looked))
        log = (tmp_path / "studies/s/trials/0000/server.log").read_text()
        assert "HF_TOKEN=***" in log, "the token reached the container, which printed it"
        assert (tmp_path / "studies/s/optuna.db").exists()
        assert write_compose(tmp_path / "studies/s").exists()
        assert holding(tmp_path) == []
        assert [secret for secret in PLANTED if secret in said] == []
        assert not [line for line in seen.lines if any(secret in line for secret in PLANTED)]
        _given_what_they_need_and_no_more(seen.given.values())
        cached = engine.containers.run(base_image, ["python3", "-c", READ_ALL], volumes=[f"{CACHE}:/c"], remove=True)
        assert b"VLLM_" in cached, "the leak is there"
        assert not any(secret.encode() in cached for secret in PLANTED)
    finally:
        engine.volumes.get(CACHE).remove()


def _given_what_they_need_and_no_more(containers):
    assert containers
    for config, labels in containers:
        assert f"HF_TOKEN={TOKEN}" in config["Env"]
        others = f"{config['Env']} {config['Cmd']} {config['Entrypoint']} {labels}".replace(f"HF_TOKEN={TOKEN}", "")
        assert not any(secret in others for secret in PLANTED)
