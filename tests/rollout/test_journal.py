"""What is kept of a rollout: exact copies, one rollout at a time, and no file of the user's lost."""

import os
import stat
import subprocess
import sys

import pytest

from tuner.errors import ConfigError, InfrastructureError
from tuner.host.owner import Owner
from tuner.importer.container import Container, Mount
from tuner.rollout import saved
from tuner.rollout.deploying import is_mounted
from tuner.rollout.journal import Journal, Ran, RolloutFolder, Step, places_of
from tuner.rollout.project import ComposeProject

RAN = Ran(id="1", name="d-qwen-1", image="vllm/vllm-openai:v0.15.0", image_id="sha256:1", answered=True)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "compose.yaml").write_bytes(b"services:\r\n  qwen: {}\r\n")
    (tmp_path / "d" / ".env").write_text("VLLM_API_KEY=k-0123456789abcdef\n")
    return ComposeProject(name="d", directory=tmp_path / "d", files=(tmp_path / "d" / "compose.yaml",), service="qwen")


def begun(project, contents):
    place = RolloutFolder.of(project)
    place.make()
    backup = saved.save(place, project, RAN, contents, "trial 3 of study s")
    place.write(Journal(owner=str(Owner.me()), step=Step.WRITING, backup=backup))
    return place, backup


def test_files_are_put_back_byte_for_byte(project):
    file = project.files[0]
    old = file.read_bytes()
    place, backup = begun(project, {file: b"new"})
    file.write_bytes(b"new")
    saved.put_back(place, backup, pytest.fail)
    assert file.read_bytes() == old


def test_what_somebody_else_wrote_meanwhile_is_kept_next_to_it(project):
    file, said = project.files[0], list[str]()
    old = file.read_bytes()
    place, backup = begun(project, {file: b"new"})
    file.write_bytes(b"theirs")
    saved.put_back(place, backup, said.append)
    assert file.read_bytes() == old
    assert (file.parent / "compose.yaml.bak").read_bytes() == b"theirs"
    assert "was changed in the meantime" in said[0]


def test_keys_that_stay_are_not_copied_and_copies_are_for_their_owner_alone(project, state_dir):
    begun(project, {project.files[0]: b"new"})
    kept = [path for path in state_dir.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"k-0123456789abcdef" in path.read_bytes()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    env = project.directory / ".env"
    place, backup = begun(project, {env: b"VLLM_API_KEY=k-0123456789abcdef\nMAX=1\n"})
    assert saved.contents(place, backup)[env] == env.read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.folder(2).iterdir()} == {0o600}


def test_a_rollout_that_is_not_over_is_no_backup_yet(project):
    place, backup = begun(project, {})
    assert place.backups() == []
    place.close()
    assert place.backups() == [backup]
    assert [one.path for one in places_of(project.files[0], "qwen")] == [place.path]
    assert places_of(project.files[0], "other") == []


def test_one_command_at_a_time(project):
    place = RolloutFolder.of(project)
    with place.alone():
        program = "import sys; from pathlib import Path; from tuner.rollout.journal import RolloutFolder\n"
        program += "with RolloutFolder(Path(sys.argv[1])).alone(): pass"
        done = subprocess.run(
            [sys.executable, "-c", program, str(place.path)], capture_output=True, text=True, check=False
        )
        with pytest.raises(InfrastructureError, match=f"process {os.getpid()} is at this service"), place.alone():
            pass
    assert f"process {os.getpid()} is at this service" in done.stderr
    with place.alone():
        pass


def test_of_a_file_that_the_container_sees_compose_is_told_to_make_it_anew(project, tmp_path, monkeypatch):
    """Compose compares what the files say, and not what stands in a settings file that is mounted."""
    file = project.directory / "config.yml"
    seen = Container(
        "qwen", mounts=(Mount(str(file), "/etc/vllm.yml", read_only=True), Mount("hub", "/hub", volume="x"))
    )
    assert is_mounted(seen, [file])
    assert not is_mounted(seen, [project.directory / ".env"])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    place = RolloutFolder.of(project)
    with place.alone() as lock:
        project.up(lock)
        project.up(lock, anew=True)
    usual, anew = (tmp_path / "said").read_text().splitlines()
    assert usual.endswith("up -d --no-deps --no-build --pull never qwen")
    assert anew.endswith("up -d --force-recreate --no-deps --no-build --pull never qwen")


def test_a_damaged_journal_says_where_the_files_are(project):
    place, _ = begun(project, {})
    place.under_way.write_text("{")
    with pytest.raises(ConfigError, match="the saved files are in"):
        place.journal()
