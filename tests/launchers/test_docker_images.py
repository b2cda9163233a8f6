"""One image for the whole study: pulled with progress, built, found again, or honestly missing."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
from typing import ClassVar

import docker
import pytest

from tests.present import present
from tuner.errors import ConfigError, ImageMissing
from tuner.launchers.docker import images
from tuner.launchers.docker.daemon import PullFailed
from tuner.launchers.docker.options import Build, DockerLauncherConfig

pytestmark = pytest.mark.docker


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as a pull needs: it gives what it was told to hold."""

    blobs: ClassVar[dict[str, bytes]]
    tags: ClassVar[dict[str, str]]
    url: ClassVar[str]

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        digest = self.tags.get(name, name)
        found = b"" if self.path == "/v2/" else self.blobs.get(digest)
        self.send_response(404 if found is None else 200)
        if found is None:
            found = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()
        self.send_header("Content-Length", str(len(found)))
        self.send_header("Docker-Content-Digest", digest)
        kind = (
            "application/vnd.docker.distribution.manifest.v2+json"
            if "manifests" in self.path
            else "application/octet-stream"
        )
        self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(found)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def registry():
    class Held(Registry):
        blobs: ClassVar = {}
        tags: ClassVar = {}

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Held)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Held.url = f"127.0.0.1:{server.server_port}"
    yield Held
    server.shutdown()
    server.server_close()
    thread.join()


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def push(registry, tag, content):
    """Put an image with one file under a tag; returns its id."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tarfile.TarInfo("content")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    data = layer.getvalue()
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest_of(data)]}}
    )
    described = [
        {"mediaType": f"application/vnd.docker.{kind}", "size": len(blob), "digest": digest_of(blob)}
        for kind, blob in (("container.image.v1+json", config.encode()), ("image.rootfs.diff.tar", data))
    ]
    head = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    manifest = json.dumps(head | {"config": described[0], "layers": described[1:]}).encode()
    registry.blobs.update({digest_of(blob): blob for blob in (config.encode(), data, manifest)})
    registry.tags[tag] = digest_of(manifest)
    return digest_of(config.encode())


@pytest.fixture
def engine():
    client = docker.from_env()
    before = {image.id for image in client.images.list()}
    yield client
    for image in client.images.list():
        if image.id not in before:
            client.images.remove(present(image.id), force=True)
    client.close()


def wanted(image, **more):
    return DockerLauncherConfig(kind="docker", image=image, hf_home=None, **more)


def unheard(text):
    pass


def test_a_missing_image_is_pulled_with_progress(engine, registry):
    pushed = push(registry, "1", b"x" * 300_000)
    said: list[str] = []
    image = images.resolve(engine, wanted(f"{registry.url}/vllm:1"), None, said.append)
    assert image.id == pushed
    assert image.digests == (f"{registry.url}/vllm@{registry.tags['1']}",)
    assert said[0].startswith(f"pulling {registry.url}/vllm:1: ")


def test_an_image_that_is_here_is_not_pulled_again_unless_asked(engine, registry):
    first = push(registry, "nightly", b"first")
    reference = f"{registry.url}/vllm:nightly"
    assert images.resolve(engine, wanted(reference), None, unheard).id == first
    second = push(registry, "nightly", b"second")
    assert images.resolve(engine, wanted(reference), None, unheard).id == first
    assert images.resolve(engine, wanted(reference, pull="always"), None, unheard).id == second


def test_a_study_stays_with_its_image_wherever_the_tag_moves(engine, registry):
    push(registry, "nightly", b"old")
    always = wanted(f"{registry.url}/vllm:nightly", pull="always")
    known = images.resolve(engine, always, None, unheard)
    moved = push(registry, "nightly", b"new")
    assert images.resolve(engine, always, None, unheard).id == moved
    assert images.resolve(engine, always, known, unheard) == known
    engine.images.remove(known.id, force=True)
    assert images.resolve(engine, always, known, unheard) == known, "the very same one, by its digest"
    assert engine.images.get(known.id)


def test_a_study_whose_image_is_gone_for_good_says_so(engine, registry):
    push(registry, "1", b"gone")
    known = images.resolve(engine, wanted(f"{registry.url}/vllm:1"), None, unheard)
    engine.images.remove(known.id, force=True)
    lost = known.model_copy(update={"digests": ()})
    with pytest.raises(ImageMissing, match=r"(?s)earlier trials.*another study\.name"):
        images.resolve(engine, wanted(known.reference), lost, unheard)


def test_a_wrong_name_is_told_from_a_registry_that_does_not_answer(engine, registry):
    with pytest.raises(PullFailed, match=r"(?s)there is no image.*docker login"):
        images.resolve(engine, wanted(f"{registry.url}/vllm:no-such-tag"), None, unheard)
    with pytest.raises(PullFailed, match=r"(?s)could not be pulled.*check the network"):
        images.resolve(engine, wanted("127.0.0.1:1/vllm:1"), None, unheard)
    with pytest.raises(ImageMissing, match=r"launcher\.pull=missing"):
        images.resolve(engine, wanted("not-here:1", pull="never"), None, unheard)


def test_an_image_is_built_with_progress_and_labelled(engine, base_image, tmp_path):
    (tmp_path / "My.Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo made > /made\n")
    said: list[str] = []
    build = Build(dockerfile=str(tmp_path / "My.Dockerfile"), args={"BASE": base_image})
    image = images.resolve(engine, wanted("tuner-test/built:1", build=build), None, said.append)
    assert any("Step 2/" in line for line in said)
    assert "tuner-test/built:1" in images.built(engine)
    assert engine.images.get(image.id).labels[images.BUILT] == build.dockerfile
    assert images.resolve(engine, wanted("tuner-test/built:1", build=build), None, unheard).id == image.id


def test_a_build_that_fails_ends_in_its_own_last_lines(engine, base_image, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo half way; exit 3\n")
    with pytest.raises(ImageMissing, match=r"(?s)half way.*non-zero code: 3.*correct the Dockerfile"):
        images.resolve(engine, wanted("x", build=Build(dockerfile=str(tmp_path / "Dockerfile"))), None, unheard)
    with pytest.raises(ConfigError, match=r"(?s)launcher\.build\.dockerfile.*glm-flash, sim"):
        images.resolve(engine, wanted("x", build=Build(dockerfile="no-such")), None, unheard)
