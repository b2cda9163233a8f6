"""A running study as it is followed: live in a terminal, in plain lines, as JSON."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from tests.fast import FAST
from tests.simulated import simulated_study
from tuner.engines.base import Phase
from tuner.load.plan import Skipped
from tuner.records.bottleneck import BindingLimit, Bottleneck
from tuner.records.expected import check_of
from tuner.records.record import Role, State
from tuner.search.base import Expectation
from tuner.study import events
from tuner.study.pace import Pace, left_s
from tuner.terminal import live


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 12)


def told(outcome, records=None):
    """The events of a run, as a study tells them."""
    shown = outcome.records if records is None else records
    yield events.StudyStarted("demo", 12, 0, 4)
    for count, record in enumerate(shown):
        pace = Pace.of(shown[:count])
        changed = "max_num_seqs=8" if count else ""
        yield events.TrialStarted(record.number, record.role, changed, record.attempt, pace, 600.0 if count else None)
        for span in record.phases:
            yield events.PhaseEntered(span.phase, pace.phases.get(span.phase))
        best = replace(outcome, records=tuple(shown[: count + 1]), relaunches=()).best
        yield events.TrialEnded(record, best, 500.0)


def plain(outcome, heard):
    out = io.StringIO()
    console = Console(file=out, width=200)
    with live.view(outcome.config, console, as_json=False) as listener:
        for event in heard:
            listener(event)
    return out.getvalue().splitlines()


def drawn(outcome, heard, width=110):
    """What the live view shows after these events."""
    view = live.LiveView(live.Standing(outcome.config), Console(file=io.StringIO(), width=width))
    with view:
        for event in heard:
            view.hear(event)
        return render(view, width)


def render(view, width=110):
    out = io.StringIO()
    Console(file=out, width=width).print(view._draw())
    return out.getvalue()


def until_phase(outcome, number, phase):
    """The events until a trial enters a phase."""
    for event in told(outcome):
        yield event
        if isinstance(event, events.TrialStarted):
            running = event.number
        if isinstance(event, events.PhaseEntered) and (running, event.phase) == (number, phase):
            return


def test_plain_lines_tell_of_every_trial_when_it_starts_and_when_it_ends(outcome):
    lines = plain(outcome, told(outcome))
    for record in outcome.records:
        assert sum(line.startswith(f"trial {record.number} (") for line in lines) == 1
        assert sum(line.startswith(f"trial {record.number}: ") for line in lines) == 1
    assert not any("\x1b" in line for line in lines)


def expecting(outcome):
    """The events of one measured trial of which the search expected a quarter more than it read."""
    record = next(record for record in outcome.records if record.measurement and record.role is Role.SEARCH)
    read_per_s = record.measurement.output_tokens_per_s
    expected = Expectation(why="explore", value=1.25 * read_per_s, low=1.1 * read_per_s, high=1.4 * read_per_s)
    record, found = (
        record.model_copy(update={"expected": expected}),
        Bottleneck(BindingLimit.SEQUENCES, "2.0 waited", 0.14),
    )
    check = check_of(record, "output_tokens_per_s")
    yield events.TrialStarted(record.number, record.role, "max_num_seqs=8", 1, expected=expected)
    yield events.PhaseEntered(Phase.STARTING)
    yield events.TrialEnded(record, None, None, check, found)


def test_plain_lines_say_what_was_expected_how_wrong_that_was_and_which_limit_binds(outcome):
    started, ended, afterwards = plain(outcome, expecting(outcome))[:3]
    assert re.search(r"max_num_seqs=8; explore, \d+ tokens/s \[\d+ tokens/s, \d+ tokens/s\] expected$", started), (
        started
    )
    assert "/s" in ended
    assert afterwards == (
        "−20.0% against what was expected, outside its interval; sequences binds (2.0 waited); "
        "14% of what this memory bandwidth allows"
    )


def test_the_view_says_why_the_running_trial_is_asked_for_and_how_far_off_the_last_one_was(outcome):
    heard = list(expecting(outcome))
    assert "starting, 0 s; explore, " in drawn(outcome, heard[:2], width=160)
    assert "−20.0%" in drawn(outcome, heard)


def test_json_says_what_was_expected_how_wrong_that_was_and_which_limit_binds(outcome, capsys):
    with live.view(outcome.config, Console(file=io.StringIO()), as_json=True) as listener:
        for event in expecting(outcome):
            listener(event)
    started, _, ended = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert started["expected"] == ended["expected"]
    assert started["expected"]["why"] == "explore"
    assert ended["error"] == pytest.approx(-0.2)
    assert (ended["binds"], ended["bandwidth_share"]) == ("sequences", 0.14)


def test_plain_lines_say_once_what_the_measurements_leave_out_and_doubt(outcome):
    first, *rest = outcome.records
    doubted = first.measurement.model_copy(update={"warnings": ("answers arrive in lumps",)})
    left_out = (Skipped("ttft_30000", "too long"), Skipped("warm_up_50000", "too long"))
    first = first.model_copy(update={"measurement": doubted, "skipped": left_out})
    lines = plain(outcome, told(outcome, [first, *rest]))
    assert lines.count("not measured: ttft_30000: too long") == 1
    assert lines.count("warning: answers arrive in lumps") == 1
    assert not [line for line in lines if "warm_up_50000" in line]


def test_plain_lines_give_a_failures_cause_in_plain_words(outcome):
    dead = next(record for record in outcome.records if record.failure)
    (line,) = (line for line in plain(outcome, told(outcome)) if line.startswith(f"trial {dead.number}: "))
    assert "cannot run: asks for more GPU memory than is free, after" in line


def test_plain_lines_say_when_there_is_a_new_best_and_how_far_it_is_ahead(outcome):
    ahead = [line for line in plain(outcome, told(outcome)) if line.startswith("best so far")]
    assert ahead[0].startswith("best so far: the deployed configuration, ")
    assert f"trial {outcome.best.number}" in ahead[-1]
    assert "% against the deployed configuration at first sight" in ahead[-1]


def test_plain_lines_repeat_a_download_no_more_often_than_it_is_worth(outcome):
    heard = [events.Preparing(f"image: {n}%") for n in range(50)]
    assert len(plain(outcome, heard)) == 1


def test_the_view_shows_trial_phase_elapsed_and_expected_time(outcome):
    shown = drawn(outcome, until_phase(outcome, 3, Phase.COMPILING))
    expected = Pace.of(outcome.records[:3]).phases[Phase.COMPILING]
    assert f"trial 3 (search): compiling, 0 s of about {round(expected)} s" in shown


def test_the_first_trial_has_no_expectations_yet(outcome):
    shown = drawn(outcome, until_phase(outcome, 0, Phase.LOADING_WEIGHTS))
    assert "trial 0 (baseline): loading weights, 0 s" in shown
    assert "of about" not in shown
    assert "best so far: none yet" in shown


def test_the_view_shows_recent_trials_with_causes_and_gains(outcome):
    shown = drawn(outcome, told(outcome))
    recent, early = outcome.records[-8:], outcome.records[:-8]
    rows = [line.split()[0] for line in shown.splitlines()[1:9]]
    assert rows == [str(record.number) for record in recent]
    assert early[-1].number not in [int(row) for row in rows]
    assert "cannot run: asks for more GPU memory than is free" in shown
    assert "12 of 12 trials" in shown


def test_time_left_counts_the_running_trials_phases_and_what_comes_after(outcome):
    view = live.LiveView(live.Standing(outcome.config), Console(file=io.StringIO()))
    pace = Pace(phases={Phase.STARTING: 5.0, Phase.MEASURING: 20.0}, shares={Phase.STARTING: 1.0, Phase.MEASURING: 0.5})
    with view:
        view.hear(events.StudyStarted("demo", 12, 0, 4))
        view.hear(events.TrialStarted(0, Role.SEARCH, "", 1, pace, left_after_s=100.0))
        view.hear(events.PhaseEntered(Phase.STARTING))
        assert view._left_s() == pytest.approx(5 + 0.5 * 20 + 100, abs=0.5)
        view.hear(events.PhaseEntered(Phase.MEASURING))
        assert view._left_s() == pytest.approx(20 + 100, abs=0.5)


def test_a_resumed_study_shows_what_earlier_runs_found(outcome):
    earlier = outcome.records[:5]
    best = replace(outcome, records=earlier, relaunches=()).best
    heard = [events.StudyStarted("demo", 12, 5, 4, earlier, best)]
    assert plain(outcome, heard) == [
        "study demo: 12 trials, 5 of them finished earlier, of which up to 4 for the proof"
    ]
    shown = drawn(outcome, heard)
    assert "5 of 12 trials" in shown
    assert f"best so far: trial {best.number}" in shown or "the deployed configuration" in shown


def test_relaunches_are_told_from_trials(outcome):
    heard = [*told(outcome), *list(told(outcome, outcome.relaunches))[1:]]
    lines = plain(outcome, heard)
    assert any(line.startswith("relaunch 0 (baseline again): ") for line in lines)
    assert any(line.startswith("relaunch 1: ") for line in lines)
    assert "↻ 3" in drawn(outcome, heard)


def test_what_was_ruled_out_or_failed_does_not_count_as_a_trial(outcome):
    dead = next(record for record in outcome.records if record.failure)
    ruled = dead.model_copy(update={"launched": False, "phases": ()})
    failed = dead.model_copy(update={"state": State.FAILED})
    lines = plain(outcome, told(outcome, [outcome.records[0], ruled]))
    assert any(line.startswith(f"trial {dead.number}: ruled out: asks for more") for line in lines)
    assert "1 of 12 trials" in drawn(outcome, told(outcome, [outcome.records[0], ruled, failed]))


def test_the_view_fits_a_narrow_terminal(outcome):
    assert max(map(len, drawn(outcome, told(outcome), width=60).splitlines())) <= 60


def test_json_has_one_event_a_line_without_the_terminals_colours(outcome, capsys):
    with live.view(outcome.config, Console(file=io.StringIO()), as_json=True) as listener:
        for event in (*told(outcome), events.Noted("a note"), events.Preparing("an image")):
            listener(event)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds[0] == "StudyStarted"
    assert kinds[-2:] == ["Noted", "Preparing"]
    assert kinds.count("TrialStarted") == kinds.count("TrialEnded") == len(outcome.records)
    ended = [line for line in lines if line["event"] == "TrialEnded"]
    dead = next(record for record in outcome.records if record.failure)
    assert ended[dead.number]["cause"] == dead.failure.cause
    assert ended[dead.number]["values"] is None


def test_pace_counts_phases_as_often_as_they_are_reached(outcome):
    dead = sum(record.failure is not None for record in outcome.records)
    pace = Pace.of(outcome.records)
    assert pace.shares[Phase.STARTING] == 1
    assert pace.shares[Phase.MEASURING] == pytest.approx(1 - dead / len(outcome.records))
    mean_s = sum(record.seconds for record in outcome.records) / len(outcome.records)
    assert pace.launch_s == pytest.approx(mean_s, rel=0.25)


def test_a_relaunch_screens_nothing():
    phases = {Phase.STARTING: 40.0, Phase.MEASURING: 20.0, Phase.SCREENING: 180.0, Phase.SOAKING: 300.0}
    pace = Pace(phases, {Phase.STARTING: 1.0, Phase.MEASURING: 1.0, Phase.SCREENING: 0.5, Phase.SOAKING: 0.1})
    assert (pace.launch_s, pace.relaunch_s) == (150.0, 60.0)


def test_nothing_is_expected_before_the_first_launch():
    assert Pace.of(()).launch_s is None
    assert Pace.of(()).left_s(Phase.STARTING, 3.0) is None


def test_a_finished_study_has_nothing_left(outcome):
    assert left_s(outcome) == 0


def test_ctrl_c_in_a_terminal_shows_where_things_stand_and_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "tuner", "study", "start", *FAST, f"study.folder={tmp_path}", "budget.trials=9"]
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    said = _read_until(keyboard, b"of 9 trials, about")
    process.send_signal(signal.SIGINT)
    said += _read_until(keyboard, None)
    os.close(keyboard)
    assert process.wait(20) == 130
    text = said.decode()
    assert "study fast: 9 trials" in text
    assert "deployed" in text[text.rindex("study fast") :]
    assert "resumes" in text


def _read_until(keyboard, wanted, patience_s=60):
    """Everything the program writes, until it has written this, or has ended."""
    said, deadline = b"", time.monotonic() + patience_s
    with suppress(OSError):  # the other side of a terminal that is closed
        while time.monotonic() < deadline and (chunk := os.read(keyboard, 4096)):
            said += chunk
            if wanted and wanted in said:
                break
    return said
