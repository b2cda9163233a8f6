"""A study over engines from its beginning to its verdict, on two simulated engines of which one is slower."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.fast import FAST
from tests.present import present
from tuner.contest.entrants import contest_of
from tuner.contest.loop import run_contest
from tuner.contest.outcome import ContestOutcome
from tuner.contest.telling import summary, text
from tuner.export.profile import Profile, ProfileEngine, ProfileStudy, ProfileVerdict, profiled, settings_of
from tuner.proof.decision import Decision, Kind
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.space import Candidate
from tuner.study import events
from tuner.testing.launcher import until

BOTH = [
    *FAST,
    "engines=[fast,slow]",
    "engines.fast.engine=sim",
    "engines.slow.engine=sim",
    # three times slower, whatever else it runs with
    "engines.slow.model.args.enforce_eager=true",
    "engines.slow.model.known_good=[]",
    "engines.slow.space=none",
    "study.name=both",
    "study.confirm=4",
    "budget.trials=13",
    "workload.concurrency=[1,5]",
    "host.judge=false",
]


class Heard:
    """Everything that was told, and of whose study."""

    def __init__(self):
        self.events = []

    @contextmanager
    def view(self, config):
        yield self.events.append

    @property
    def notes(self):
        return [event.text for event in self.events if isinstance(event, events.Noted)]


def asked(folder, *overrides):
    return contest_of([*BOTH, f"study.folder={folder}", *overrides])


def run(folder, *overrides):
    heard = Heard()
    return run_contest(asked(folder, *overrides), heard.view), heard


pytestmark = pytest.mark.timeout(240)
"""The first of them runs a whole study."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A whole one, run once."""
    return run(tmp_path_factory.mktemp("contest"))


def test_both_are_searched_in_turns_from_one_budget_and_the_faster_one_wins_at_each_level(compared):
    outcome, heard = compared
    assert outcome.over
    assert {share.name: share.launched for share in outcome.shares} == {"fast": 4, "slow": 1}
    begun = [note.partition(":")[0] for note in heard.notes if ": launch " in note]
    assert begun[:3] == ["fast", "slow", "fast"]
    assert [(each.level.name, each.kind, each.winner) for each in outcome.verdicts] == [
        ("users_1", Kind.BETTER, "fast"),
        ("users_5", Kind.BETTER, "fast"),
    ]
    assert not any(isinstance(event, events.StudyStarted) for event in heard.events)


def test_the_proof_launches_the_best_of_both_in_turns_on_prompts_that_neither_search_has_seen(compared):
    outcome, _ = compared
    studies = [record.study for record in outcome.counted]
    assert sorted(studies[:2]) == sorted(studies[2:4]) == ["both-fast", "both-slow"]
    seeds = [record.seed for record in outcome.counted]
    assert seeds[::2] == seeds[1::2]
    assert len(set(seeds)) == len(seeds) // 2
    assert all(record.proof for record in outcome.counted)


def test_the_table_answers_which_for_one_and_which_for_five_with_intervals(compared):
    outcome, _ = compared
    said = text(outcome)
    assert "For 1 user fast is better than slow: throughput +" in said
    assert "For 5 users fast is better than slow: throughput +" in said
    row = next(line for line in said.splitlines() if line.startswith("5 users"))
    assert row.count("[") == 3
    assert row.endswith("fast better")
    assert "| 5 users | throughput |" in text(outcome, "markdown")


def test_each_engine_is_an_ordinary_study(compared):
    outcome, _ = compared
    own = Outcome.of(outcome.outcomes["fast"].folder)
    assert len(own.launched) == 4
    assert own.best is not None


def test_the_command_line_shows_it_and_does_not_run_it_again(compared):
    outcome, _ = compared
    folder = outcome.folder.path.parent
    status = tuner("study", "status", "both", f"--folder={folder}")
    assert "For 5 users fast is better than slow" in status.stdout
    told = json.loads(tuner("study", "status", "both", f"--folder={folder}", "--json").stdout)
    assert [level["winner"] for level in told["levels"]] == ["fast", "fast"]
    assert told == json.loads(json.dumps(summary(outcome)))
    page = tuner("study", "report", "both", f"--folder={folder}").stdout.strip()
    assert "For 1 user fast is better" in Path(page).read_text()
    again = tuner("study", "start", *BOTH, f"study.folder={folder}")
    assert "complete" in again.stdout
    assert len(ContestOutcome.of(outcome.folder.path).relaunches) == len(outcome.relaunches)


