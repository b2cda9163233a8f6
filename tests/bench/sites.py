"""What a roofline is worth to the search, on sites drawn by chance whose speed follows one up to what it leaves out.

    python -m tests.bench.sites [SEEDS]

The roofline knows the users, the lengths and the model's bytes and operations. It knows nothing of the host's time, of
kernels that reach less than the memory's bandwidth, of a token budget or sequences beyond what is needed, nor of any
switch. One that lies has the sign of the sequences wrong: it says of 512 what is true of 4.
"""

import math
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from statistics import fmean, median
from typing import Any

from tests.bench.landscapes import DEPLOYED, SPACE, optimum, worth
from tests.present import present
from tuner.space import SearchSpace
from tuner.testing.proof import Died
from tuner.testing.race import race

FIRST, LAUNCHES = 70, 24
"""No constant was chosen on these seeds."""
SWITCHES = (
    "block_size",
    "compile_sizes",
    "enable_expert_parallel",
    "enable_prefix_caching",
    "async_scheduling",
    "OMP_NUM_THREADS",
    "VLLM_FLOAT32_MATMUL_PRECISION",
)
SIZES = (0.0, 0.0, 0.0, 0.02, 0.05, 0.1, -0.05, -0.1, 0.2)
"""What the best value of a switch changes, in logs."""


@dataclass(frozen=True)
class Facts:
    """Of one site: users, tokens of a prompt and an answer, milliseconds of a step, and what is lost by excess.

    A step takes ``weights``, ``cache`` for a sequence, ``token`` to compute one, and the ``host``. ``reached`` is a
    share of the bandwidth, ``budget`` the log2 of the best token budget.
    """

    users: int
    prompt: float
    answer: float
    weights: float
    cache: float
    token: float
    host: float
    reached: float
    thrash: float
    budget: float
    curve: float
    noise: float
    free_gib: float

    @classmethod
    def drawn(cls, dice):
        """By chance."""
        weights = math.exp(dice.uniform(0, 3))
        return cls(
            users=2 ** dice.randint(2, 8),
            prompt=math.exp(dice.uniform(math.log(100), math.log(4000))),
            answer=math.exp(dice.uniform(math.log(64), math.log(800))),
            weights=weights,
            cache=math.exp(dice.uniform(-5, -2)),
            token=math.exp(dice.uniform(-5, -3)),
            host=dice.uniform(0.1, 1.2) * weights,
            reached=dice.uniform(0.4, 0.9),
            thrash=dice.choice([0, 0, 0.02, 0.05]),
            budget=dice.uniform(11.5, 16),
            curve=dice.choice([0, 0.01, 0.03]),
            noise=dice.choice([0.015, 0.03, 0.03, 0.05]),
            free_gib=dice.uniform(3, 7),
        )


