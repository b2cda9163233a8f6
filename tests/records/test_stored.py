"""Records outlive a version: what each version wrote is still read, and a new field never stands in the way.

``data/recorded`` holds studies as versions of tuner wrote them, in a folder each, named by the commit; logs and most
requests are left out. Versions whose records differ in more than defaults add one.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from tests.present import present
from tuner.analysis import frames
from tuner.bench.comparison import Comparison
from tuner.cli import app
from tuner.config import Config
from tuner.engines.config import EngineConfig
from tuner.engines.registry import ENGINES
from tuner.export.profile import Profile
from tuner.launchers.config import LauncherConfig
from tuner.launchers.docker.image import StudyImage
from tuner.launchers.registry import LAUNCHERS
from tuner.load.metrics import METRICS, Measurement
from tuner.load.records import RequestRecord
from tuner.proof.decision import Kind
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.schema import Stored
from tuner.site.takeover import TakeOver
from tuner.study.provenance import StudyRun, append, runs_of

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
STUDIES = sorted(path.parent for path in RECORDED.glob("*/*/config.yaml"))
FIELDS = RECORDED / "fields.txt"
"""Every field of a stored model that was ever read back, by its place; ``!`` in front of those without a default."""
ROOTS = (TrialRecord, Config, StudyRun, RequestRecord, StudyImage, TakeOver, Comparison, Profile)


@pytest.fixture(params=STUDIES, ids=lambda path: f"{path.parent.name}-{path.name}")
def study(request, tmp_path):
    """A copy of a recorded study."""
    shutil.copytree(request.param, tmp_path / request.param.name)
    return StudyFolder(tmp_path / request.param.name)


def tuner(*arguments):
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    return run.output


def test_every_record_is_read(study):
    assert study.damaged() == []
    assert len(study.records()) == len(list(study.path.glob("trials/*/record.json")))
    assert len(study.confirmations()) == len(list(study.path.glob("confirm/*/record.json")))
    assert len(runs_of(study)) == len(study.earlier_runs.read_text().splitlines())


def test_status_and_report_open_it(study):
    folder = str(study.path.parent)
    assert "deployed" in tuner("study", "status", study.path.name, "--folder", folder)
    tuner("study", "report", study.path.name, "--folder", folder)
    assert "<html" in study.report.read_text()[:1000]


def test_the_frames_of_the_notebooks_open_it(study):
    outcome = Outcome.of(study)
    measured = [record for record in (*outcome.records, *outcome.relaunches) if record.measurement]
    rows = frames.trials(outcome)
    assert rows["output_tokens_per_s"].count() == len(measured)
    assert len(frames.requests(outcome)) == sum(len(path.read_text().splitlines()) for path in requests(study))
    assert set(frames.phases(outcome)["trial"]) <= set(rows["trial"])
    assert len(frames.failures(outcome)) == len(outcome.records) + len(outcome.relaunches) - len(measured)


def requests(study):
    return study.path.glob("*/*/requests.jsonl")


def test_a_study_from_before_a_metric_is_read(study):
    """As if every metric but the goal had been added since: that is what adding one does to old records."""
    goal = "output_tokens_per_s"
    for path in study.path.glob("*/*/record.json"):
        raw = json.loads(path.read_text())
        if raw["measurement"]:
            needed = {goal, *(name for name, field in Measurement.model_fields.items() if field.is_required())}
            raw["measurement"] = {name: value for name, value in raw["measurement"].items() if name in needed}
            path.write_text(json.dumps(raw))
    assert study.damaged() == []
    tuner("study", "status", study.path.name, "--folder", str(study.path.parent))
    assert "ttft_p50_ms" not in frames.trials(Outcome.of(study)).dropna(axis="columns", how="all")


def test_no_metric_is_required():
    assert [name for name in METRICS if Measurement.model_fields[name].is_required()] == []


def test_a_record_of_version_1_tells_what_was_disturbed():
    study = StudyFolder(RECORDED / "42c3e30" / "h200-unproven")
    raw = [json.loads(path.read_text()) for path in sorted(study.path.glob("trials/*/record.json"))]
    assert {each["schema_version"] for each in raw} == {1}
    stages = [[stage.stage for stage in record.disturbed] for record in study.records()]
    assert stages == [[stage["stage"] for stage in each["spoiled"]] for each in raw]
    assert any(stages)
    today = study.records()[-1]
    assert TrialRecord.model_validate_json(today.model_dump_json()) == today


def test_the_runs_of_earlier_versions_come_before_those_of_today(study):
    before = runs_of(study)
    append(study, StudyRun.now(("tuner", "study", "start")))
    assert runs_of(study)[:-1] == before != []
    assert study.runs.name == "runs.jsonl"


def test_a_profile_of_version_1_is_read_as_one_of_today():
    raw = yaml.safe_load((RECORDED / "42c3e30" / "demo" / "profile.yaml").read_text())
    assert raw["schema_version"] == 1
    profile = Profile.model_validate(raw)
    assert profile.verdict.deploy
    assert profile.verdict.decision.kind is Kind.BETTER
    assert profile.verdict.decision.launches == 2
    assert profile.verdict.decision.gain == pytest.approx(0.255, abs=0.001)
    assert Profile.model_validate(yaml.safe_load(profile.to_yaml())) == profile


def test_a_profile_of_version_2_tells_its_readings_as_one_of_today():
    raw = yaml.safe_load((RECORDED / "06955a4" / "demo" / "profile.yaml").read_text())
    assert raw["schema_version"] == 2
    profile = Profile.model_validate(raw)
    speed = profile.measured["output_tokens_per_s"]
    assert present(speed.baseline.low) < speed.baseline.mean < present(speed.baseline.high) < present(speed.winner.low)
    assert speed.winner.mean / speed.baseline.mean - 1 == pytest.approx(profile.verdict.decision.gain, rel=0.01)
    assert present(profile.machine).name == "2 x RTX 4090 (simulated)"
    assert (profile.tried, profile.deployed, profile.image) == ((), None, None)
    assert Profile.model_validate(yaml.safe_load(profile.to_yaml())) == profile


@pytest.mark.parametrize("model", [root for root in ROOTS if issubclass(root, Stored)])
def test_each_earlier_version_has_a_reader(model):
    assert model.model_fields["schema_version"].default == len(model.upgrades) + 1


def test_a_version_to_come_is_named():
    with pytest.raises(ValidationError, match="schema_version 4 is of another version of tuner; this one reads 1 to 3"):
        Profile.model_validate({"schema_version": 4})


# every field that was added has a default, and none has gone


def places(model: Any, place: str, above: tuple[Any, ...] = ()) -> Iterator[str]:
    """Every field of a model and of all that it holds, by its place."""
    if model in above:
        return
    for name, required, hint in _fields(model):
        yield f"{'!' if required else ''}{place}.{name}"
        held = [kind for part in _parts(hint) if _is_model(part) for kind in _kinds(part)]
        for part in held:
            label = f"{name}.{_label(part)}" if len(held) > 1 else name
            yield from places(part, f"{place}.{label}", (*above, model))


def _kinds(part: Any) -> tuple[Any, ...]:
    """The classes that a section may be of: where a registry says so, each of its kinds."""
    kinds = {
        LauncherConfig: tuple(LAUNCHERS.values()),
        EngineConfig: tuple(kind.config for kind in ENGINES.values()),
    }
    return kinds.get(part, (part,))


def _is_model(part: Any) -> bool:
    own = isinstance(part, type) and part.__module__.startswith("tuner.")
    return own and (issubclass(part, BaseModel) or is_dataclass(part))


def _fields(model: Any) -> Iterator[tuple[str, bool, Any]]:
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            yield name, field.is_required(), field.annotation
        return
    hints = get_type_hints(model)
    for field in fields(model):
        yield field.name, field.default is MISSING and field.default_factory is MISSING, hints[field.name]


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in get_args(hint):
        yield from _parts(argument)


def _label(model: Any) -> str:
    """Tells the branches of a union apart: by their kind, where they have one."""
    kinds = [hint for name, _, hint in _fields(model) if name == "kind" and get_origin(hint) is Literal]
    return str(get_args(kinds[0])[0]) if kinds else model.__name__


def landed() -> set[str]:
    return {line for line in FIELDS.read_text().splitlines() if line}


def now() -> set[str]:
    return {place for root in ROOTS for place in places(root, root.__name__)}


def test_a_field_that_was_added_has_a_default():
    """Unless all of the model around it is new: then no old file holds one."""
    known = {place.lstrip("!").rpartition(".")[0] for place in landed()}
    added = {place for place in now() - landed() if place.startswith("!")}
    assert {place for place in added if place[1:].rpartition(".")[0] in known} == set(), "give it a default"


def test_a_field_that_has_landed_is_still_read():
    still = {place.lstrip("!") for place in now()}
    assert {place.lstrip("!") for place in landed()} - still == set(), (
        "old files have it: keep it, or add to `upgrades`"
    )