def test_two_studies_are_compared_by_launching_their_winners_in_turns(compared):
    folder = compared[0].folder.path.parent
    ran = tuner("compare", "both-slow", "both-fast", f"--folder={folder}", "--most=1")
    assert "For 5 users it is not decided" in ran.stdout
    outcome = ContestOutcome.of(folder / "both-slow-against-both-fast")
    assert [record.study for record in outcome.counted].count("both-fast") == 1
    assert outcome.given_up == {}
    assert "complete" in tuner("compare", "both-slow", "both-fast", f"--folder={folder}").stdout


def profile(outcome, record, path):
    """A trial of a study as the profile of a winner; where it is."""
    settings = profiled(settings_of(outcome, Candidate(record.params)))
    study = ProfileStudy(
        name=outcome.config.study.name,
        tuner_version="0",
        hardware="any",
        objective="any",
        workload="any",
        trials=1,
        seed=1,
    )
    verdict = ProfileVerdict(
        kind=Kind.BETTER, deploy=True, sentence="", decision=Decision(kind=Kind.BETTER, launches=4, over=True)
    )
    made = Profile(
        engine=ProfileEngine(kind="sim", version=None),
        model=outcome.config.model.id,
        args=settings.args,
        env=settings.env,
        study=study,
        trial=record.number,
        verdict=verdict,
    )
    path.write_text(made.to_yaml())
    return path


def test_two_profiles_are_compared_as_their_files_say_and_not_as_their_studies_ended(compared, tmp_path):
    folder = compared[0].folder.path.parent
    fast, slow = (Outcome.of(StudyFolder(folder / f"both-{name}")) for name in ("fast", "slow"))
    best = present(slow.best)
    other = next(each for each in fast.searched if each.measurement and each.digest != present(fast.best).digest)
    first, second = profile(slow, best, tmp_path / "a.yaml"), profile(fast, other, tmp_path / "b.yaml")
    name = "both-slow-against-both-fast"
    shutil.rmtree(folder / name, ignore_errors=True)
    ran = tuner("compare", str(first), str(second), f"--folder={folder}", "--most=1")
    assert "For 5 users it is not decided" in ran.stdout
    launched = {record.study: record.digest for record in ContestOutcome.of(folder / name).counted}
    assert launched == {"both-slow": best.digest, "both-fast": other.digest}
    begun = refused("compare", "both-slow", "both-fast", f"--folder={folder}")
    assert "compares other configurations of these studies" in begun
    assert f"fix: remove it first: `tuner study rm {name}`" in begun
    second.write_text(second.read_text().replace("max_num_seqs:", "max_num_seqs: 7 #"))
    assert "no launch of both-fast had these settings" in refused(
        "compare", str(first), str(second), f"--folder={folder}"
    )
    assert "its study, both-slow, is not in" in refused("compare", str(first), str(second), f"--folder={tmp_path}")


def refused(*arguments):
    """What stands on the standard error of a command that refuses its input."""
    done = subprocess.run([sys.executable, "-m", "tuner", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_a_plan_shows_both_and_starts_nothing(tmp_path):
    plan = tuner("study", "start", *BOTH, f"study.folder={tmp_path}", "--dry-run").stdout
    assert "== fast" in plan
    assert "== slow" in plan
    assert "for 1 user and 5 users" in plan
    assert not list(tmp_path.iterdir())


def tuner(*arguments):
    command = [sys.executable, "-m", "tuner", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGKILL, "trials"), (signal.SIGINT, "confirm")])
def test_whatever_ends_it_the_same_command_resumes_and_nothing_measured_is_lost(tmp_path, state_dir, number, kind):
    quick = ["study.confirm=1", "budget.trials=6"]
    command = [sys.executable, "-m", "tuner", "study", "start", *BOTH, f"study.folder={tmp_path}", *quick]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    place = tmp_path / ("both-slow/trials/0000" if kind == "trials" else "both/confirm/0001")
    try:
        until(lambda: (place / "server.log").exists(), 100)
        until(servers, 10)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert "resumes" in output.decode()
    until(lambda: not servers(), 10)
    kept = {path: path.read_text() for path in tmp_path.glob("both*/*/*/record.json")}
    assert kept
    outcome, _ = run(tmp_path, *quick)
    assert outcome.over
    assert {path: path.read_text() for path in kept} == kept
    assert [share.launched for share in outcome.shares] == [3, 1]
    assert len(outcome.counted) == 2


def servers():
    """Those of this test."""
    own = os.environ["TUNER_STATE_DIR"]
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "environ"])
        if "tuner.sim" in " ".join(process.info["cmdline"] or [])
        and (process.info["environ"] or {}).get("TUNER_STATE_DIR") == own
    ]
