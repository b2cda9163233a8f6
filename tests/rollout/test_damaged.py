"""Damaged profiles and deployments: one sentence with the path and what to do, whatever reads them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.errors import ConfigError

PROFILE = (Path(__file__).parents[1] / "data" / "recorded" / "06955a4" / "demo" / "profile.yaml").read_bytes()
COMPOSE = b"services:\n  qwen:\n    image: vllm/vllm-openai:v0.15.0\n    command: --model org/m --max-num-seqs 16\n"

OF_ANY = {
    "empty": b"",
    "one letter": b"s",
    "NUL": b"\0" * 64,
    "binary": bytes(range(256)),
    "deep": b"[" * 200 + b"]" * 200,
    "deeper and deeper": b"\n".join(b" " * level + b"a:" for level in range(200)),
    "a list": b"- 1\n- 2\n",
    "another encoding": PROFILE.decode().encode("utf-16"),
}
OF_PROFILES = {
    **OF_ANY,
    "a version to come": PROFILE.replace(b"schema_version: 2", b"schema_version: 99"),
    "a version that is none": PROFILE.replace(b"schema_version: 2", b"schema_version: two"),
    "a version that it is not": PROFILE.replace(b"schema_version: 2", b"schema_version: 1"),
    "only a version": b"schema_version: 1\n",
    "a verdict that is none": b"schema_version: 1\nverdict: null\n",
    "no decision": b"schema_version: 2\nverdict: {decision: 3}\nstudy: x\n",
    **{f"cut off after {share} %": PROFILE[: len(PROFILE) * share // 100] for share in (1, 25, 50, 75)},
}


def refused(path, *words):
    """The sentence in which a command ends."""
    run = CliRunner().invoke(app, ["profile", *map(str, words)])
    assert isinstance(run.exception, ConfigError), run.output
    sentence = str(run.exception)
    assert sentence.startswith(f"{path}: "), sentence
    assert "\n  fix: " in sentence
    assert len(sentence.splitlines()) == 2, sentence
    return sentence


@pytest.mark.parametrize("damage", OF_PROFILES)
def test_a_damaged_profile_is_named_whoever_reads_it(damage, tmp_path):
    good, path = tmp_path / "compose.yaml", tmp_path / "profile.yaml"
    good.write_bytes(COMPOSE)
    path.write_bytes(OF_PROFILES[damage])
    said = [refused(path, name, good, "--profile", path) for name in ("write", "apply", "verify")]
    assert {*said, refused(path, "show", path), refused(path, "verify", path, "--relaunch")} == {said[0]}
    assert good.read_bytes() == COMPOSE


@pytest.mark.parametrize("damage", OF_ANY)
def test_a_damaged_compose_file_is_named_whoever_reads_it(damage, tmp_path):
    profile, path = tmp_path / "profile.yaml", tmp_path / "compose.yaml"
    profile.write_bytes(PROFILE)
    path.write_bytes(OF_ANY[damage])
    refused(path, "import", path)
    for name in ("apply", "verify"):
        refused(path, name, path, "--profile", profile)
    run = CliRunner().invoke(app, ["profile", "write", str(path), "--profile", str(profile)])
    assert isinstance(run.exception, ConfigError)
    assert path.read_bytes() == OF_ANY[damage]
    run = CliRunner().invoke(app, ["profile", "rollback", str(path)])
    assert isinstance(run.exception, ConfigError)
    assert "nothing was rolled out" in str(run.exception)
