"""A winner is written into a deployment's own files: what changes is what the study changed, and nothing else.

Each folder of ``data/writeback`` has files, the change that is asked for and the diff that it must be; some take their
files from ``data/deployments``.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.present import present
from tests.simulated import simulated_study
from tuner.errors import ConfigError
from tuner.export.inplace import nodes, saving
from tuner.export.inplace.splice import leaves
from tuner.export.inplace.view import DeploymentView
from tuner.export.inplace.winner import winner, winner_of
from tuner.export.inplace.writing import written
from tuner.export.origin import ProfileImage, ProfileMachine
from tuner.export.profile import nested, profile_of
from tuner.host.nvidia import POWER_CAP
from tuner.importer.understood import on_host

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
CASES = sorted(path.parent for path in DATA.glob("writeback/*/case.json"))


def asked(folder):
    return json.loads((folder / "case.json").read_text())


@pytest.fixture
def files(request, tmp_path):
    """A folder with a case's files that may be changed."""
    folder = request.param
    given = asked(folder)
    shutil.copytree(DATA / "deployments" / given["of"] if "of" in given else folder, tmp_path / "d")
    return folder, given, tmp_path / "d"


def viewed(given, here):
    return DeploymentView(
        (here / given["file"],), given.get("service"), {"HOME": "/home/x", **given.get("environ", {})}, {}
    )


def wanted(given, view):
    """The winner: what is served, with the changes of the case."""
    served = view.served
    args = nested({**served.args, **given["args"]})
    env = {**served.env, **given["env"]}
    target = winner("vllm", served.model, args, {name: value for name, value in env.items() if value is not None})
    return replace(target, folders=tuple(given.get("folders", ())))


def texts(here):
    return {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}


EDITED = [folder for folder in CASES if "refused" not in asked(folder)]
REFUSED = [folder for folder in CASES if "refused" in asked(folder)]


@pytest.mark.parametrize("files", EDITED, indirect=True, ids=lambda folder: folder.name)
def test_only_what_the_winner_changes_is_changed(files, monkeypatch):
    folder, given, here = files
    monkeypatch.chdir(here)
    view = viewed(given, here)
    target = wanted(given, view)
    made = written(view, target)
    diff = saving.diff(made.old, made.texts)
    assert diff == (folder / "expected.diff").read_text()
    assert list(made.said) == given.get("said", [])
    before = texts(here)
    saving.save(made.old, made.texts)
    after = viewed(given, here)
    assert leaves(after.served.args) == leaves(view.meaning(target.flags))
    assert after.served.env == dict(target.env)
    assert all(on_host(folder, after.deployment.container.mounts) == Path(folder) for folder in target.folders)
    assert written(after, target).texts == {}, "twice is once"
    kept = {path: text for path, text in before.items() if path not in made.texts}
    assert {path: text for path, text in texts(here).items() if path in kept} == kept


@pytest.mark.parametrize("files", REFUSED, indirect=True, ids=lambda folder: folder.name)
def test_what_cannot_be_changed_in_place_is_refused_with_its_place(files):
    _, given, here = files
    before = texts(here)
    view = viewed(given, here)
    with pytest.raises(ConfigError) as refused:
        written(view, wanted(given, view))
    assert given["refused"].replace("{here}", str(here)) in str(refused.value)
    assert texts(here) == before


# the command


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The profile of a study's winner."""
    outcome = simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s")
    found = profile_of(outcome)
    assert found is not None
    return found


@pytest.fixture
def here(profile, tmp_path):
    """A deployment of the same model, and the profile next to it."""
    (tmp_path / "profile.yaml").write_text(profile.to_yaml())
    lines = ["--max-num-seqs 8", "--gpu-memory-utilization 0.5"]
    text = f"services:\n  glm:\n    image: vllm/vllm-openai:v0.15.0\n    command: >\n      --model {profile.model}\n"
    (tmp_path / "compose.yaml").write_text(text + "".join(f"      {line}\n" for line in lines))
    return tmp_path


def write(here, *words, env=None):
    command = [sys.executable, "-m", "tuner", "profile", "write", *words]
    paths = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(command, cwd=here, env=paths, capture_output=True, text=True, check=False)


def test_a_diff_is_shown_and_nothing_written(here):
    before = texts(here)
    done = write(here, "compose.yaml", "--profile", "profile.yaml", "--diff")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--- compose.yaml\n+++ compose.yaml (winner)\n@@")
    assert "\n-      --max-num-seqs 8\n" in done.stdout
    assert texts(here) == before


