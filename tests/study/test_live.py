"""Settings measured in running servers, from the search that asks for them to the report that compares them."""

import json
import re
from dataclasses import replace

import pytest
import tenacity

from tests.fast import FAST
from tests.present import present
from tuner import composing
from tuner.export.compose import compose_of
from tuner.export.profile import profile_of
from tuner.foresight.preflight import Preflight
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role, State
from tuner.records.screened import agreement
from tuner.report import report_html
from tuner.space import Candidate
from tuner.study import events
from tuner.study import loop as study
from tuner.study.loop import run_study
from tuner.study.proposals import observations
from tuner.terminal.closing import summary

LIVE = [*FAST, "search.live=auto", "search.live_settings=4", "study.name=live"]
NARROW = (
    "space=none",
    "+space.params.max_num_seqs={choices: [1, 2, 4]}",
    "+space.params.max_num_batched_tokens={choices: [2048, 32768]}",
    "model.args.max_num_seqs=1",
)
"""Two parameters that a running server can change, and nothing else."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(study, "_RETRY_WAIT", tenacity.wait_none())


def run(folder, *overrides):
    asked = composing.load([*LIVE, f"study.folder={folder}", *overrides])
    heard: list[str] = []
    outcome = run_study(asked, lambda event: heard.append(event.text) if isinstance(event, events.Noted) else None)
    return outcome, heard


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A study that screens in its second launch, and then launches what was screened."""
    found, heard = run(tmp_path_factory.mktemp("studies"), *NARROW, "budget.trials=6", "study.confirm.max=1")
    assert not [text for text in heard if "no settings" in text]
    return found


def test_one_launch_at_the_envelope_measures_several_settings(outcome):
    baseline, envelope, *_ = outcome.launched
    assert not baseline.screened
    assert envelope.params["max_num_seqs"] == 4
    assert len(envelope.screened) >= 2
    assert len({json.dumps(each.setting, sort_keys=True) for each in envelope.screened}) == len(envelope.screened)
    for each in envelope.screened:
        assert all(each.setting[name] <= envelope.params[name] for name in each.setting)
        assert each.measurement.output_tokens_per_s > 0
        assert each.digest == Candidate(each.params).digest


def test_the_server_says_which_settings_were_in_force(outcome):
    envelope = outcome.launched[1]
    log = StudyFolder(outcome.folder.path).trial(envelope.number).log.read_text()
    in_force = re.findall(r"change \d+ in force: (\{.*\})", log)
    assert [json.loads(text) for text in in_force] == [each.setting for each in envelope.screened]


def test_every_request_is_kept_and_the_folder_of_the_changes_is_not(outcome):
    folder = outcome.folder.trial(outcome.launched[1].number)
    sent = folder.requests.read_text()
    assert all(f'"stage":"concurrent, live {n}"' in sent for n, _ in enumerate(outcome.launched[1].screened, 1))
    assert not (folder.path / "live").exists()


def test_what_was_screened_slows_down_as_a_launch_of_it_does(outcome):
    """One sequence at a time serves five users slowly, live and launched."""
    envelope = outcome.launched[1]
    one = [each for each in envelope.screened if each.setting["max_num_seqs"] == 1]
    assert one
    assert all(each.measurement.output_tokens_per_s < 0.6 * envelope.measurement.output_tokens_per_s for each in one)


def test_it_is_no_launch_and_no_result(outcome):
    launched = {record.digest for record in outcome.launched if record.measurement}
    only_screened = {each.digest for record in outcome.records for each in record.screened} - launched
    assert outcome.best.digest in launched
    assert {record.digest for record in outcome.ranked}.isdisjoint(only_screened)
    assert outcome.readings.values(next(iter(only_screened), "")) is None


def test_the_search_sees_it_as_less_than_a_launch(outcome):
    seen = observations(outcome.searched, outcome.config.space, outcome.readings)
    screened = [each for record in outcome.records for each in record.screened]
    assert sum(each.screened for each in seen) == sum(not each.doubt for each in screened)
    doubted = outcome.searched[1].model_copy(
        update={"screened": tuple(each.model_copy(update={"doubt": "graphs"}) for each in screened)}
    )
    assert not any(each.screened for each in observations([doubted], outcome.config.space, outcome.readings))


