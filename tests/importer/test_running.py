"""A container of this host is read as it was created, by its name or in the place of what a file does not tell."""

import io
from pathlib import Path

import pytest

from tests.study.test_study import run
from tuner import composing
from tuner.importer import sources

pytestmark = pytest.mark.docker
SERVICE = "tuner-test-import"
COMPOSE = f"""
services:
  {SERVICE}:
    image: registry.example/vllm-serve:5
    environment: [KEPT=1]
"""


@pytest.fixture
def container(engine, base_image):
    made = engine.containers.create(
        base_image,
        ["vllm", "serve", "org/model", "-tp", "2", "--api-key", "k-0123456789"],
        name=f"{SERVICE}-1",
        environment={"KEPT": "1", "HF_TOKEN": "hf_notarealtoken0123456789"},
        labels={"com.docker.compose.service": SERVICE},
        ports={"8000/tcp": ("127.0.0.1", 5009)},
    )
    yield made
    made.remove(force=True)


def test_a_container_is_read_by_its_name(container):
    found = sources.read([Path(container.name)]).understood
    assert found.argv == ("org/model", "--tensor-parallel-size", "2")
    assert (found.service, found.env, found.host_port) == (SERVICE, {"KEPT": "1", "HF_TOKEN": None}, 5009)


def test_a_command_that_a_file_does_not_tell_is_read_off_the_container(container, tmp_path):
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    found = sources.read([tmp_path / "compose.yaml"]).understood
    assert found.argv == ("org/model", "--tensor-parallel-size", "2")
    assert f"the command line is read off the running container {SERVICE}" in found.unread


DEPLOYED = """
services:
  tuner-test-deployed:
    image: {image}
    command: --model QuantTrio/GLM-4.7-Flash-AWQ -tp 2 --max-model-len 32K --max-num-seqs 16
    environment: [OMP_NUM_THREADS=4, VLLM_API_KEY=k-0123456789abcdef]
    ports: ["127.0.0.1:5002:8000"]
    group_add: ["44"]
    ulimits: {{nofile: 4096}}
    shm_size: 1g
    labels: [traefik.enable=true]
"""
MEASURED = (
    *("space=none", "workload=tiny", "hardware.gpus=[]", "launcher.hf_home=null", "study.preflight=false"),
    *("engine.version=0.15.0", "engine.clock_scale=15", "workload.min_duration_s=0"),
    "engine.launch_args={sim_clock_startup: 200, sim_clock_serving: 15}",
)


@pytest.fixture
def serving_image(engine, sim_image):
    """The simulated engine behind the entrypoint of vLLM's own image."""
    lines = (f"FROM {sim_image}", "USER root", "RUN printf '#!/bin/sh\\nexec python3 -m tuner.sim \"$@\"' > /bin/vllm")
    text = "\n".join([*lines, "RUN chmod +x /bin/vllm", 'ENTRYPOINT ["vllm", "serve"]'])
    image, _ = engine.images.build(fileobj=io.BytesIO(text.encode()), tag="tuner-test/vllm-openai:v0.15.0", rm=True)
    yield "tuner-test/vllm-openai:v0.15.0"
    engine.images.remove(image.id, force=True)


def test_a_compose_file_is_measured_as_trial_0(serving_image, tmp_path):
    (tmp_path / "compose.yaml").write_text(DEPLOYED.format(image=serving_image))
    asked = composing.load([f"deployment={tmp_path}/compose.yaml", f"study.folder={tmp_path}/studies", *MEASURED])
    outcome, _ = run(asked)
    (record,) = outcome.searched
    assert record.measurement
    assert record.argv[:7] == (
        "vllm",
        "serve",
        asked.model.id,
        "--tensor-parallel-size",
        "2",
        "--max-model-len",
        "32768",
    )
    assert "VLLM_API_KEY" not in record.env