def test_the_file_says_the_winner_and_its_backup_what_it_said(here, profile):
    file = here / "compose.yaml"
    old = file.read_text()
    file.chmod(0o640)
    done = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert done.returncode == 0, done.stderr
    assert "compose.yaml is written; as it was: compose.yaml.bak" in done.stderr
    assert (here / "compose.yaml.bak").read_text() == old
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((here / "compose.yaml.bak").stat().st_mode) == 0o640
    found = DeploymentView((file,), None, {}, {})
    target = winner_of(profile)
    assert leaves(found.served.args) == leaves(found.meaning(target.flags))
    assert found.served.env == dict(target.env)
    again = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert (again.returncode, "nothing to change" in again.stderr) == (0, True)
    assert len(list(here.glob("*.bak"))) == 1


def test_an_earlier_backup_is_kept_and_a_link_stays_one(here):
    (here / "compose.yaml.bak").write_text("mine")
    (here / "real").mkdir()
    (here / "compose.yaml").rename(here / "real" / "real.yaml")
    (here / "compose.yaml").symlink_to("real/real.yaml")
    done = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert done.returncode == 0, done.stderr
    assert (here / "compose.yaml.bak").read_text() == "mine"
    assert len(list(here.glob("compose.yaml.*.bak"))) == 1
    assert (here / "compose.yaml").is_symlink()
    assert "--max-num-seqs 8\n" not in (here / "real" / "real.yaml").read_text()


def test_a_winner_that_is_not_to_be_deployed_is_written_only_if_asked_for(here, profile):
    doubtful = profile.model_copy(update={"verdict": profile.verdict.model_copy(update={"deploy": False})})
    (here / "profile.yaml").write_text(doubtful.to_yaml())
    refused = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert (refused.returncode, "--limit-not-shown" in refused.stderr) == (2, True)
    assert not (here / "compose.yaml.bak").exists()
    assert write(here, "compose.yaml", "--profile", "profile.yaml", "--limit-not-shown").returncode == 0


def test_another_model_is_refused(here):
    text = (here / "compose.yaml").read_text()
    (here / "compose.yaml").write_text(re.sub(r"--model \S+", "--model org/other", text))
    refused = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert (refused.returncode, "it serves org/other" in refused.stderr) == (2, True)


def test_the_winner_of_a_study_is_written(here, profile):
    (here / "studies" / "s").mkdir(parents=True)
    (here / "studies" / "s" / "config.yaml").write_text("")
    refused = write(here, "compose.yaml")
    assert (refused.returncode, "has no winner to write" in refused.stderr) == (2, True)
    (here / "studies" / "s" / "profile.yaml").write_text(profile.to_yaml())
    assert write(here, "compose.yaml", "--study", "s").returncode == 0


def test_a_file_that_was_changed_in_the_meantime_is_left_alone(here):
    file = here / "compose.yaml"
    with pytest.raises(ConfigError, match="changed in the meantime"):
        saving.save({file: "before"}, {file: "after"})


def test_lines_of_windows_stay_such_lines(tmp_path):
    file = tmp_path / "compose.yaml"
    shutil.copy(DATA / "writeback" / "windows-lines" / "compose.yaml", file)
    given = asked(DATA / "writeback" / "windows-lines")
    made = written(viewed(given, tmp_path), wanted(given, viewed(given, tmp_path)))
    saving.save(made.old, made.texts)
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n") == 10


def test_secrets_next_to_a_change_are_masked_in_the_diff(tmp_path):
    file = tmp_path / ".env"
    old = "HF_TOKEN=hf_notarealtoken0123456789\nMAX=1\nDB_PASSWORD='correct horse'\n"
    shown = saving.diff({file: old}, {file: old.replace("MAX=1", "MAX=2")})
    assert "notareal" not in shown
    assert "correct" not in shown
    assert "\n-MAX=1\n+MAX=2\n" in shown


COMPOSE = """#!{python}
import json, shlex, sys, yaml
words = sys.argv[1:]
if "config" in words:
    path = words[words.index("-f") + 1]
    services = yaml.safe_load(open(path))["services"]
    for one in services.values():
        one["command"] = {read}
    print(json.dumps({{"services": services}}))
"""


