"""Real starts: the H100's logs in tests/data, and what servers on an H200 printed.

The H200 (139.8 GiB as torch sees it) ran vLLM 0.26.0 with weights at random, most of it with ``--enforce-eager``: 12
layers of GLM-4.7-Flash and of Qwen3-30B-A3B, and all of Qwen3-8B. Weights and peak of the profiling run are those of
its debug line "Memory profiling takes ...". The formulas for GLM were fixed before (they were 2 to 8 % low); those for
Qwen3's layers, and the second model runner, were mended after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from tests.present import present
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.log.facts import facts
from tuner.engines.vllm.memory.calibration import Calibration, ObservedStart
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.model.architecture import find
from tuner.space import Settings

H100 = Hardware("H100 80 GB", 1, 79.18, None, (9, 0), 132)
H200 = Hardware("H200", 1, 139.8, 139.29, (9, 0), 132)
RTX4090X2 = Hardware("2 x RTX 4090", 2, 23.99, 22.26, (8, 9), 128)
GLM, AWQ = "zai-org/GLM-4.7-Flash", "QuantTrio/GLM-4.7-Flash-AWQ"
SITE = {
    "tensor_parallel_size": 2,
    "enable_expert_parallel": True,
    "gpu_memory_utilization": 0.92,
    "max_model_len": 131072,
    "max_num_batched_tokens": 32768,
    "max_num_seqs": 64,
    "dtype": "half",
}
"""The first user's service."""


def model_of(name, layers=None):
    """A model of tuner's table, cut to so many layers."""
    return replace(present(find(name)), layers=layers) if layers else find(name)


def asked(args, hardware, version, model):
    """The demand of these flags."""
    return demand_of(Settings(args), hardware, release(version), model)


@dataclass(frozen=True)
class Run:
    """One of the H100's logs."""

    name: str
    layers: int
    args: Mapping[str, JsonValue]

    @property
    def model(self):
        return model_of(GLM, self.layers)

    def start(self, log):
        """What it asked for and what it said."""
        said = facts(log(f"vllm-0.26.0-h100-{self.name}.log"))
        return ObservedStart(asked(self.args, H100, said.engine_version, self.model), said)

    def predicted(self, log, starts=()):
        """What is predicted of it after other starts."""
        return Calibration(self.model, H100, starts).predict(self.start(log).demand)


_BASE = {"max_model_len": 8192, "max_num_seqs": 64}
RUNS = {
    "A_cold": Run("A_cold", 12, _BASE),
    "B_warm": Run("B_warm", 12, _BASE),
    "C_seqs8": Run("C_seqs8", 12, {**_BASE, "max_num_seqs": 8}),
    "E_full_cold": Run("E_full_cold", 47, {**_BASE, "gpu_memory_utilization": 0.92}),
}
FAILED = Run("F3_no_kv_blocks", 12, {"max_model_len": 8192, "gpu_memory_utilization": 0.15, "enforce_eager": True})


@dataclass(frozen=True)
class Seen:
    """One start on the H200: tokens, sequences, context; weights and peak in GiB, as printed."""

    model: str
    layers: int
    tokens: int
    seqs: int
    length: int
    weights_gib: float
    peak_gib: float
    eager: bool = True

    @property
    def demand(self):
        args = {"max_num_batched_tokens": self.tokens, "max_num_seqs": self.seqs, "max_model_len": self.length}
        return asked({**args, "enforce_eager": self.eager}, H200, "0.26.0", self.architecture)

    @property
    def architecture(self):
        return model_of(self.model, self.layers)


_MOE, _DENSE = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-8B"
H200_STARTS = (
    Seen(GLM, 12, 2048, 64, 8192, 14.41, 1.27),
    Seen(GLM, 12, 16384, 64, 8192, 14.41, 2.27),
    Seen(GLM, 12, 32768, 64, 32768, 14.41, 3.41),
    Seen(GLM, 12, 65536, 64, 8192, 14.41, 5.70),
    Seen(GLM, 12, 8192, 512, 8192, 14.41, 1.70),
    Seen(GLM, 12, 2048, 1024, 8192, 14.41, 2.27),
    Seen(GLM, 12, 8192, 64, 2048, 14.41, 0.88),
    Seen(GLM, 12, 8192, 16, 131072, 14.41, 1.70),
    Seen(GLM, 12, 32768, 64, 32768, 14.41, 3.16, eager=False),
    Seen(GLM, 12, 2048, 1024, 8192, 14.41, 2.27, eager=False),
    Seen(_MOE, 12, 32768, 64, 8192, 15.10, 3.25),
    Seen(_MOE, 12, 2048, 512, 8192, 15.10, 1.26),
    Seen(_DENSE, 36, 32768, 256, 8192, 15.27, 3.28),
    Seen(_DENSE, 36, 65536, 16, 8192, 15.27, 6.53),
    Seen(_DENSE, 36, 2048, 1024, 8192, 15.27, 0.35),
    Seen(_DENSE, 36, 8192, 256, 8192, 15.27, 0.78, eager=False),
)
