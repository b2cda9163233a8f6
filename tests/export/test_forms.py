"""A winner in each form that it can be written in, read back by the importer: nothing is lost, and no secret told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.present import present
from tests.simulated import simulated_study
from tuner.cli import app
from tuner.engines.registry import ENGINES
from tuner.export import anew
from tuner.export.anew import Form
from tuner.export.inplace.splice import leaves
from tuner.export.inplace.winner import winner_of
from tuner.export.origin import ProfileImage, ProfileMachine, ProfileService
from tuner.export.profile import profile_of
from tuner.importer import sources
from tuner.importer.baseline import served
from tuner.importer.understood import on_host
from tuner.launchers.docker.image import StudyImage
from tuner.records.folder import StudyFolder

ROOT = Path(__file__).parents[2]
DIGEST = "vllm/vllm-openai@sha256:" + "0" * 64
WINNERS = {
    "plain": ({"max_num_seqs": 64, "gpu_memory_utilization": 0.92, "dtype": "half"}, {}),
    "json": (
        {"compilation_config": {"cudagraph_mode": "FULL", "compile_sizes": [1, 2]}, "hf_overrides": {"a": {"b": None}}},
        {"OMP_NUM_THREADS": "4"},
    ),
    "booleans": ({"enable_prefix_caching": False, "async_scheduling": True, "enforce_eager": False}, {"A": "0"}),
    "several": ({"served_model_name": ["a", "b c"], "cudagraph_capture_sizes": [1, 2, 4]}, {}),
    "awkward": (
        {"chat_template": "{{ $x }} it's $(HOME) `y`", "limit_mm_per_prompt": {"image": 2}, "max_model_len": 131072},
        {"PRICE": "$5", "SAID": "a 'b' \"c\" $(D)", "EMPTY": "", "YES": "yes"},
    ),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A study in containers, whose deployment has a secret."""
    folder = tmp_path_factory.mktemp("studies")
    own = ("launcher=docker-sim", "engine.executable=[vllm,serve]", "secrets.deployment={VLLM_API_KEY: KEY_GLM}")
    found = simulated_study(folder, 10, *own)
    found.folder.write(found.folder.image, StudyImage(reference="tuner/sim", id="sha256:1").model_dump_json())
    return found


@pytest.fixture(params=WINNERS)
def profile(request, outcome):
    """A profile with these flags and variables."""
    args, env = WINNERS[request.param]
    own = {
        "args": args,
        "env": env,
        "image": ProfileImage(reference="vllm/vllm-openai:nightly", id="sha256:1", digest=DIGEST),
        "machine": ProfileMachine(name="two", indices=(2, 3)),
        "service": ProfileService(name="My_GLM", port=5002, secrets={"VLLM_API_KEY": "KEY_GLM"}),
    }
    return present(profile_of(outcome)).model_copy(update=own)


@pytest.fixture(params=[Form.SERVE, Form.CONFIG, Form.KUBERNETES])
def written(request, profile, tmp_path):
    """The first file of a form."""
    made = anew.texts(request.param, profile, tmp_path)
    path = tmp_path / "new" if len(made) > 1 else tmp_path / next(iter(made))
    return request.param, anew.save(made, path)[0]


def test_what_is_read_back_is_the_winner(profile, written):
    form, path = written
    found = sources.read([path], None, {"KEY_GLM": "k-0123456789"})
    target = winner_of(profile)
    assert served(found).model == profile.model
    assert leaves(served(found).args) == meant(target)
    assert served(found).env == profile.env
    assert [secret.name for secret in found.understood.secrets] == ["VLLM_API_KEY"]
    assert found.understood.gpus == (2 if form is Form.KUBERNETES else [2, 3])
    assert "k-0123456789" not in path.read_text()


def meant(target):
    return leaves(ENGINES["vllm"].conventions.settings(target.flags))


