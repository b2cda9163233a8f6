"""A launcher is one module and a line in the registry."""

import pytest

from tests.fast import FAST
from tests.launchers.toy import ToyLauncherConfig
from tuner import composing
from tuner.errors import ConfigError
from tuner.launchers import registry
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import State
from tuner.study.loop import run_study


@pytest.fixture
def registered(monkeypatch):
    """The toy in the registry."""
    monkeypatch.setitem(registry.LAUNCHERS, "toy", ToyLauncherConfig)


def test_a_whole_study_runs_with_a_launcher_of_ones_own(registered, tmp_path):
    asked = composing.load([*FAST, "launcher.kind=toy", f"study.folder={tmp_path}"])
    outcome = run_study(asked, lambda event: None)
    assert [record.state for record in outcome.records] == [State.COMPLETE] * 3
    assert Outcome.of(StudyFolder(asked.study.path)).config.launcher == asked.launcher


def test_a_kind_that_is_not_in_the_registry_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"launcher\.kind: .*'process' or 'docker' or 'attach', but is 'toy'"):
        composing.load([*FAST, "launcher.kind=toy"])
