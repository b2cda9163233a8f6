"""A container of this host is read as it was created, by its name or in the place of what a file does not tell."""

from pathlib import Path

import pytest

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