def test_a_pod_runs_the_very_image_and_gets_the_secret_by_its_name(profile, tmp_path):
    deployment, service = yaml.safe_load_all(anew.texts(Form.KUBERNETES, profile, tmp_path)["deployment.yaml"])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == DIGEST
    assert container["env"][-1]["valueFrom"] == {"secretKeyRef": {"name": "my-glm", "key": "KEY_GLM"}}
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert deployment["metadata"]["name"] == service["metadata"]["name"] == "my-glm"
    assert service["spec"]["ports"] == [{"port": 5002, "targetPort": 8000}]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_a_pod_sees_the_winners_tuned_kernels(outcome, tmp_path):
    env = {"VLLM_TUNED_CONFIG_FOLDER": "/srv/kernels"}
    profile = present(profile_of(outcome)).model_copy(update={"env": env, "kernels": "/srv/kernels"})
    (path,) = anew.save(anew.texts(Form.KUBERNETES, profile, tmp_path), tmp_path / "k.yaml")
    found = sources.read([path], None, {})
    assert on_host("/srv/kernels", found.container.mounts) == Path("/srv/kernels")
    assert served(found).env == env
    assert "hostPath" not in anew.texts(Form.KUBERNETES, present(profile_of(outcome)), tmp_path)["deployment.yaml"]


def test_kubectl_takes_the_manifest(profile, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    text = anew.texts(Form.KUBERNETES, profile, tmp_path)["deployment.yaml"]
    (tmp_path / "deployment.yaml").write_text(text)
    (tmp_path / "kustomization.yaml").write_text("resources: [deployment.yaml]\n")
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_kind = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert by_kind == {each["kind"]: each for each in yaml.safe_load_all(text)}


def test_a_shell_starts_the_server_with_these_very_words(profile, tmp_path):
    """The program ``vllm`` of this test says what it was started with."""
    text = anew.texts(Form.SERVE, profile, tmp_path)["serve.sh"]
    (tmp_path / "vllm").write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    (tmp_path / "vllm").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KEY_GLM": "k-1"}
    done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=True)
    argv, given = json.loads(done.stdout)
    flags = [word for flag in winner_of(profile).flags for word in (flag.name, *flag.values)]
    assert argv == ["serve", profile.model, *flags, "--port", "5002"]
    assert {name: given[name] for name in profile.env} == profile.env
    assert (given["VLLM_API_KEY"], given["CUDA_VISIBLE_DEVICES"]) == ("k-1", "2,3")


def test_a_compose_file_is_read_back_as_the_winner(outcome, tmp_path):
    profile = present(profile_of(outcome))
    (path,) = anew.save(anew.texts(Form.COMPOSE, profile, outcome.folder.path), tmp_path / "c.yaml")
    found = sources.read([path], None, {"KEY_GLM": "k-0123456789"})
    assert leaves(served(found).args) == meant(winner_of(profile))
    assert profile.env.items() <= served(found).env.items()
    assert "VLLM_API_KEY" in [secret.name for secret in found.understood.secrets]


def write(*words):
    return CliRunner().invoke(app, ["profile", "write", *words])


def test_a_new_file_is_written_once(outcome, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.yaml").write_text(outcome.config.to_yaml())
    StudyFolder(tmp_path / "s").write(tmp_path / "s" / "profile.yaml", present(profile_of(outcome)).to_yaml())
    words = ("--folder", str(tmp_path), "--as", "config", "-o", str(tmp_path / "new"))
    assert write(*words).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.yml", "env.sh"]
    assert "is there already" in str(write(*words).exception)
    printed = write("--folder", str(tmp_path), "--as", "serve")
    assert printed.output.startswith("#!/bin/sh\n# trial")


def test_a_form_that_there_is_not_is_named(outcome, tmp_path):
    (tmp_path / "profile.yaml").write_text(present(profile_of(outcome)).to_yaml())
    own = ("--profile", str(tmp_path / "profile.yaml"))
    assert "there is no form 'helm'" in str(write(*own, "--as", "helm").exception)
    assert "which file?" in str(write(*own).exception)
