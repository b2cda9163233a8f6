"""tuner's own images: what they change of their base, they check."""

import os
import runpy
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.models.images import Image

from tuner.catalog import dockerfiles_dir
from tuner.errors import ImageMissing
from tuner.launchers.docker import images
from tuner.launchers.docker.options import Build

PATCH = runpy.run_path(str(dockerfiles_dir() / "glm_flash_mla.py"), run_name="patch")
VLLM = os.environ.get("TUNER_TEST_VLLM")
ROOT = Path(__file__).parent.parent

BEFORE = """
class Convertor:
    def is_deepseek_mla(self) -> bool:
        kind = self.hf_text_config.model_type
        if kind in (
            "deepseek_v2",
            "deepseek_v3",
            "kimi_k2",
        ):
            return self.hf_text_config.kv_lora_rank is not None
        return False
"""
"""vLLM before #32614, in its essentials."""


def knows(source):
    return [PATCH["is_mla"](source, name) for name in PATCH["MODEL_TYPES"]]


def test_the_patch_makes_glm_an_mla_model_and_leaves_the_others():
    assert knows(BEFORE) == [False, False]
    patched = PATCH["patch"](BEFORE)
    assert knows(patched) == [True, True]
    assert PATCH["is_mla"](patched, "deepseek_v3")
    assert PATCH["is_mla"](patched, "kimi_k2")
    assert not PATCH["is_mla"](patched, "qwen3")


def test_a_file_without_that_list_is_left_as_it_is():
    assert PATCH["patch"]("def something_else(): pass\n") == "def something_else(): pass\n"
    assert knows("def something_else(): pass\n") == [False, False]


@pytest.mark.skipif(not VLLM, reason="needs an installed vLLM: TUNER_TEST_VLLM=DIR make test")
def test_the_vllm_that_is_installed_needs_no_patch():
    package = Path(str(VLLM)) / "venv/lib/python3.11/site-packages/vllm"
    assert knows((package / "transformers_utils/model_arch_config_convertor.py").read_text()) == [True, True]


@pytest.fixture
def glm_flash(engine, base_image, tmp_path):
    """Builds the first user's image on a vLLM of which only the part in question is there."""
    made: list[Image] = []

    def build(source, transformers="5.0.0"):
        folder = tmp_path / f"base{len(made)}"
        (folder / "vllm/transformers_utils").mkdir(parents=True)
        (folder / "vllm/model_executor/models").mkdir(parents=True)
        (folder / "vllm/__init__.py").touch()
        (folder / "vllm/model_executor/models/glm4_moe_lite.py").touch()
        (folder / "vllm/transformers_utils/model_arch_config_convertor.py").write_text(source)
        (folder / f"transformers-{transformers}.dist-info").mkdir()
        (folder / f"transformers-{transformers}.dist-info/METADATA").write_text(
            f"Name: transformers\nVersion: {transformers}\n"
        )
        (folder / "Dockerfile").write_text(f"FROM {base_image}\nENV PYTHONPATH=/opt/site\nCOPY . /opt/site\n")
        base = Build(dockerfile=str(folder / "Dockerfile"))
        made.append(images.build(engine, f"tuner-test/glm-base:{len(made)}", base, lambda text: None))
        args = {"BASE": f"tuner-test/glm-base:{len(made) - 1}"}
        made.append(images.build(engine, "tuner-test/glm:1", Build(dockerfile="glm-flash", args=args), lambda t: None))
        return made[-1]

    yield build
    for image in reversed(made):
        _remove(engine, image.id)


def _remove(engine, image_id):
    """Together with what a build that failed has left half way."""
    for child in engine.images.list(all=True):
        if child.attrs["Parent"] == image_id:
            _remove(engine, child.id)
    with suppress(docker.errors.ImageNotFound):
        engine.images.remove(image_id, force=True)


@pytest.mark.docker
def test_the_image_is_patched_only_where_its_base_still_needs_it(engine, glm_flash):
    path = "/opt/site/vllm/transformers_utils/model_arch_config_convertor.py"
    patched = glm_flash(BEFORE)
    source = engine.containers.run(patched.id, ["cat", path], entrypoint=[], remove=True).decode()
    assert knows(source) == [True, True]
    untouched = glm_flash(source)
    assert engine.containers.run(untouched.id, ["cat", path], entrypoint=[], remove=True).decode() == source


@pytest.mark.docker
def test_a_base_that_cannot_be_patched_ends_the_build_with_its_reason(glm_flash):
    with pytest.raises(ImageMissing, match="has changed its shape"):
        glm_flash("def something_else(): pass\n")


@pytest.mark.docker
def test_the_simulated_engine_is_built_by_hand_as_its_dockerfile_says(engine, base_image):
    """What .dockerignore lets through of a checkout is enough, and no network is needed."""
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command: apt-get install docker-cli")
    command = ["docker", "build", "-f", "dockerfiles/sim.Dockerfile", "-t", "tuner-test/by-hand:1"]
    subprocess.run([*command, "--build-arg", f"BASE={base_image}", "."], cwd=ROOT, check=True, capture_output=True)
    try:
        said = engine.containers.run("tuner-test/by-hand:1", ["--help"], remove=True)
    finally:
        engine.images.remove("tuner-test/by-hand:1", force=True)
    assert b"--max-num-seqs" in said
