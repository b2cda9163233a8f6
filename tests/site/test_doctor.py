"""`tuner doctor` says what this machine can run and what is missing, and changes nothing."""

import json
import os
import platform
import subprocess
import sys

import pytest

from tests.host.driver import Driver
from tuner import composing
from tuner.host.check_result import CheckState
from tuner.launchers.docker import images, volumes
from tuner.launchers.docker.options import Build
from tuner.site.doctor import examine

STUDY = ["experiment=glm-flash"]


def found(*overrides):
    return {finding.name: finding for finding in examine(composing.load([*STUDY, *overrides]))}


def looked(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "tuner", "doctor", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def no_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A driver with two GPUs, the second in use."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    lines = "0, GPU-a, RTX 4090, 24564, 600\\n1, GPU-b, RTX 4090, 24564, 20480"
    apps = "GPU-b, 4242, /usr/bin/python3, 19456"
    program.write_text(f"#!/bin/sh\ncase $1 in --query-gpu*) printf '{lines}\\n';; *) echo '{apps}';; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("no_engine")
def test_a_missing_engine_matters_only_to_a_study_in_containers():
    assert found()["Docker"].state is CheckState.MISSING
    assert "start Docker" in found()["Docker"].fix
    assert found("launcher=process")["Docker"].state is CheckState.NOTE
    assert {finding.name: finding for finding in examine()}["Docker"].state is CheckState.NOTE


@pytest.mark.usefixtures("no_engine", "smi")
def test_it_says_whether_the_use_of_gpus_by_others_can_be_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert found()["GPU readings"].state is CheckState.NOTE
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert found()["GPU readings"].state is CheckState.OK


@pytest.mark.usefixtures("no_engine", "smi")
def test_gpus_are_shown_with_their_memory_and_holders():
    findings = found()
    assert findings["GPU 0"].text == "RTX 4090, 0.6 of 24.0 GiB in use"
    assert findings["GPU 0"].state is CheckState.OK
    assert "held by python3 (process 4242, 19.0 GiB)" in findings["GPU 1"].text
    assert findings["GPU 1"].state is CheckState.NOTE
    assert found("hardware.gpus=[7]")["GPU 7"].state is CheckState.MISSING


@pytest.mark.usefixtures("no_engine")
def test_windows_is_sent_to_wsl2(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert found()["system"].state is CheckState.MISSING
    assert "run inside WSL2" in found()["system"].text


@pytest.mark.usefixtures("no_engine")
def test_wsl2_is_recognised(monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert found()["system"].text == "WSL2, 5.15.167.4-microsoft-standard-WSL2"


@pytest.mark.usefixtures("no_engine")
def test_an_engine_program_that_is_not_installed_is_missing():
    finding = found("launcher=process", "engine.executable=[no-such-vllm,serve]")["engine"]
    assert (finding.state, finding.text) == (CheckState.MISSING, "there is no no-such-vllm")
    assert "engine.executable" in finding.fix


@pytest.mark.usefixtures("no_engine")
def test_a_parser_of_another_family_is_named():
    assert "parsers" not in found()
    finding = found("model.args.tool_call_parser=hermes")["parsers"]
    assert finding.state is CheckState.NOTE
    assert finding.text == "tool_call_parser hermes does not fit GLM-4.7: glm47 does"


def test_the_command_exits_with_1_when_a_study_lacks_something_and_with_0_when_none_is_named(tmp_path):
    nowhere = f"unix://{tmp_path}/none.sock"
    lacking = looked(*STUDY, DOCKER_HOST=nowhere)
    assert lacking.returncode == 1
    assert "missing  Docker" in lacking.stdout
    assert "→ start Docker" in lacking.stdout
    whole = looked("--json", DOCKER_HOST=nowhere)
    assert whole.returncode == 0
    names = {finding["name"] for finding in json.loads(whole.stdout)["findings"]}
    assert {"Python", "system", "Docker", "ports", "disk for studies", "disk for models", "search"} <= names


@pytest.mark.docker
def test_holders_ports_and_caches_are_named(production, engine):
    service = production()
    service.reload()
    port = service.attrs["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"]
    volumes.ensure(engine, ["doctor-test"])
    try:
        findings = found(f"model.service.port={port}")
    finally:
        engine.volumes.get("tuner-cache-doctor-test").remove()
    assert findings["Docker"].state is CheckState.OK
    assert f"held by container {service.name}" in findings["GPU 0"].text
    assert "site.stop" in findings["GPU 0"].fix
    assert f"{port} {service.name}" in findings["ports"].text
    assert findings[f"port {port}"].text == f"the deployment's; {service.name} has it now"
    assert "doctor-test 0.00 GB" in findings["caches"].text


@pytest.mark.docker
def test_the_images_own_vllm_is_asked_for_its_version(engine, base_image, tmp_path):
    folder = "/opt/site/vllm-0.20.1.dist-info"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {base_image}\nENV PYTHONPATH=/opt/site\n"
        f"RUN mkdir -p {folder} && printf 'Name: vllm\\nVersion: 0.20.1\\n' > {folder}/METADATA\n"
    )
    build = Build(dockerfile=str(tmp_path / "Dockerfile"))
    image = images.build(engine, "tuner-test/versioned:1", build, lambda text: None)
    try:
        options = ["launcher.build=null", "launcher.image=tuner-test/versioned:1"]
        assert found(*options)["image"].text == "tuner-test/versioned:1 holds vLLM 0.20.1"
        assert "no vLLM" in found("launcher.build=null", f"launcher.image={base_image}")["image"].text
        absent = found("launcher.image=tuner-test/none:1")["image"]
        assert (absent.state, absent.text) == (
            CheckState.NOTE,
            "tuner-test/none:1 is not here; it is built before trial 0",
        )
        never = found("launcher.build=null", "launcher.image=tuner-test/none:1", "launcher.pull=never")["image"]
        assert never.state is CheckState.MISSING
    finally:
        engine.images.remove(image.id, force=True)
