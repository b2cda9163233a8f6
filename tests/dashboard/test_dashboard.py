"""The dashboard: what optuna-dashboard shows of a study, asked over HTTP and looked at in a browser."""

import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from tests.browser import browser, needs_chromium, pictures
from tests.simulated import simulated_study
from tuner.dashboard import artifacts, notes
from tuner.dashboard.ledger import Ledger
from tuner.dashboard.server import serving
from tuner.engines.base import Degradation
from tuner.engines.effective import EffectiveSetting, Status
from tuner.records.outcome import Outcome
from tuner.space import Candidate
from tuner.terminal.closing import write_results

# optuna says this of small studies while it answers the dashboard
pytestmark = pytest.mark.filterwarnings("ignore:Some regimes:UserWarning")

LOG = "INFO starting\nERROR out of memory --api-key sk-verysecretverysecret\n"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A study with logs, a report and a profile; Optuna's storage is made from its records when it is served."""
    made = simulated_study(tmp_path_factory.mktemp("studies"), 12)
    for record in made.records:
        made.folder.trial(record.number).log.write_text(LOG)
    write_results(made)
    return made


@pytest.fixture(scope="module")
def server(outcome):
    with serving(outcome) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def answer(server, path, **request):
    asked = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", **request)
    with urllib.request.urlopen(asked, timeout=20) as reply:
        return reply.read().decode()


def study_of(server):
    return json.loads(answer(server, f"/api/studies/{server.study_id}?after=0"))


def dead(outcome):
    return next(record for record in outcome.records if record.failure)


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")


def test_trials_are_there_with_their_states_and_causes(outcome, server):
    trials = study_of(server)["trials"]
    assert [trial["state"] for trial in trials] == [
        "Complete" if record.measurement else "Pruned" for record in outcome.records
    ]
    said = {each["key"]: each["value"] for each in trials[dead(outcome).number]["user_attrs"]}
    assert said["cause"] == dead(outcome).failure.cause


def test_a_pruned_trial_shows_no_invented_value(outcome, server):
    trial = study_of(server)["trials"][dead(outcome).number]
    assert "values" not in trial or trial["values"] is None
    assert trial["intermediate_values"] == []


def test_limits_that_were_missed_are_known_to_it(outcome, server):
    trials = study_of(server)["trials"]
    for record in outcome.records:
        if record.verdict:
            constraints = trials[record.number]["constraints"]
            assert constraints == pytest.approx(list(record.verdict.violations.values()))


def test_the_studys_first_page_names_the_best_within_all_limits(outcome, server):
    said = {each["key"]: each["value"] for each in study_of(server)["user_attrs"]}
    assert said["verdict"] == outcome.sentence
    searching = notes.study_facts(replace(outcome, relaunches=()))
    assert searching["best within all limits so far"].startswith(f"trial {outcome.best.number}: ")


def test_every_trial_has_a_note_of_what_ran_the_verdict_and_the_deciding_line(outcome, server):
    trials = study_of(server)["trials"]
    assert all(trial["note"]["body"] for trial in trials)
    note = trials[dead(outcome).number]["note"]["body"]
    assert note.startswith("**Cannot run: ")
    assert " ".join(dead(outcome).failure.line.split()) in " ".join(note.split())
    assert "--max-num-batched-tokens" in note


def test_the_studys_note_gives_the_verdict_and_what_it_rests_on(outcome, server):
    note = study_of(server)["note"]["body"]
    assert note.startswith(f"## {outcome.sentence}")
    goal = outcome.decision.goals["output_tokens_per_s"]
    assert f"| deployed | trial {outcome.best.number} | change |" in note
    assert f"+{goal.gain:.1%} [+{goal.low:.1%}, +{goal.high:.1%}]" in note
    assert "Means over the relaunches." in note


def test_logs_records_and_requests_are_artifacts_with_secrets_masked(outcome, server):
    best, trials = outcome.best.number, study_of(server)["trials"]
    kept = {each["filename"]: each["artifact_id"] for each in trials[best]["artifacts"]}
    assert set(kept) == {"server.log", "record.json", "requests.svg", "requests.csv"}
    trial_id = trials[best]["trial_id"]

    def read(name):
        return answer(server, f"/artifacts/{server.study_id}/{trial_id}/{kept[name]}")

    assert "sk-verysecret" not in read("server.log")
    assert "out of memory" in read("server.log")
    assert json.loads(read("record.json"))["number"] == best
    assert read("requests.svg").startswith("<svg")
    assert read("requests.csv").startswith("study,trial,")


def test_report_profile_and_configuration_are_the_studys_artifacts(server):
    kept = {each["filename"] for each in study_of(server)["artifacts"]}
    assert kept == {"report.html", "profile.yaml", "config.yaml"}


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "trials/0000/../../../../secret"])
def test_an_artifact_outside_of_the_study_is_not_served(outcome, path):
    with pytest.raises(FileNotFoundError):
        artifacts.EvidenceStore(outcome.folder).open_reader(path.encode().hex())


def test_nothing_can_be_deleted_from_it(server):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        answer(server, f"/api/studies/{server.study_id}", method="DELETE")
    assert study_of(server)["trials"]


