"""A new service is asked what the old one was asked before it was stopped."""

import json

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
    """A service, and one that breaks off the arguments of some calls."""
    logs = tmp_path_factory.mktemp("services")
    settings = ("--tensor-parallel-size", "2", "--max-model-len", "16384", "--max-num-seqs", "32")
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "glm47")
    argv = (*SIM, *settings, *tools, "--sim-clock-startup", "300", "--sim-clock-serving", "100")
    sound = LaunchSpec("sound/0000", argv, logs / "sound.log", stop_grace_s=1)
    broken = LaunchSpec("broken/0000", (*argv, "--sim-fault", "corrupt-tools=10"), logs / "broken.log", stop_grace_s=1)
    with ProcessLauncher().launch(sound) as a, ProcessLauncher().launch(broken) as b:
        answer(a), answer(b)
        yield tuple(RunningService("none", each.url, {}, whole_log=False) for each in (a, b))


@pytest.mark.timeout(120)
def test_a_new_service_that_answers_less_rightly_is_not_kept(services, tmp_path):
    said: list[str] = []
    quality = composing.load(["experiment=demo", "quality=basic"]).quality
    examiner, (sound, broken) = Examiner(quality, tmp_path / "m", said.append), services
    old, new = examiner.asked(sound, MODEL, "old"), examiner.asked(broken, MODEL, "new")
    kept = json.loads((tmp_path / "m/answers-old.json").read_text())
    assert len(kept["completions"]) == len(present(old).completions) == len(quality.asks())
    with pytest.raises(MeasurementError, match=r"answers less rightly: tool calls .* the arguments are no JSON"):
        examiner.check(old, new)
    examiner.check(old, examiner.asked(sound, MODEL, "new"))
    assert said[-1] == "it answers as rightly as the old service"


def test_without_questions_nobody_is_asked(services, tmp_path):
    said: list[str] = []
    examiner = Examiner(Quality(), tmp_path, said.append)
    assert examiner.asked(services[0], MODEL, "old") is None
    examiner.check(None, None)
    assert said == []
