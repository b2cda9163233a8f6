"""Every engine passes the shipped contract; also one that is a short module and a line in the registry."""

import pytest

from tests.engines.toy import TOY
from tests.fast import FAST
from tuner import composing
from tuner.engines import registry
from tuner.engines.vllm.kind import VLLM
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.space import Settings
from tuner.study.loop import run_study
from tuner.testing.engine import EngineContract


@pytest.fixture
def registered(monkeypatch):
    """The toy in the registry."""
    monkeypatch.setitem(registry.ENGINES, "toy", TOY)


class TestVllm(EngineContract):
    version = "0.32.0"

    @pytest.fixture
    def kind(self):
        return VLLM

    @pytest.fixture
    def settings(self):
        return Settings(
            {"max_num_seqs": 64, "kv_cache_dtype": "fp8", "enforce_eager": True, "enable_prefix_caching": False},
            {"OMP_NUM_THREADS": "4"},
        )

    @pytest.fixture
    def served(self, log):
        return log("vllm-0.26.0-h100-A_cold.log")

    @pytest.fixture
    def failed(self, log):
        return log("vllm-0.26.0-h100-F3_no_kv_blocks.log")


class TestToy(EngineContract):
    @pytest.fixture
    def kind(self, registered):
        return TOY

    @pytest.fixture
    def settings(self):
        return Settings({"slots": 4, "mode": "fast", "eager": True, "cache": False}, {"TOY_THREADS": "4"})

    @pytest.fixture
    def served(self):
        return ["toy: loading", "toy: ready"]

    @pytest.fixture
    def failed(self):
        return ["toy: loading", "toy: no room for 4 slots"]


STUDY = [
    *FAST,
    "engine.kind=toy",
    "study.name=toy",
    "space=none",
    # with 0.96 of the GPU the simulated server fails, which only a launch can tell a toy
    "space.params.gpu_memory_utilization={choices: [0.92, 0.9, 0.96]}",
]


def test_an_engine_of_which_nothing_is_known_beforehand_is_tuned(registered, tmp_path):
    asked = composing.load([*STUDY, f"study.folder={tmp_path}"])
    outcome = run_study(asked, lambda event: None)
    first, *others = outcome.records
    assert first.measurement
    assert {record.params["gpu_memory_utilization"] for record in others} == {0.9, 0.96}
    assert "--enable-auto-tool-choice" in first.argv
    assert any(word.startswith("--gpu-memory-utilization=") for word in first.argv)
    assert all(record.launched and record.forecast is None for record in outcome.records)
    assert {record.failure.cause for record in outcome.records if record.failure} == {"cuda_oom"}
    assert Outcome.of(StudyFolder(asked.study.path)).config.engine == asked.engine
