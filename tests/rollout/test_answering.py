"""A new service is asked what the old one was asked before it was stopped."""

import json
from dataclasses import replace

import pytest

from tests.present import present
from tests.test_bench import SIM
from tuner import composing
from tuner.errors import MeasurementError
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.composed import RunningService
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.quality.cases import Quality
from tuner.rollout.answering import Examiner
from tuner.testing.launcher import answer

MODEL = "QuantTrio/GLM-4.7-Flash-AWQ"


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """A service, one that breaks off the arguments of some calls, and one that drifts."""
    logs = tmp_path_factory.mktemp("services")
    settings = ("--tensor-parallel-size", "2", "--max-model-len", "16384", "--max-num-seqs", "32")
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "glm47")
    argv = (*SIM, *settings, *tools, "--sim-clock-startup", "300", "--sim-clock-serving", "100")
    sound = LaunchSpec("sound/0000", argv, logs / "sound.log", stop_grace_s=1)
    broken = LaunchSpec("broken/0000", (*argv, "--sim-fault", "corrupt-tools=10"), logs / "broken.log", stop_grace_s=1)
    drifting = LaunchSpec("drifting/0000", (*argv, "--sim-fault", "drift=150"), logs / "drifting.log", stop_grace_s=1)
    launch = ProcessLauncher().launch
    with launch(sound) as a, launch(broken) as b, launch(drifting) as c:
        answer(a), answer(b), answer(c)
        yield tuple(RunningService("none", each.url, {}, whole_log=False) for each in (a, b, c))


@pytest.mark.timeout(120)
def test_a_new_service_that_answers_less_rightly_is_not_kept(services, tmp_path):
    said: list[str] = []
    quality = composing.load(["experiment=demo", "quality=basic"]).quality
    examiner, (sound, broken, _) = Examiner(quality, tmp_path / "m", said.append), services
    old, new = examiner.old(sound, MODEL), examiner.new(broken, MODEL)
    kept = json.loads((tmp_path / "m/answers-old.json").read_text())
    assert len(kept["completions"]) == len(present(old).first.completions) == len(quality.asks())
    assert len(json.loads((tmp_path / "m/answers-old-again.json").read_text())["completions"]) == len(quality.asks())
    with pytest.raises(MeasurementError, match=r"answers less rightly: tool calls .* the arguments are no JSON"):
        examiner.check(old, new)
    examiner.check(old, examiner.new(sound, MODEL))
    assert said[-1] == "it answers as rightly as the old service"


@pytest.mark.timeout(120)
def test_one_that_drifts_is_told_and_refused_only_where_that_is_asked_for(services, tmp_path):
    said: list[str] = []
    strict = composing.load(["experiment=demo", "quality=basic", "quality.drift_refuses=true"]).quality
    untooled = {name: case for name, case in strict.cases.items() if not case.tools}
    strict = strict.model_copy(update={"cases": untooled})
    examiner, (sound, _, drifting) = Examiner(strict, tmp_path / "m", said.append), services
    old, new = examiner.old(sound, MODEL), examiner.new(drifting, MODEL)
    with pytest.raises(MeasurementError, match="its log probabilities drift"):
        examiner.check(old, new)
    replace(examiner, quality=strict.model_copy(update={"drift_refuses": False})).check(old, new)
    assert said[-1] == "it answers as rightly as the old service"
    assert any(line.startswith("log probabilities: ") and "they drift" in line for line in said[-5:])
    assert any(line.startswith("same text: ") for line in said)


def test_without_questions_nobody_is_asked(services, tmp_path):
    said: list[str] = []
    examiner = Examiner(Quality(), tmp_path, said.append)
    assert examiner.old(services[0], MODEL) is None
    examiner.check(None, None)
    assert said == []
