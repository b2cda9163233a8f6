"""The winner as a compose service: what ran in the trial, under the deployment's own name and port."""

import json
import re
import subprocess
import sys
from pathlib import Path

import docker
import httpx
import pytest
import yaml

from tests.deploying import write_compose
from tests.present import present
from tests.simulated import simulated_study
from tuner import composing
from tuner.export.compose import compose_of, compose_text
from tuner.launchers.docker.deployment import exported
from tuner.launchers.docker.image import StudyImage
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.records.record import Role
from tuner.testing.launcher import until

PROFILE = Path(__file__).parents[2] / "dockerfiles" / "medium-glm.yml"
DIGEST = "vllm/vllm-openai@sha256:" + "0" * 64


def service(*overrides, image=None):
    asked = composing.load(["experiment=glm-flash", *overrides])
    image = image or StudyImage(reference="tuner/glm-flash", id="sha256:1")
    assert isinstance(asked.launcher, DockerLauncherConfig)
    export = exported(asked.launcher, image, asked.hardware.gpus, asked.model.settings)
    text = compose_text(asked, export, asked.model.settings, "said so")
    ((name, found),) = yaml.safe_load(text)["services"].items()
    return name, found, text


def test_it_has_the_deployments_own_name_and_port():
    name, found, text = service("model.service.port=5002")
    assert (name, found["container_name"], found["ports"]) == ("medium-glm", "medium-glm", ["127.0.0.1:5002:8000"])
    assert found["restart"] == "unless-stopped"
    assert text.startswith("# medium-glm: said so\n")
    name, found, _ = service("model.service={name: null, port: 8000}", "model.args.served_model_name=my/model")
    assert (name, found["ports"]) == ("my-model", ["127.0.0.1:8000:8000"])


def test_it_names_the_very_image_that_ran_where_a_registry_has_it():
    _, found, _ = service(image=StudyImage(reference="vllm/vllm-openai:nightly", id="sha256:1", digests=(DIGEST,)))
    assert found["image"] == DIGEST


def test_what_tuner_sets_for_itself_is_left_out():
    _, found, _ = service("engine.launch_args.uvicorn_log_level=debug", "engine.launch_env.MINE=1")
    written = json.dumps(found)
    for ours in ("uvicorn", "MINE", "VLLM_SERVER_DEV_MODE", "VLLM_ENGINE_READY_TIMEOUT_S", "DO_NOT_TRACK", "{port}"):
        assert ours not in written
    assert found["command"][-4:] == ["--host", "0.0.0.0", "--port", "8000"]


def test_secrets_stand_by_their_names():
    _, found, _ = service("secrets.trial=[HF_TOKEN]")
    assert found["environment"]["VLLM_API_KEY"] == "${VLLM_API_KEY_GLM}"
    assert found["environment"]["HF_TOKEN"] == "${HF_TOKEN}"


def test_a_dollar_in_a_setting_is_no_variable():
    _, found, _ = service("model.args.chat_template='{{ $x }}'", "model.env.PRICE='$5'")
    assert "{{ $$x }}" in found["command"]
    assert found["environment"]["PRICE"] == "$$5"