def test_a_page_elsewhere_cannot_reach_it_by_another_name(server):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        answer(server, "/api/studies", headers={"Host": f"evil.example:{server.server_port}"})


def test_a_trial_that_left_no_record_keeps_its_number(tmp_path):
    made = simulated_study(tmp_path, 5)
    records = [record for record in made.records if record.number != 2]
    ledger = Ledger(made.config, made.folder)
    ledger.catch_up(records)
    ledger.catch_up(records)
    kept = ledger.storage.get_all_trials(ledger.study_id)
    assert [trial.number for trial in kept] == [0, 1, 2, 3, 4]
    assert kept[2].state.name == "FAIL"
    assert kept[3].values == ([*made.records[3].verdict.values] if made.records[3].verdict else None)


@pytest.mark.parametrize("value", [0, -5, 10**400])
def test_a_deployed_value_that_no_scale_can_show_is_left_out(tmp_path, value):
    made = simulated_study(tmp_path, 1)
    deployed = made.records[0].params | {"max_num_seqs": value}
    ledger = Ledger(made.config, made.folder)
    ledger.begin(Candidate(deployed))
    (trial,) = ledger.storage.get_all_trials(ledger.study_id)
    assert "max_num_seqs" not in trial.params
    assert set(trial.params) <= set(deployed)


def test_a_trial_whose_note_was_lost_gets_it_when_the_dashboard_opens(tmp_path):
    outcome = simulated_study(tmp_path, 3)
    with serving(outcome):
        ledger = Ledger(outcome.config, outcome.folder)
    assert ledger.unannotated(outcome.records) == []
    late = outcome.best.model_copy(update={"number": len(outcome.records)})
    ledger.catch_up([*outcome.records, late])
    assert ledger.unannotated([*outcome.records, late]) == [late]


def test_the_note_of_a_study_without_a_usable_trial_says_so(outcome):
    empty = Outcome(outcome.folder, outcome.config, (dead(outcome),), ())
    note = notes.study_note(empty)
    assert "No configuration could be used" in note
    assert "Nothing has been measured yet." in note


def test_the_note_of_a_trial_that_was_never_launched_says_so(outcome):
    ruled = dead(outcome).model_copy(update={"launched": False, "phases": ()})
    assert notes.trial_note(outcome, ruled).startswith("**Ruled out before a launch: ")
    assert notes.trial_facts(ruled)["launched"] is False


def test_the_note_of_a_trial_says_what_ran_otherwise_and_slower_than_asked(outcome):
    forced = EffectiveSetting(name="block_size", requested=32, effective=16, status=Status.OVERRIDDEN, by="MLA")
    slow = Degradation("moe_untuned", "Using default MoE config.", 7, False)
    facts = replace(outcome.best.facts, degradations=(slow,), compile_cache_hit=False)
    note = notes.trial_note(outcome, outcome.best.model_copy(update={"effective": (forced,), "facts": facts}))
    assert "| `block_size` | 32 | 16 | MLA |" in note
    assert "Slower than it could be: moe untuned." in note
    assert "A cold start" in note


def test_a_logs_fence_cannot_be_left(outcome):
    failure = dead(outcome).failure.model_copy(update={"line": "```\n# mine"})
    note = notes.trial_note(outcome, dead(outcome).model_copy(update={"failure": failure}))
    assert "````text\n``` # mine\n````" in note


def test_the_note_does_not_call_an_unconfirmed_best_proven(outcome):
    assert "has not been launched again" in notes.study_note(replace(outcome, relaunches=()))


_NOTE = "document.querySelectorAll('.MuiCard-root pre, .MuiCard-root table:not(.MuiTable-root)')"
_NOTE_FITS = f"""
[...{_NOTE}].every(part =>
    part.scrollWidth <= part.clientWidth
    && part.getBoundingClientRect().right <= part.closest('.MuiCard-root').getBoundingClientRect().right)
"""
"""What we write is nowhere wider than its card; how wide the dashboard's own list of trials is depends on the fonts."""


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@needs_chromium
@pytest.mark.parametrize(
    ("name", "path", "shows"),
    [
        ("study", "", "is better than the deployed configuration"),
        ("trial", "/trials?numbers={dead}", "Deciding line:"),
        ("best-trial", "/trials?numbers={best}", "requests.svg"),
        ("note", "/note", "Means over the relaunches"),
    ],
)
def test_its_pages_open_without_an_error_or_a_request_elsewhere(chromium, outcome, server, name, path, shows, tmp_path):
    url = server.url + path.format(dead=dead(outcome).number, best=outcome.best.number)
    with chromium.page(url, height=1900) as page:
        page.until(f"document.body.innerText.includes({json.dumps(shows)})")
        page.until("!document.querySelector('.js-plotly-plot') || document.querySelector('.js-plotly-plot .main-svg')")
        page.picture(pictures(tmp_path) / f"dashboard-{name}.png", whole=False)
        assert page.errors == []
        assert all(asked.startswith(("http://127.0.0.1:", "data:", "blob:")) for asked in page.requested)
        assert page.ask(f"{_NOTE}.length") or name == "study", "its note is on the page"
        assert page.ask(_NOTE_FITS)