@dataclass
class Site:
    """One site, as a landscape of a race."""

    seed: int
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    goals: dict[str, Any] = field(default_factory=lambda: {"output_tokens_per_s": "maximize"})
    limits: dict[str, Any] = field(default_factory=lambda: {"ttft_p50_ms": {"max": 1.25, "of": "baseline"}})

    @cached_property
    def facts(self):
        """What is so here."""
        return Facts.drawn(random.Random(f"facts {self.seed}"))

    @cached_property
    def deployed(self):
        """Any sequences and any budget."""
        dice = random.Random(f"deployed {self.seed}")
        sequences, tokens = 2 ** dice.randint(3, 8), 2 ** dice.randint(11, 14)
        return {**DEPLOYED, "max_num_seqs": sequences, "max_num_batched_tokens": tokens}

    @cached_property
    def effects(self):
        """By switch and value, in logs."""
        dice, params = random.Random(f"effects {self.seed}"), SearchSpace.model_validate(self.space).params
        found = {}
        for name in SWITCHES:
            size = dice.choice(SIZES)
            values = [params[name].value(level) for level in range(present(params[name].levels))]
            found[name] = {
                repr(value): 0.0 if value == DEPLOYED[name] else size * dice.uniform(0.4, 1) for value in values
            }
        return found

    def _step(self, params, reached, host):
        """How many answers' tokens a step makes, and what it takes, in milliseconds."""
        facts, per_token = self.facts, 1 + self.facts.prompt / self.facts.answer
        made = min(facts.users, params["max_num_seqs"], params["max_num_batched_tokens"] / per_token)
        read = facts.weights / reached + facts.cache * min(facts.users, params["max_num_seqs"])
        return made, max(read, facts.token * made * per_token) + host

    def truth(self, params):
        """Goal and limited metric without noise; raises ``Died``."""
        facts, sequences = self.facts, math.log2(params["max_num_seqs"])
        tokens, eager = math.log2(params["max_num_batched_tokens"]), params["enforce_eager"]
        left = 24 * (params["gpu_memory_utilization"] - 0.9) + facts.free_gib
        if left < 0.6 + 0.35 * 2 ** (tokens - 13) + 0.15 * 2 ** (sequences - 7):
            raise Died("cuda_oom")
        made, took = self._step(params, facts.reached, facts.host)
        earned = sum(self.effects[name][repr(params.get(name))] for name in SWITCHES) - (1.5 if eager else 0.0)
        lost = facts.thrash * max(0.0, sequences - math.log2(facts.users)) ** 2
        lost += facts.curve * (tokens - facts.budget) ** 2
        waiting = 0.05 * max(0.0, 1 - params["max_num_seqs"] / facts.users) * facts.answer * took
        chunks = math.ceil(facts.prompt / params["max_num_batched_tokens"])
        together = max(1.0, min(facts.users, params["max_num_seqs"]) / 8)
        chunk = max(
            facts.weights / facts.reached,
            facts.token * min(params["max_num_batched_tokens"], facts.prompt * together),
        )
        first = (chunks * (chunk + facts.host) + waiting + took) * math.exp(-0.3 * earned)
        return {"output_tokens_per_s": 1000 * made / took * math.exp(earned - lost), "ttft_p50_ms": first}

    def evaluate(self, params, rng):
        """One launch."""
        return {name: value * math.exp(self.facts.noise * rng.normal()) for name, value in self.truth(params).items()}


@dataclass
class Roofed(Site):
    """The same, with what its memory's bandwidth and peak allow."""

    def roofline(self, params):
        """Tokens a second, if everything else took no time."""
        made, took = self._step(params, 1.0, 0.0)
        return 1000 * made / took


@dataclass
class Lying(Roofed):
    """With a roofline that has the sign of the sequences wrong."""

    def roofline(self, params):
        """See the class."""
        return super().roofline({**params, "max_num_seqs": 2048 // params["max_num_seqs"]})


ARMS = {"none": Site, "roofline": Roofed, "lying": Lying}


def _raced(job):
    kind, seed = job
    site = ARMS[kind](seed)
    _, best = optimum(site)
    launches = race(site, launches=LAUNCHES, seed=seed)
    values = [0.0 if each.died else worth(site, each.params) / best for each in launches]
    told = worth(site, launches[19].recommended) / best >= 0.95
    return values, told, fmean(each.died for each in launches)


def _row(raced):
    def first(share):
        return median(
            next((n for n, value in enumerate(values, 1) if value >= share), LAUNCHES + 1) for values, *_ in raced
        )

    at = (f"{fmean(max(values[:most]) for values, *_ in raced):.3f}" for most in (6, 10, 20))
    return (
        f"{first(0.98):g}",
        f"{first(0.95):g}",
        *at,
        f"{fmean(t for _, t, _ in raced):.0%}",
        (f"{fmean(d for *_, d in raced):.1%}"),
    )


def main():
    """Print the table."""
    seeds = range(FIRST, FIRST + (int(sys.argv[1]) if len(sys.argv) > 1 else 8))
    print(f"launches of {LAUNCHES} until the optimum is near, {len(seeds)} sites; {LAUNCHES + 1} means never")
    print(f"{'':<12}" + "".join(f"{n:>11}" for n in ("to 2 %", "to 5 %", "at 6", "at 10", "at 20", "told", "died")))
    with ProcessPoolExecutor() as pool:
        raced = list(pool.map(_raced, product(ARMS, seeds)))
    for n, kind in enumerate(ARMS):
        cells = _row(raced[n * len(seeds) : (n + 1) * len(seeds)])
        print(f"{kind:<12}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