def test_only_launches_that_screen_have_our_scheduler_and_no_deployment_has(outcome):
    for record in (*outcome.records, *outcome.relaunches):
        assert ("--scheduler-cls" in record.argv) == bool(record.screened)
        assert ("TUNER_LIVE_SETTINGS" in record.env) == bool(record.screened)
    assert {record.role for record in outcome.records if record.screened} == {Role.SEARCH}
    assert outcome.confirmations
    for text in (profile_of(outcome), compose_of(outcome), outcome.config.to_yaml()):
        assert "scheduler_cls" not in str(text)
        assert "tuner_live" not in str(text)


def test_report_and_status_say_how_many_and_how_well_they_agreed(outcome):
    found = present(agreement(outcome))
    assert found.settings == sum(len(record.screened) for record in outcome.records)
    assert summary(outcome)["screened"] == found.settings
    counted, _ = found.sentences
    assert f"{found.settings} settings screened in the running servers of" in counted
    assert counted in report_html(outcome)


def test_what_was_launched_as_well_is_compared(outcome):
    """The envelope itself, as if it had been screened at a tenth more than it was launched."""
    envelope = outcome.launched[1]
    tokens = 1.1 * outcome.readings.level(envelope.digest, "output_tokens_per_s")
    measured = envelope.measurement.model_copy(update={"output_tokens_per_s": tokens})
    (first, *_) = envelope.screened
    both = first.model_copy(update={"digest": envelope.digest, "measurement": measured, "doubt": ""})
    records = [each.model_copy(update={"screened": (both,)}) if each is envelope else each for each in outcome.records]
    found = present(agreement(replace(outcome, records=tuple(records))))
    assert list(found.ratios) == pytest.approx([1.1])
    assert "1 of them launched as well" in found.sentences[1]
    assert re.search(r"all users read \+10\.0% \[[−+]\d.*%, \+\d.*%\] against the launch", found.sentences[1])


def test_a_resumed_study_reads_what_was_screened(outcome):
    assert Outcome.of(StudyFolder(outcome.folder.path)).records == outcome.records


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("hardware.simulated.version=0.10.2",), "is older than 0.15"),
        (("search=random",), "only search=auto"),
    ],
)
def test_where_it_cannot_be_used_the_search_works_as_before_and_says_why_once(tmp_path, overrides, reason):
    outcome, heard = run(tmp_path, *NARROW, "budget.trials=3", *overrides)
    (said,) = [text for text in heard if "no settings are measured in running servers" in text]
    assert reason in said
    assert len(outcome.launched) == 3
    assert not any(record.screened or "--scheduler-cls" in record.argv for record in outcome.records)


def test_a_server_that_ends_of_it_is_launched_again_without(tmp_path):
    """Its variable is taken away, so that our scheduler raises at its first look at it."""
    wrapped = "engine.executable=[env,-u,TUNER_LIVE_SETTINGS,'{python}',-m,tuner.sim,serve]"
    outcome, heard = run(tmp_path, *NARROW, "budget.trials=3", wrapped)
    failed = [record for record in outcome.records if record.state is State.FAILED]
    assert [(record.failure.error, record.failure.cause) for record in failed] == [("LiveBroke", "live")]
    assert len(outcome.launched) == 3
    assert all(record.measurement for record in outcome.launched)
    assert any("no settings are measured in running servers: the server of trial" in text for text in heard)


def test_a_larger_envelope_is_not_launched_where_memory_would_end(tmp_path, monkeypatch):
    monkeypatch.setattr(Preflight, "fits", lambda self, candidate: candidate.params["max_num_seqs"] < 4)
    outcome, _ = run(tmp_path, *NARROW, "budget.trials=2")
    assert outcome.launched[1].params["max_num_seqs"] < 4
