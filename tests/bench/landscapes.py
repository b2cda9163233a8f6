"""Landscapes whose truth is known: what a configuration is worth without noise, and which die."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tests.present import present
from tuner.testing.proof import Died

SPACE = {
    "params": {
        "max_num_batched_tokens": {"low": 2048, "high": 65536, "scale": "pow2"},
        "max_num_seqs": {"low": 4, "high": 512, "scale": "pow2"},
        "block_size": {"choices": [16, 32, 64], "default": 16},
        "gpu_memory_utilization": {"low": 0.80, "high": 0.96, "step": 0.01},
        "compile_sizes": {
            "flag": "compilation_config.compile_sizes",
            "choices": [None, [1, 2, 4, 8], [1, 2, 4, 8, 16, 32]],
        },
        "enable_expert_parallel": {"choices": [True, False], "default": False},
        "enable_prefix_caching": {"choices": [True, False], "default": True},
        "async_scheduling": {"choices": [True, False], "default": False},
        "OMP_NUM_THREADS": {"choices": [1, 2, 4, 8], "default": 1},
        "VLLM_FLOAT32_MATMUL_PRECISION": {"choices": ["highest", "high", "medium"], "default": "highest"},
        "enforce_eager": {"choices": [True, False], "default": False},
    },
    "rules": {"tokens_cover_sequences": "max_num_batched_tokens >= max_num_seqs"},
}
DEPLOYED = {
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 16,
    "block_size": 16,
    "gpu_memory_utilization": 0.90,
    "compile_sizes": None,
    "enable_expert_parallel": False,
    "enable_prefix_caching": True,
    "async_scheduling": False,
    "OMP_NUM_THREADS": 1,
    "VLLM_FLOAT32_MATMUL_PRECISION": "highest",
    "enforce_eager": False,
}


@dataclass
class Hill:
    """Throughput that saturates with the batch, a latency that grows with it, and a memory that ends.

    Attributes:
        users: Sequences beyond which more do nothing.
        tokens: Where the token budget is best, as a power of two.
        expert: What expert parallel changes, in logs.
        compiled: What compile sizes change.
        crossed: Whether expert parallel turns its sign with large batches.
        noise: Standard deviation of a launch's log.
    """

    users: float = 64
    tokens: float = 14
    expert: float = 0.10
    compiled: float = 0.22
    crossed: bool = False
    noise: float = 0.03
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    deployed: dict[str, Any] = field(default_factory=lambda: DEPLOYED)
    goals: dict[str, Any] = field(default_factory=lambda: {"output_tokens_per_s": "maximize"})
    limits: dict[str, Any] = field(default_factory=lambda: {"ttft_p50_ms": {"max": 1.25, "of": "baseline"}})

    def truth(self, params):
        """Goal and limited metric without noise; raises ``Died``."""
        self._memory(params, math.log2(params["max_num_batched_tokens"]), math.log2(params["max_num_seqs"]))
        return self._served(params)

    def _served(self, params):
        tokens, seqs = math.log2(params["max_num_batched_tokens"]), math.log2(params["max_num_seqs"])
        eager = params["enforce_eager"]
        speed = 5.0 + 0.2 * min(seqs, math.log2(self.users)) - 0.02 * max(0.0, seqs - math.log2(self.users)) ** 2
        speed -= 0.025 * (tokens - self.tokens) ** 2
        sizes = params.get("compile_sizes")
        speed += 0.0 if eager or sizes is None else self.compiled if len(sizes) > 4 else 0.8 * self.compiled
        sign = -1 if self.crossed and seqs < 6 else 1
        speed += sign * self.expert if params["enable_expert_parallel"] else 0.0
        speed += 0.06 if params["async_scheduling"] else 0.0
        speed -= 0.12 if not params["enable_prefix_caching"] else 0.0
        speed -= 0.03 * math.log2(params["OMP_NUM_THREADS"])
        speed -= 1.6 if eager else 0.0
        first = 5.5 + 0.05 * max(0.0, seqs - 4) + 0.06 * max(0.0, tokens - 12) + (0.9 if eager else 0.0)
        first -= 0.1 if sizes else 0.0
        return {"output_tokens_per_s": math.exp(speed), "ttft_p50_ms": math.exp(first)}

    def _memory(self, params, tokens, seqs):
        share = 24 * params["gpu_memory_utilization"]
        left = (
            share - 17.0 - 0.35 * 2 ** (tokens - 13) - 0.15 * 2 ** (seqs - 7) + (0.4 if params["enforce_eager"] else 0)
        )
        if left < 0.6 or (params["gpu_memory_utilization"] > 0.945 and seqs > 6):
            raise Died("cuda_oom")

    def evaluate(self, params, rng):
        """One launch."""
        return {name: value * math.exp(self.noise * rng.normal()) for name, value in self.truth(params).items()}

    def seconds(self, params, earlier):
        """A recompilation costs another minute."""
        same = any(one.get("compile_sizes") == params.get("compile_sizes") for one in earlier)
        return 70.0 if same else 130.0


@dataclass
class LiveHill(Hill):
    """A hill whose servers can change sequences and token budget while they run, and read a little high then.

    Attributes:
        live: What can be changed.
        screen_seconds: What a setting costs.
        bias: Log by which a reading is too high for each halving of the sequences, at most two of them.
    """

    live: tuple[str, ...] = ("max_num_seqs", "max_num_batched_tokens")
    screen_seconds: float = 10.0
    bias: float = 0.04

    def screen(self, params, setting, rng):
        """A setting in the running server of a launch, noisier than a launch."""
        assert all(setting[name] <= params[name] for name in setting)
        halvings = min(2.0, math.log2(params["max_num_seqs"] / setting["max_num_seqs"]))
        served = self._served({**params, **setting})
        noise = 1.5 * self.noise * rng.normal()
        return {
            "output_tokens_per_s": served["output_tokens_per_s"] * math.exp(noise + self.bias * halvings),
            "ttft_p50_ms": served["ttft_p50_ms"] * math.exp(noise - self.bias * halvings / 2),
        }


def live(hill):
    """The same hill with servers that can be changed."""
    return LiveHill(**{each.name: getattr(hill, each.name) for each in fields(hill)})


LANDSCAPES = {
    "saturating": Hill(),
    "low ceiling": Hill(users=16, tokens=12, expert=-0.1),
    "crossed": Hill(users=128, tokens=15, expert=0.15, crossed=True),
    "flat, noisy": Hill(users=32, tokens=13, expert=0.03, compiled=0.08, noise=0.08),
}


def optimum(hill, draws=40_000, seed=0):
    """The best that keeps its limits without noise, by random draws and coordinate steps from the best of them."""
    from tuner.space import SearchSpace

    space, rng = SearchSpace.model_validate(hill.space), np.random.default_rng(seed)
    best, value = dict(hill.deployed), worth(hill, hill.deployed)
    for _ in range(draws // 10):
        drawn = {name: p.value(int(rng.integers(present(p.levels)))) for name, p in space.params.items()}
        if (found := worth(hill, drawn)) > value:
            best, value = drawn, found
    improved = True
    while improved:
        improved = False
        for name, p in space.params.items():
            for level in range(present(p.levels)):
                tried = {**best, name: p.value(level)}
                if (found := worth(hill, tried)) > value * (1 + 1e-9):
                    best, value, improved = tried, found, True
    return best, value


def worth(hill, params):
    """The goal without noise; 0 for what dies, breaks a limit or a rule."""
    if params["max_num_batched_tokens"] < params["max_num_seqs"]:
        return 0.0
    try:
        truth, base = hill.truth(params), hill.truth(hill.deployed)
    except Died:
        return 0.0
    broken = truth["ttft_p50_ms"] > 1.25 * base["ttft_p50_ms"]
    return 0.0 if broken else truth["output_tokens_per_s"]
