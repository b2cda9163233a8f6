"""Deployments as people write them: what is understood of each, as it stands next to it in ``expected.json``."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tuner.errors import ConfigError
from tuner.importer import compose, service, sources

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "deployments"
CASES = sorted(CORPUS.glob("*/expected*.json"))
COMPOSE = sorted(path for path in CORPUS.glob("*/*compose.y*ml"))
HOME = "/home/somebody"


def name(path):
    return f"{path.parent.name}{path.stem.removeprefix('expected')}"


def case(path):
    return json.loads(path.read_text().replace("{here}", str(path.parent)).replace("{home}", HOME))


def read(path, wanted):
    return sources.read([path.parent / wanted["file"]], wanted.get("service_asked"), {"HOME": HOME}).understood


def test_the_corpus_is_wide():
    assert len({path.parent for path in CASES}) >= 25


@pytest.mark.parametrize("path", CASES, ids=name)
def test_a_deployment_is_understood(path):
    wanted = case(path)
    if "refused" in wanted:
        with pytest.raises(sources.NoEngine, match=wanted["refused"].replace("(", r"\(").replace(")", r"\)")):
            read(path, wanted)
        return
    found = read(path, wanted).model_dump(mode="json")
    found["secrets"] = [[secret["name"], secret["where"]] for secret in found["secrets"]]
    assert found == wanted["expected"]


@pytest.mark.parametrize("path", CASES, ids=name)
def test_no_secrets_value_is_shown(path):
    wanted = case(path)
    if "refused" not in wanted:
        shown = read(path, wanted).model_dump_json()
        for secret in (
            "notareal",
            "not-a-real",
            "also-not-real",
            'abcdef0123456789"',
            "k-0123456789",
            "secretpassword",
        ):
            assert secret not in shown


@pytest.mark.parametrize("name", ["anchors/compose.yaml", "kubernetes/deployment.yaml", "inspected/inspect.json"])
def test_whatever_stands_in_the_wrong_place_ends_in_a_sentence(name, tmp_path):
    documents = list(yaml.safe_load_all((CORPUS / name).read_text()))
    for number, document in enumerate(documents):
        for place in places(document):
            for wrong in ("x", [None]):
                changed = [*documents]
                changed[number] = replaced(document, place, wrong)
                file = tmp_path / Path(name).name
                file.write_text(json.dumps(changed[0]) if file.suffix == ".json" else yaml.safe_dump_all(changed))
                with suppress(ConfigError):
                    sources.read([file], None, {"HOME": HOME})


def places(tree, above=()):
    """Every place in a tree, as a path of keys."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(tree[key], (*above, key))


def replaced(tree, place, new):
    key, *rest = place
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[key] = replaced(tree[key], rest, new) if rest else new
    return copy


@pytest.fixture(scope="module")
def compose_installed():
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the docker command with its compose plugin: apt-get install docker-compose-plugin")


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_our_own_reading_of_compose_files_is_composes(path, compose_installed):
    env = {**os.environ, "HOME": HOME}
    ours, theirs = compose.load([path], env, ask=False), compose.load([path], env)
    if any("refuses" in sentence for one in theirs.services for sentence in theirs.variables.of(one)):
        return
    for one in ours.services:
        own, judged = service.container(ours, one), service.container(theirs, one)
        for field in ("image", "entrypoint", "command", "env", "ports", "gpus", "mounts", "options"):
            assert getattr(own, field) == getattr(judged, field), field


@pytest.mark.parametrize("name", ["flow-list", "no-engine"])
def test_the_command_prints_json_and_says_by_its_exit_code_whether_there_is_an_engine(name):
    path = next(path for path in CASES if path.parent.name == name)
    words = ["profile", "import", str(path.parent / case(path)["file"]), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    said = json.loads(done.stdout)
    assert list(said) == ["service", "image", "argv", "env", "secrets", "host_port", "gpus", "mounts", "unread"]
    if "refused" in case(path):
        assert (done.returncode, said["argv"]) == (2, [])
        assert case(path)["refused"] in said["unread"][0]
    else:
        assert (done.returncode, said["argv"]) == (0, case(path)["expected"]["argv"])
