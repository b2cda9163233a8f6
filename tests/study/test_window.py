"""One run of a study ends by a time of day, with what it had stopped serving again by then."""

import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from tests.fast import FAST
from tests.records.test_recorded import recorded
from tuner import composing
from tuner.config import Budget, SiteConfig
from tuner.engines.base import Phase
from tuner.errors import ConfigError
from tuner.records.record import PhaseSpan, Role
from tuner.study import events
from tuner.study.loop import run_study
from tuner.study.window import RunWindow, WindowClosed

NIGHT = datetime(2026, 11, 30, 23, 0, tzinfo=timezone(timedelta(hours=1)))


def window(until, now, **site):
    return RunWindow.of(Budget(until=until), SiteConfig(**site), now)


@pytest.fixture(scope="module")
def outcome():
    """Nine launches on an H200, the slowest of 311 seconds."""
    return recorded("h200")


@pytest.mark.parametrize(("until", "hours"), [("06:00", 7), ("23:30", 0.5), ("23:00", 24), ("5:30", 6.5)])
def test_it_is_the_next_time_that_the_clock_says_so(until, hours):
    found = window(until, NIGHT)
    assert found.closes_s - found.began_s == pytest.approx(hours * 3600)


def test_no_launch_begins_that_would_not_end_in_time(outcome):
    slowest_s = max(record.seconds for record in outcome.launched)
    before = NIGHT.replace(hour=6) - timedelta(seconds=slowest_s)
    assert window("06:00", before - timedelta(seconds=5)).too_short(outcome) is None
    why = window("06:00", before + timedelta(seconds=5)).too_short(outcome)
    assert why == "until 06:00 there is no time for another launch"


def test_screening_is_left_out_before_a_launch_is():
    outcome = recorded("h200-47")
    whole_s, bare_s = (max(map(of, outcome.launched)) for of in (lambda r: r.seconds, lambda r: r.launch_s))
    assert whole_s - bare_s > 120  # eight settings were screened in the slowest
    between = NIGHT.replace(hour=6) - timedelta(seconds=(whole_s + bare_s) / 2)
    found = window("06:00", between)
    assert found.too_short(outcome) is None
    assert found.too_short_to_screen(outcome)


def test_a_soak_is_not_expected_of_every_launch(outcome):
    longest = outcome.records[0]
    phases = (*longest.phases, PhaseSpan(Phase.SOAKING, 3600.0))
    soaked = longest.model_copy(update={"phases": phases, "role": Role.SOAK})
    after = replace(outcome, relaunches=(soaked,))
    found = window("06:00", NIGHT.replace(hour=6) - timedelta(seconds=600))
    assert found.too_short(after) is None
    assert not found.too_short_to_screen(after)
    assert found.too_short(after, longer_s=600) is not None


def test_the_services_have_half_as_long_again_as_the_slowest_start_to_serve_again(outcome):
    slowest_s = max(record.seconds for record in outcome.launched)
    first = outcome.records[0]
    first = first.model_copy(update={"measurement": first.measurement.model_copy(update={"startup_s": 90.0})})
    outcome = replace(outcome, records=(first, *outcome.records[1:]))
    before = NIGHT.replace(hour=6) - timedelta(seconds=slowest_s + 1.5 * 90)
    assert window("06:00", before - timedelta(seconds=5), stop=("glm",)).too_short(outcome) is None
    why = window("06:00", before + timedelta(seconds=5), stop=("glm",)).too_short(outcome)
    assert why == "until 06:00 there is no time for another launch, with glm serving again by then"


def test_a_launch_that_takes_longer_than_all_others_is_ended_when_its_time_is_over(outcome):
    almost = NIGHT.replace(hour=6) - timedelta(seconds=0.3)
    began_s = time.monotonic()
    with pytest.raises(WindowClosed), window("06:00", almost).launch(outcome):
        time.sleep(60)
    assert time.monotonic() - began_s < 30


def test_ctrl_c_in_the_window_is_ctrl_c(outcome):
    with pytest.raises(KeyboardInterrupt), window("06:00", NIGHT).launch(outcome):
        raise KeyboardInterrupt


@pytest.mark.parametrize("until", ["24:00", "6", "06:60", "6 o'clock"])
def test_what_is_no_time_of_day_is_refused(until, tmp_path):
    with pytest.raises(ConfigError, match=r"budget\.until"):
        composing.load([*FAST, f"study.folder={tmp_path}", f"budget.until='{until}'"])


@pytest.mark.timeout(150)
def test_a_study_whose_time_is_over_says_how_to_go_on_and_leaves_nothing_behind(tmp_path):
    soon = datetime.now().astimezone() + timedelta(seconds=5)
    until = (soon.replace(second=0) + timedelta(minutes=1)).strftime("%H:%M")
    slow = "engine.launch_args.sim_clock_startup=0.3"  # its first launch does not serve by then
    heard: list[events.Event] = []
    asked = composing.load([*FAST, f"study.folder={tmp_path}", f"budget.until='{until}'", slow])
    outcome = run_study(asked, heard.append)
    assert datetime.now().astimezone() < soon + timedelta(seconds=90)
    assert not outcome.launched
    (told,) = [event.text for event in heard if isinstance(event, events.Noted) and "resumes" in event.text]
    assert told == f"it is time: the launch under way would not have ended by {until}: the same command resumes fast"
