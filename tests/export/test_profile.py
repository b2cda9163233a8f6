"""The proof inside a profile: what it keeps of a study, how it is shown, and the schema that editors read."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from tests.present import present
from tests.simulated import simulated_study
from tuner.cli import app
from tuner.export import origin
from tuner.export.profile import SCHEMA, Profile, profile_of, read_profile, schema
from tuner.host.hub import commit_of
from tuner.launchers.docker.image import StudyImage
from tuner.load.workload import Workload
from tuner.records.record import Ending, Role
from tuner.study.provenance import Machine, StudyRun, append
from tuner.terminal.closing import write_results

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "vllm/vllm-openai@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 14, "secrets.deployment={VLLM_API_KEY: KEY_GLM}")


@pytest.fixture(scope="module")
def profile(outcome):
    return profile_of(outcome)


def test_both_are_there_with_their_intervals(outcome, profile):
    speed = profile.measured["output_tokens_per_s"]
    values = [r.measurement.output_tokens_per_s for r in outcome.proof.launches if r.role is Role.CONFIRM_BEST]
    assert min(values) < speed.winner.mean < max(values)
    assert speed.baseline.low < speed.baseline.mean < speed.baseline.high < speed.winner.low
    assert speed.winner.launches == len(values) == outcome.decision.launches
    assert set(profile.measured) == {*outcome.decision.goals, *outcome.decision.others}


def test_what_was_tried_is_there_with_its_numbers_and_why_it_was_rejected(outcome, profile):
    tried = {each.trial: each for each in profile.tried}
    assert set(tried) == {r.number for r in outcome.searched} - {outcome.best.number, outcome.baseline.number}
    for record in (outcome.records[number] for number in tried):
        found = tried[record.number]
        assert found.changes == outcome.changes(record)
        assert found.why
        if found.ending is Ending.CANNOT_RUN:
            assert (found.numbers, found.gain) == ({}, None)
            assert found.why == record.failure.message
        else:
            read = record.measurement.output_tokens_per_s
            assert found.numbers["output_tokens_per_s"] == pytest.approx(read, rel=1e-5)
    assert {each.ending for each in profile.tried} >= {Ending.CANNOT_RUN, Ending.MEASURED}


def test_what_was_deployed_is_there(outcome, profile):
    assert profile.deployed.args["max_num_seqs"] == outcome.config.model.args["max_num_seqs"]
    assert profile.service.secrets == {"VLLM_API_KEY": "KEY_GLM"}
    assert profile.study.workload_digest == origin.digest_of(outcome.config.workload)


def test_image_machine_and_revision_are_the_studys_own(outcome, tmp_path, monkeypatch):
    here = Machine.this().model_copy(update={"gpus": ("RTX 4090, 24564 MiB, 570.1", "RTX 3090, 24576 MiB, 570.1")})
    monkeypatch.setattr(Machine, "this", lambda: here)
    hub = tmp_path / "hub" / f"models--{outcome.config.model.id.replace('/', '--')}" / "refs"
    hub.mkdir(parents=True)
    (hub / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    image = StudyImage(reference="vllm/vllm-openai:nightly", id="sha256:1", digests=(DIGEST,))
    outcome.folder.write(outcome.folder.image, image.model_dump_json())
    append(outcome.folder, StudyRun.now([]))
    gpus = outcome.config.hardware.model_copy(update={"gpus": (1,)})
    object.__setattr__(outcome, "config", outcome.config.model_copy(update={"hardware": gpus}))
    found = present(profile_of(outcome))
    assert (present(found.image).reference, present(found.image).digest) == ("vllm/vllm-openai:nightly", DIGEST)
    assert (present(found.machine).gpus, present(found.machine).indices) == (("RTX 3090, 24576 MiB, 570.1",), (1,))
    assert found.revision == COMMIT
    monkeypatch.setattr(Machine, "this", lambda: here.model_copy(update={"cpu": "another"}))
    assert present(profile_of(outcome)).revision is None, "another machine's cache tells nothing"


def test_a_commit_that_is_named_is_the_revision(tmp_path):
    env = {"HF_HOME": str(tmp_path)}
    assert commit_of("org/m", COMMIT, env) == COMMIT
    assert commit_of("org/m", "v2", env) is None


def test_equal_traffic_has_one_digest_whatever_it_is_called():
    one, other = Workload(name="a"), Workload(name="b")
    assert origin.digest_of(one) == origin.digest_of(other)
    assert origin.digest_of(one) != origin.digest_of(Workload(name="a", concurrency=7))


def test_the_schema_that_is_published_is_current():
    assert (ROOT / "docs" / SCHEMA).read_text() == schema()
    assert CliRunner().invoke(app, ["profile", "schema"]).output == schema()


def test_a_profile_keeps_to_its_schema(outcome, profile):
    written = yaml.safe_load(profile.to_yaml())
    jsonschema.validate(written, json.loads(schema()))
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate({**written, "arg": {}}, json.loads(schema()))
    write_results(outcome)
    first = outcome.folder.profile.read_text().splitlines()[0]
    named = first.partition("$schema=")[2]
    assert (outcome.folder.path / named).read_text() == schema()


def test_it_is_shown_to_a_person(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "profile.yaml").write_text(profile.to_yaml())
    done = CliRunner().invoke(app, ["profile", "show", str(tmp_path / "profile.yaml")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert profile.verdict.sentence in text
    assert f"{profile.study.trials} trials for throughput under quick ({profile.study.workload_digest})" in text
    for each in profile.tried:
        assert f" {each.trial} " in done.output
    assert "limit kept" in done.output


def test_it_is_shown_to_a_program(profile, tmp_path):
    (tmp_path / "profile.yaml").write_text(profile.to_yaml())
    done = CliRunner().invoke(app, ["profile", "show", str(tmp_path / "profile.yaml"), "--json"])
    assert Profile.model_validate_json(done.output) == profile == read_profile(tmp_path / "profile.yaml")


def test_a_file_that_is_no_profile_is_named(tmp_path):
    (tmp_path / "profile.yaml").write_text("a: 1\n")
    done = CliRunner().invoke(app, ["profile", "show", str(tmp_path / "profile.yaml")])
    assert "no such key 'a'" in str(done.exception)


def test_a_winner_with_tuned_kernels_names_their_folder(tmp_path):
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    asked = (f"engine.tuned_kernels={kernels}", f"model.env.VLLM_TUNED_CONFIG_FOLDER={kernels}")
    assert present(profile_of(simulated_study(tmp_path / "studies", 12, *asked))).kernels == str(kernels)
