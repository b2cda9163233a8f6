"""llama.cpp passes the contract of engines, on logs of a real server (build 4227c9b, a CPU)."""

import pytest

from tuner.engines.llamacpp.kind import LLAMACPP
from tuner.space import Settings
from tuner.testing.engine import EngineContract


class TestLlamaCpp(EngineContract):
    @pytest.fixture
    def kind(self):
        return LLAMACPP

    @pytest.fixture
    def settings(self):
        return Settings(
            {"parallel": 4, "cache_type_k": "q8_0", "flash_attn": True, "mmap": False, "cont_batching": False},
            {"LLAMA_ARG_POLL": "0"},
        )

    @pytest.fixture
    def served(self, log):
        return log("llamacpp-4227c9b-cpu-ok.log")

    @pytest.fixture
    def failed(self, log):
        return log("llamacpp-4227c9b-cpu-quantized_v.log")
