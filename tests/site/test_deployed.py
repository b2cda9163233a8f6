"""Where the deployed service is at hand, every difference between it and trial 0 is named before anything starts."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tuner import composing
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker import services
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.premises import make_engine
from tuner.site.deployed import Claimed, compared, differences
from tuner.study.assembly import workbench
from tuner.testing.launcher import until

INSPECTED = Path(__file__).parents[1] / "data" / "docker-inspect-medium-glm.json"
KEY = "sk-medium-0123456789abcdef"
IMAGE_ENV = ["PATH=/usr/bin", "VLLM_USAGE_SOURCE=production-docker-image", "CUDA_VERSION=12.9.1"]


def study(*overrides):
    return composing.load(["experiment=glm-flash", "study.name=t", *overrides])


def claimed(*overrides):
    asked = study(*overrides)
    return Claimed.of(asked, make_engine(asked))


@pytest.fixture
def inspected():
    return json.loads(INSPECTED.read_text())


def told(attrs, *overrides):
    found = services.described(attrs, IMAGE_ENV)
    return differences(found, claimed(f"launcher.image={found.image}", *overrides))


def replaced(attrs, old, new):
    return attrs | {"Args": [new if word == old else word for word in attrs["Args"]]}


def test_a_service_that_is_what_the_study_claims_differs_in_nothing(inspected):
    assert told(inspected) == ()


def test_each_difference_is_a_sentence_with_both_values(inspected):
    inspected = replaced(replaced(inspected, "64", "256"), "--enable-expert-parallel", "--async-scheduling")
    assert told(inspected) == (
        "the service medium-glm runs --async-scheduling; model.args does not set it",
        "the service medium-glm runs --max-num-seqs 256; model.args says 64",
        "the service medium-glm does not set --enable-expert-parallel; model.args says true",
    )


def test_variables_of_the_engine_are_compared_and_those_of_the_image_are_not(inspected):
    env = inspected["Config"]["Env"]
    inspected["Config"]["Env"] = [
        *(one for one in env if not one.startswith(("OMP_", "VLLM_USE_DEEP"))),
        "OMP_NUM_THREADS=8",
        "NCCL_P2P_DISABLE=1",
    ]
    assert told(inspected) == (
        "the service medium-glm does not set VLLM_USE_DEEP_GEMM; model.env says 0",
        "the service medium-glm has OMP_NUM_THREADS=8; model.env says 4",
        "the service medium-glm has NCCL_P2P_DISABLE=1; model.env does not set it",
    )


def test_another_image_is_named(inspected):
    found = services.described(inspected, IMAGE_ENV)
    (sentence,) = differences(found, claimed("launcher.image=vllm/vllm-openai:v0.15.0"))
    assert "runs the image glm-flash:nightly; launcher.image says vllm/vllm-openai:v0.15.0" in sentence


def test_no_secret_is_in_any_sentence(inspected):
    assert KEY in str(inspected)
    inspected["Args"] += ["--api-key", KEY, "--hf-token", "hf_abcdefghijklmnopqrstu", "--extra", json.dumps({"k": KEY})]
    inspected["Config"]["Env"] += ["VLLM_SECRET_TOKEN=hush-hush-hush", "NCCL_NOTE=hush-hush-hush"]
    found = services.described(inspected, IMAGE_ENV)
    said = "\n".join(differences(found, claimed("model.env.OMP_NUM_THREADS=8")))
    assert "--extra.k ***" in said
    assert "NCCL_NOTE=***" in said
    for secret in (KEY, "hush", "hf_abc"):
        assert secret not in said + repr(found)


def test_a_service_of_another_model_or_of_none_is_said_not_to_be_compared(inspected):
    (sentence,) = told(replaced(inspected, "QuantTrio/GLM-4.7-Flash-AWQ", "Qwen/Qwen3-8B"))
    assert "serves Qwen/Qwen3-8B; model.id says QuantTrio/GLM-4.7-Flash-AWQ" in sentence
    (sentence,) = told(inspected | {"Path": "nginx", "Args": []})
    assert "cannot be compared" in sentence


def test_a_configuration_file_of_the_servers_is_said_not_to_be_compared(inspected):
    inspected["Args"] += ["--config", "/etc/vllm.yaml"]
    assert told(inspected) == ("the service medium-glm reads --config /etc/vllm.yaml, whose settings are not compared",)


SIMULATED = "--sim-clock-startup 1000 --sim-hardware rtx4090 --sim-gpus 2 --sim-version 0.15"
FLAGS = (
    "--tensor-parallel-size 2 --enable-expert-parallel --gpu-memory-utilization 0.92 --max-model-len 32768 "
    "--max-num-batched-tokens 32768 --max-num-seqs 32 --dtype half"
)


@pytest.fixture
def running(tmp_path):
    """A simulated server that somebody else has started; call it with its flags and variables."""
    with ExitStack() as stack:

        def start(flags, **env):
            serve = (sys.executable, "-m", "tuner.sim", "serve", "QuantTrio/GLM-4.7-Flash-AWQ", *flags.split())
            argv = (*serve, *FLAGS.split(), *SIMULATED.split(), "--host", "{host}", "--port", "{port}")
            server = stack.enter_context(ProcessLauncher().launch(LaunchSpec("t/0", argv, tmp_path / "log", env)))
            until(lambda: answers(server.url), 60)
            return server.url

        yield start


def answers(url):
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False


def attached(url, *overrides):
    asked = study("launcher=attach", f"launcher.url='{url}'", "space=none", *overrides)
    return compared(asked, make_engine(asked))


def test_a_server_that_is_attached_to_is_compared_by_what_it_says_of_itself(running):
    url = running("--served-model-name glm-4.7-flash", VLLM_SERVER_DEV_MODE="1")
    said = attached(url)
    assert f"the server at {url} runs max_model_len 32768; model.args says 131072" in said
    assert f"the server at {url} runs max_num_seqs 32; model.args says 64" in said


def test_what_an_attached_server_does_not_tell_is_named_and_no_secret_is(running, tmp_path):
    (tmp_path / ".env").write_text("GLM_TOKEN=hush-hush\n")
    url = running("--served-model-name other-hush-hush")
    said = attached(url, f"secrets.file={tmp_path}/.env")
    assert f"the server at {url} serves other-***, not glm-4.7-flash" in said
    assert "is not compared in" in said[-1]
    assert "max_num_seqs" in said[-1]


def test_a_server_that_does_not_answer_is_said_not_to_be_compared():
    (sentence,) = attached("http://127.0.0.1:9")
    assert "cannot be compared with trial 0: http://127.0.0.1:9/v1/models does not answer" in sentence


@pytest.fixture
def container(engine, base_image):
    """A service as somebody deployed it; it is created and need not run to be compared."""
    asked = study()
    argv = make_engine(asked).command({**asked.model.args, "max_num_seqs": 256}, {}, None).argv
    made = engine.containers.create(
        base_image,
        entrypoint=["vllm", "serve"],
        command=list(argv[2:]),
        name="tuner-test-glm",
        environment={**asked.model.env, "VLLM_API_KEY": KEY},
        labels={"com.docker.compose.service": "medium-glm"},
    )
    yield made
    made.remove(force=True)


@pytest.mark.docker
def test_a_real_container_is_compared_and_dry_run_says_it(container, base_image):
    asked = study("site.stop=[medium-glm]", f"launcher.image={base_image}")
    sentence = "the service medium-glm runs --max-num-seqs 256; model.args says 64"
    assert compared(asked, make_engine(asked)) == (sentence,)
    overrides = ["experiment=glm-flash", "site.stop=[tuner-test-glm]", f"launcher.image={base_image}", "study.name=t"]
    dry = [sys.executable, "-m", "tuner", "study", "start", *overrides, "--dry-run"]
    run = subprocess.run(dry, capture_output=True, text=True, check=False)
    assert sentence in run.stdout
    assert KEY not in run.stdout + run.stderr


class Named(Exception):
    """A difference was named."""


@pytest.mark.docker
def test_differences_are_named_before_anything_is_stopped(production):
    container = production()

    def listener(event):
        if "cannot be compared with trial 0" in getattr(event, "text", ""):
            raise Named

    with pytest.raises(Named), workbench(study("site.stop=[tuner-test-production]"), listener):
        pass
    container.reload()
    assert container.attrs["State"]["Status"] == "running"


def test_without_an_engine_a_dry_run_says_that_nothing_was_compared(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    asked = study("site.stop=[medium-glm]")
    (sentence,) = compared(asked, make_engine(asked))
    assert "cannot be compared with trial 0" in sentence
