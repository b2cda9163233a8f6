"""The study in studies/recorded: a real GPU's trials are still read, and still foreseen."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.vllm.real import GLM, model_of
from tuner.outcome import Outcome
from tuner.preflight import Preflight, ground_of
from tuner.space import Candidate
from tuner.storage import StudyFolder
from tuner.workbench import make_engine

H200 = Path(__file__).parents[1] / "studies" / "recorded" / "h200"
GPU = {"total_gib": 139.8, "compute_capability": "9.0", "multiprocessors": 132}


@pytest.fixture(scope="module")
def outcome():
    return Outcome.of(StudyFolder(H200))


@pytest.fixture(scope="module")
def known(outcome):
    """What the records teach, on a machine that has no such GPU and not this model's files."""
    hardware = outcome.config.hardware.model_copy(
        update={"gpus": (), "simulated": {"count": 1}, "gpu": type(outcome.config.hardware.gpu).model_validate(GPU)}
    )
    engine = outcome.config.engine.model_copy(update={"version": "0.26.0"})
    config = outcome.config.model_copy(update={"hardware": hardware, "engine": engine})
    ground = replace(ground_of(config, make_engine(config)), model=model_of(GLM, 12))
    return lambda records: Preflight(ground, ()).after(records)


def test_it_is_read(outcome):
    assert len(outcome.launched) == 9
    assert outcome.best == outcome.baseline
    assert "has not been beaten" in outcome.sentence


def test_no_trial_that_ran_is_ruled_out(outcome, known):
    for number, record in enumerate(outcome.records):
        assert known(outcome.records[:number]).check(Candidate(record.params)) is None


def test_its_kv_cache_is_foreseen(outcome, known):
    """Within 1 % by the formulas alone, as the issue's 3 % asks; later ones within 0.8 %, most of them within 0.2 %."""
    errors = []
    for number, record in enumerate(outcome.records):
        forecast = known(outcome.records[:number]).forecast(Candidate(record.params))
        errors.append(abs(forecast.kv_tokens / record.facts.kv_tokens - 1))
    assert errors[0] < 0.01
    assert max(errors[1:]) < 0.008
    assert sorted(errors[1:])[5] < 0.002