@pytest.mark.parametrize(("wsl", "cuda"), [(False, "0,1"), (True, "1,2")])
def test_the_gpus_are_those_of_the_trial(wsl, cuda):
    _, found, _ = service("hardware.gpus=[2,1]", image=StudyImage(reference="x", id="sha256:1", wsl=wsl))
    (device,) = found["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["1", "2"], "capabilities": ["gpu"]}
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == cuda


def test_the_first_users_profile_is_what_its_preset_tunes():
    _, generated, _ = service()
    (checked_in,) = yaml.safe_load(PROFILE.read_text())["services"].values()
    build = checked_in.pop("build")
    assert checked_in == generated
    asked = composing.load(["experiment=glm-flash"]).launcher
    assert isinstance(asked, DockerLauncherConfig)
    assert build["dockerfile"] == f"dockerfiles/{present(asked.build).dockerfile}.Dockerfile"


def test_what_is_written_is_the_proven_winner_as_it_ran(tmp_path):
    outcome = simulated_study(tmp_path, 20, "launcher=docker-sim")
    assert compose_of(outcome) is None, "no trial of it has run in an image"
    outcome.folder.write(outcome.folder.image, StudyImage(reference="tuner/sim", id="sha256:1").model_dump_json())
    assert outcome.proven
    text = present(compose_of(outcome))
    (found,) = yaml.safe_load(text)["services"].values()
    again = next(record for record in outcome.relaunches if record.role is Role.CONFIRM_BEST)
    assert [*found["entrypoint"], *found["command"]] == _without_ours(again.argv)
    ours = ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    ran = {name: value for name, value in again.env.items() if name not in ours}
    # no launcher made this record: what it tells every container is not in it
    assert found["environment"] == {**outcome.config.launcher.environment, **ran}
    assert f"trial {outcome.best.number} of study demo" in text


def compose(*arguments, **more):
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the docker command with its compose plugin: apt-get install docker-compose-plugin")
    return subprocess.run(["docker", "compose", *arguments], capture_output=True, text=True, check=False, **more)


@pytest.mark.docker
def test_compose_accepts_the_profile(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY_GLM", "from-the-environment")
    done = compose("-f", str(PROFILE), "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    (read,) = json.loads(done.stdout)["services"].values()
    assert read["environment"]["VLLM_API_KEY"] == "from-the-environment"
    assert Path(read["build"]["context"], read["build"]["dockerfile"]).exists()


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_studys_compose_file_says_what_ran_and_serves_it(sim_image, tmp_path):
    """From a real trial's record: compose's own reading of the file against the command line that the container had."""
    (tmp_path / ".env").write_text("VLLM_API_KEY_DEMO=a-secret-of-the-deployment\n")
    study = ["experiment=demo-docker", f"launcher.image={sim_image}", "launcher.build=null", "workload=quick"]
    study += ["study.name=c", "budget.trials=1", "study.confirm=0", "model.service={name: tuner-test-up, port: 18555}"]
    study += [
        f"study.folder={tmp_path}",
        "secrets.deployment={VLLM_API_KEY: VLLM_API_KEY_DEMO}",
        "objective.limits=null",
    ]
    study += ["launcher.caches={vllm-sim: null, compose-test: /cache/vllm}"]
    # the clock is the deployment's here, so that it starts as fast; pre-flight knows vLLM's own flags only
    study += ["study.preflight=false"]
    study += ["~engine.launch_args.sim_clock_startup", "model.args.sim_clock_startup=100"]
    subprocess.run(
        [sys.executable, "-m", "tuner", "study", "start", *study], check=True, cwd=tmp_path, capture_output=True
    )
    path, record = write_compose(tmp_path / "c"), json.loads((tmp_path / "c/trials/0000/record.json").read_text())
    assert "a-secret-of-the-deployment" not in path.read_text()
    read = compose("-f", str(path), "--env-file", str(tmp_path / ".env"), "config", "--format", "json")
    (found,) = json.loads(read.stdout)["services"].values()
    words = [*found["entrypoint"], *found["command"]]
    assert words == _without_ours(record["argv"])
    extra = {"VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "VLLM_SERVER_DEV_MODE", "VLLM_ENGINE_READY_TIMEOUT_S"}
    ran = {name: value for name, value in record["env"].items() if name not in extra}
    assert found["environment"] == {**ran, "VLLM_API_KEY": "a-secret-of-the-deployment"}
    _serves(path, tmp_path / ".env")


def _without_ours(argv):
    """A trial's command line without the launch's own name, the simulator's options, and with the port filled in."""
    text = " ".join(argv).replace("{host}", "0.0.0.0").replace("{port}", "8000")
    ours = r" --sim-(?:version|hardware|gpus|seed|launch-id|compile-cache|clock-serving) \S+| tuner-[0-9a-f]{12}"
    return re.sub(ours, "", text).split(" ")


def _serves(path, env_file):
    try:
        up = compose("-f", str(path), "--env-file", str(env_file), "up", "-d", "--wait")
        assert up.returncode == 0, up.stderr
        until(lambda: httpx.get("http://127.0.0.1:18555/health").status_code == 200, 60)
        body = {"model": "glm-4.7-flash", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        url = "http://127.0.0.1:18555/v1/chat/completions"
        assert httpx.post(url, json=body, timeout=60).status_code == 401, "the deployment's key is asked for"
        headers = {"Authorization": "Bearer a-secret-of-the-deployment"}
        reply = httpx.post(url, json=body, headers=headers, timeout=60)
        assert reply.json()["usage"]["completion_tokens"] == 4
    finally:
        compose("-f", str(path), "down", "--volumes")
        client = docker.from_env()
        assert not client.containers.list(all=True, filters={"name": "tuner-test-up"})
        client.close()
