"""The model lies in the host's cache before trial 0; nothing is downloaded twice, and no token stays behind."""

import json
import os
import re
from pathlib import Path

import docker
import pytest

from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.image import StudyImage
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.models import ModelMissing, is_cached, is_repository
from tuner.launchers.docker.options import HUB_FOLDER, DockerLauncherConfig
from tuner.launchers.docker.prepare import ensure_model, launcher_for
from tuner.secrets import Secrets
from tuner.testing.launcher import until

VLLM = os.environ.get("TUNER_TEST_VLLM")
TOKEN = "hf_planted_token_0123456789"

HUB = """
import hashlib, http.server, json
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "pytorch_model.bin": b"the same again"}
SHA = "a" * 40
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        print(self.command, self.path, flush=True)
        if self.headers.get("Authorization") != "Bearer %s":
            return self.reply(401, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/org/model/tree/"):
            listed = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in FILES.items()]
            return self.reply(200, json.dumps(listed).encode())
        if path.startswith("/api/models/org/model"):
            siblings = [{"rfilename": name} for name in FILES]
            return self.reply(200, json.dumps({"id": "org/model", "sha": SHA, "siblings": siblings}).encode())
        data = FILES.get(path.rsplit("/", 1)[-1])
        if data is None or not path.startswith("/org/model/"):
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        etag = hashlib.sha1(data).hexdigest()
        self.reply(200, data, {"ETag": '"' + etag + '"', "X-Repo-Commit": SHA})
    do_HEAD = do_GET
    def reply(self, status, data, headers={}):
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(data)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def snapshot(hub, files, commit="abc"):
    folder = hub / "models--org--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for name, text in files.items():
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("name", ["zai-org/GLM-4.7-Flash", "a/b", "org/model_1.2"])
def test_a_repository_is_told_by_its_name(name):
    assert is_repository(name)


@pytest.mark.parametrize("name", ["/models/glm-tiny", "./models", "../a/b", "a/b/c", "gpt2", "~/models/x"])
def test_a_folder_is_no_repository(name):
    assert not is_repository(name)


def test_a_model_is_cached_when_all_its_shards_are(tmp_path):
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    files = {"config.json": "{}", "model.safetensors.index.json": index, "one.safetensors": "1"}
    folder = snapshot(tmp_path, files)
    assert not is_cached(tmp_path, "org/model")
    (folder / "two.safetensors").symlink_to(tmp_path / "blob")
    assert not is_cached(tmp_path, "org/model"), "a link to a blob that is still being downloaded"
    (tmp_path / "blob").write_text("2")
    assert is_cached(tmp_path, "org/model")
    assert is_cached(tmp_path, "org/model", "abc")
    assert not is_cached(tmp_path, "org/model", "other-branch")


def test_a_model_without_weights_is_not_cached(tmp_path):
    assert not is_cached(tmp_path, "org/model")
    folder = snapshot(tmp_path, {"config.json": "{}"})
    assert not is_cached(tmp_path, "org/model")
    (folder / "model.safetensors").write_text("1")
    assert is_cached(tmp_path, "org/model")


def test_a_host_without_a_cache_gets_one_since_the_engine_mounts_only_what_is_there(tmp_path):
    options = DockerLauncherConfig(kind="docker", image="x", hf_home=str(tmp_path / "hf"))
    made = launcher_for(options, StudyImage(reference="x", id="sha256:1"), {}, Secrets())
    assert made.contents.hub == str(tmp_path / "hf" / "hub")
    assert (tmp_path / "hf" / "hub").is_dir()


@pytest.fixture
def hub(base_image, tmp_path):
    """A Hugging Face Hub in a container, which wants a token."""
    options = DockerLauncherConfig(kind="docker", image="unused", hf_home=None, network="bridge")
    launcher = DockerLauncher(Contents(base_image, options, None, {}, wsl=False))
    spec = LaunchSpec("hub/0", ("python3", "-c", HUB.replace("%s", TOKEN)), tmp_path / "hub.log", stop_grace_s=1)
    with launcher.launch(spec) as server:
        client = docker.from_env()
        (container,) = client.containers.list(filters={"label": "tuner.study=hub"})
        until(lambda: _listens(server))
        yield {"HF_ENDPOINT": f"http://{container.attrs['NetworkSettings']['IPAddress']}:8000"}, tmp_path / "hub.log"
        client.close()


def _listens(server):
    import httpx

    try:
        return httpx.get(server.url, timeout=1).status_code == 401
    except httpx.HTTPError:
        return False


@pytest.fixture
def launcher(base_image, tmp_path):
    """Launches containers that have huggingface_hub and see the cache."""
    site = Path(str(VLLM)) / "venv/lib/python3.11/site-packages"
    options = DockerLauncherConfig(
        kind="docker",
        image="unused",
        hf_home=str(tmp_path / "hf"),
        mounts=(f"{site}:/opt/site:ro",),
        network="bridge",  # where the hub is
    )
    env = {"PYTHONPATH": "/opt/site", "HOME": "/root", "HF_HUB_DISABLE_XET": "1"}
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    return DockerLauncher(Contents(base_image, options, str(tmp_path / "hf" / "hub"), env, wsl=False), (TOKEN,))


needs_hub = pytest.mark.skipif(not VLLM, reason="needs huggingface_hub: TUNER_TEST_VLLM=DIR (see test_real_vllm.py)")


@pytest.mark.docker
@needs_hub
def test_a_model_is_downloaded_once_before_trial_0_with_progress(launcher, hub, tmp_path):
    endpoint, log = hub
    said: list[str] = []
    (tmp_path / "hf" / "token").write_text("the token of the user of this host")
    ensure_model(launcher, "org/model", None, {**endpoint, "HF_TOKEN": TOKEN}, said.append)
    assert is_cached(tmp_path / "hf" / "hub", "org/model")
    assert said[0] == "downloading org/model"
    assert any("100%" in line for line in said)
    assert "pytorch_model.bin" not in log.read_text().split("tree")[-1], "the same weights twice"
    asked = len(log.read_text().splitlines())
    ensure_model(launcher, "org/model", None, {**endpoint, "HF_TOKEN": TOKEN}, said.append)
    assert len(log.read_text().splitlines()) == asked
    inside = launcher.run(
        "look", ("python3", "-c", f"import os; print(os.listdir('{HUB_FOLDER}/..'), dict(os.environ))")
    )
    assert "'token'" not in inside.lines[0]
    assert TOKEN not in inside.lines[0]
    planted = [
        path for path in (tmp_path / "hf").rglob("*") if path.is_file() and TOKEN in path.read_text(errors="ignore")
    ]
    assert planted == []


@pytest.mark.docker
@needs_hub
def test_a_model_that_cannot_be_had_says_why_and_never_the_token(launcher, hub):
    endpoint, _ = hub
    for name, env in (("org/model", {}), ("org/no-such", {"HF_TOKEN": TOKEN})):
        with pytest.raises(ModelMissing, match=r"(?s)cannot be downloaded.*a token in \.env") as refused:
            ensure_model(launcher, name, None, {**endpoint, **env}, lambda text: None)
        assert TOKEN not in str(refused.value)
        assert re.search(r"GatedRepo|RepositoryNotFound", refused.value.message)
