"""A running study reads its records once, and what it knows of them grows with them."""

import json
import random
from pathlib import Path

import pytest

from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.readings import Readings
from tuner.records.record import Role

RECORDED = Path(__file__).parents[1] / "data" / "recorded" / "f4b6e05" / "demo"


@pytest.fixture(scope="module")
def recorded():
    return Outcome.of(StudyFolder(RECORDED))


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "s")


def records(recorded, count):
    """Measured trials of old and new configurations in any order, as a search with controls makes them."""
    dice, measured = random.Random(0), [record for record in recorded.records if record.measurement]
    for number in range(count):
        record = dice.choice(measured) if number else recorded.baseline
        fresh = {"digest": f"{number}", "role": Role.SEARCH} if number and dice.random() < 0.6 else {}
        yield record.model_copy(update={"number": number, **fresh})


def test_what_was_saved_is_seen_while_the_study_is_locked(study, recorded):
    with study.locked():
        assert study.records() == []
        study.trial(0).save(recorded.baseline)
        assert study.records() == [recorded.baseline]
        study.trial(0).save(recorded.baseline.model_copy(update={"attempt": 2}))
        assert [record.attempt for record in study.records()] == [2]
        assert StudyFolder(study.path).records() == study.records(), "another process sees the same"


def test_records_are_read_once_while_the_study_is_locked(study, recorded):
    study.trial(0).save(recorded.baseline)
    with study.locked():
        (first,) = study.records()
        study.trial(1).save(recorded.baseline.model_copy(update={"number": 1}))
        assert study.records()[0] is first


def test_what_others_write_is_seen_once_the_study_is_not_locked_any_more(study, recorded):
    with study.locked():
        study.trial(0).save(recorded.baseline)
        assert len(study.records()) == 1
    path = study.trial(0).record
    path.write_text(json.dumps({**json.loads(path.read_text()), "attempt": 3}))
    assert [record.attempt for record in study.records()] == [3]


def test_a_look_at_what_has_not_changed_is_the_same_outcome(study, recorded):
    with study.locked():
        study.trial(0).save(recorded.baseline)
        outcome = Outcome(study, recorded.config, (), ()).now()
        assert outcome.now() is outcome


def test_outcomes_that_grow_say_what_one_that_is_read_anew_says(study, recorded):
    with study.locked():
        grown = Outcome(study, recorded.config, (), ())
        for record in records(recorded, 40):
            study.trial(record.number).save(record)
            grown = grown.now()
            anew = Outcome(study, recorded.config, grown.records, grown.relaunches)
            assert grown.best == anew.best
            assert [r.number for r in grown.ranked] == [r.number for r in anew.ranked]
            assert said(grown.readings) == said(anew.readings)


def said(readings: Readings):
    digests = {record.digest for record in readings.records}
    names = (*readings.objective.goals, *readings.objective.limits)
    levels = {(digest, name): readings.level(digest, name) for digest in digests for name in names}
    return levels, {digest: readings.kept(digest) for digest in digests}, {n: readings.scatter(n) for n in names}
