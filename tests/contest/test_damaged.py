"""A damaged study over engines: named, and in nobody else's way."""

import json

import pytest
from typer.testing import CliRunner

from tests.simulated import simulated_study
from tuner.cli.entry import app
from tuner.contest.outcome import ContestOutcome
from tuner.errors import ConfigError

SOUND = {"engines": {"a": "demo", "b": "other"}, "confirm": 4}


@pytest.fixture
def studies(tmp_path):
    """A sound study, and a folder for one over engines."""
    simulated_study(tmp_path, 2, proven=False)
    (tmp_path / "both").mkdir()
    return tmp_path


def tuner(*words):
    ran = CliRunner().invoke(app, list(words))
    return ran.exit_code, ran.output


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"engines": {"a": "de',
        "[" * 100_000,
        json.dumps({**SOUND, "engines": {"a": "demo"}}),
        json.dumps({**SOUND, "engines": {"a": "demo", "b": "../demo"}}),
        json.dumps({**SOUND, "confirm": float("nan")}),
    ],
)
def test_it_is_named_and_can_be_removed_alone(studies, text):
    (studies / "both" / "engines.json").write_text(text)
    at = ("--folder", str(studies))
    code, listed = tuner("study", "list", *at)
    assert code == 0
    assert "demo" in listed
    assert "both cannot be read" in listed
    with pytest.raises(ConfigError, match=r"engines\.json is damaged"):
        ContestOutcome.of(studies / "both")
    assert tuner("study", "rm", "both", "--yes", *at)[0] == 0
    assert [path.name for path in studies.iterdir()] == ["demo"]


def test_a_sound_one_is_listed_for_machines_too(studies):
    (studies / "both" / "engines.json").write_text(json.dumps(SOUND))
    code, listed = tuner("study", "list", "--json", "--folder", str(studies))
    assert code == 0
    (both,) = [each for each in json.loads(listed) if each["study"] == "both"]
    assert both["engines"]["a"]["launched"] > 0
    assert both["engines"]["b"]["launched"] == 0