@pytest.mark.parametrize(("read", "code"), [('shlex.split(one["command"])', 0), ('["--model", "other"]', 2)])
def test_compose_reads_the_new_text_before_it_is_written(here, read, code):
    """The program ``docker`` of this test reads as Compose does, or not."""
    (here / "bin").mkdir()
    (here / "bin" / "docker").write_text(COMPOSE.format(python=sys.executable, read=read))
    (here / "bin" / "docker").chmod(0o755)
    env = {"PATH": f"{here / 'bin'}:{os.environ['PATH']}"}
    before = texts(here)
    done = write(here, "compose.yaml", "--profile", "profile.yaml", "--service", "glm", env=env)
    assert done.returncode == code, done.stderr
    assert (texts(here) == before) is (code != 0)
    assert not list(here.glob(".*"))


@pytest.mark.docker
@pytest.mark.parametrize("files", EDITED, indirect=True, ids=lambda folder: folder.name)
def test_compose_itself_reads_the_winner(files):
    """``written`` asks it; what it says is compared there."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the docker command with its compose plugin: apt-get install docker-compose-plugin")
    _, given, here = files
    view = DeploymentView((here / given["file"],), given.get("service"), {**os.environ, **given.get("environ", {})}, {})
    if "compose" in given:
        with pytest.raises(ConfigError, match="reads the new text otherwise"):
            written(view, wanted(given, view))
    else:
        assert written(view, wanted(given, view)).texts


def test_what_is_not_as_it_was_in_the_study_is_said(here, profile):
    began = profile.deployed.args
    text = f"""services:
  other:
    image: vllm/vllm-openai:v0.15.0
    command: [--model, org/other]
  {profile.service.name}:
    image: vllm/vllm-openai:v0.15.0
    command: [--model, {profile.model}, --max-num-seqs, "{began["max_num_seqs"]}", --swap-space, "8"]
    environment: {{OMP_NUM_THREADS: "77"}}
"""
    (here / "compose.yaml").write_text(text)
    image = ProfileImage(reference="vllm/vllm-openai:v0.15.1", id="sha256:1")
    (here / "profile.yaml").write_text(profile.model_copy(update={"image": image}).to_yaml())
    done = write(here, "compose.yaml", "--profile", "profile.yaml", "--diff")
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if "not what the study changed" in line)
    assert "--swap-space" in said
    assert "OMP_NUM_THREADS" in said
    assert "--max-num-seqs" not in said
    assert "measured with vllm/vllm-openai:v0.15.1, and the file names vllm/vllm-openai:v0.15.0" in done.stderr


def test_what_no_file_does_for_the_winner_is_said(here, profile):
    """A power cap, which root sets, and a folder of kernels that has to be there."""
    env = {**profile.env, POWER_CAP: "300", "VLLM_TUNED_CONFIG_FOLDER": str(here / "none")}
    machine = ProfileMachine(name="two", indices=(2, 3))
    capped = profile.model_copy(update={"env": env, "machine": machine, "kernels": str(here / "none")})
    (here / "profile.yaml").write_text(capped.to_yaml())
    done = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert done.returncode == 0, done.stderr
    assert "capped at 300 W, which no server sets: sudo nvidia-smi -i 2,3 -pl 300" in done.stderr
    assert f"{here / 'none'}, which is no folder of this machine" in done.stderr
    found = DeploymentView((here / "compose.yaml",), None, {}, {})
    assert on_host(str(here / "none"), found.deployment.container.mounts) == here / "none"
    (here / "profile.yaml").write_text(profile.to_yaml())
    back = write(here, "compose.yaml", "--profile", "profile.yaml")
    assert "A power cap of 300 W is no part of it any more; lift it: sudo nvidia-smi" in back.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("environment:\n  A: 1\nimage: i\n", "environment: {}\nimage: i\n"),
        ("environment: # mine\n  A: 1\nimage: i\n", "environment: # mine\n  {}\nimage: i\n"),
        ("environment:\n- A=1\nimage: i\n", "environment: []\nimage: i\n"),
    ],
)
def test_what_is_emptied_stays_a_list_or_mapping(before, after):
    """Compose refuses an environment of which nothing is left."""
    node = present(nodes.own(nodes.compose(before, "here"), "environment"))
    assert nodes.without(before, node, 0) == after
    assert yaml.safe_load(after)["environment"] in ({}, [])
