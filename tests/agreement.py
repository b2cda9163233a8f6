"""Whether two benchmarks agree on one server: both at the same time, and the ratio of what they report, run by run.

In turns, each would meet another server: on a shared machine its speed moves by a tenth from one minute to the next.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import exp, log

from tuner.load.client import LoadClient
from tuner.load.metrics import measure
from tuner.load.plan import plan
from tuner.load.target import Target
from tuner.load.warmup import warm_up
from tuner.load.workload import Workload
from tuner.proof.estimate import level
from tuner.proof.order import turns

Source = Callable[[], Mapping[str, float]]
"""One run of a benchmark: what it reports, by tuner's names."""

TOLERANCE = {"output_tokens_per_s": 0.05, "concurrent_tpot_p50_ms": 0.05, "ttft_p50_ms": 0.10}
"""By how much the mean ratio may differ from 1."""
TRAFFIC = Workload(
    name="agreement",
    concurrency=2,
    prompt_tokens=106,  # vLLM's random prompts of 100 tokens, in this model's chat template
    output_tokens=32,
    requests=64,
    min_duration_s=0,
    ttft_prompt_tokens=(),
    tool_call=False,
    warm_up={"shortest_tokens": 50, "longest_tokens": 110, "max_rounds": 2},
    # on a busy machine both benchmarks stamp late; pair by pair they do so alike
    max_loop_lag_ms=1000,
    max_client_cpu_share=1,
)

SPREAD = 0.5
TOGETHER = Workload.model_validate(
    {
        **TRAFFIC.model_dump(),
        "prompt_tokens": {"kind": "uniform", "low": 56, "high": 156},  # 100, spread, and the template's 6
        "output_tokens": {"kind": "uniform", "low": 16, "high": 48},
    }
)
"""For two benchmarks at the same time. Users of equal requests stay in step, those of the one tool with those of the
other, and those of the faster client may be served a whole step earlier, always: a TTFT of 0.73 was seen."""


@dataclass
class Pairs:
    """Runs of tuner and of another benchmark on one server, each with users of its own.

    Attributes:
        ours: Runs tuner.
        theirs: Runs the other one.
        logs: By metric the log of tuner's over the other's, one a pair.
    """

    ours: Source
    theirs: Source
    logs: dict[str, list[float]] = field(default_factory=dict)

    def run(self, count: int) -> None:
        """So many more pairs."""
        with ThreadPoolExecutor(2) as pool:
            for _ in range(count):
                ours, theirs = (pool.submit(source) for source in (self.ours, self.theirs))
                self.add(ours.result(), theirs.result())

    def run_in_turns(self, count: int, seed: str) -> None:
        """So many more pairs, one after the other in random order: for a tool that takes long to start sending."""
        order = turns(seed, count)
        for first, second in zip(order[::2], order[1::2], strict=True):
            ran = {of_ours: (self.ours if of_ours else self.theirs)() for of_ours in (first, second)}
            self.add(ran[True], ran[False])

    def add(self, ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
        """One more pair."""
        for name in TOLERANCE:
            self.logs.setdefault(name, []).append(log(ours[name] / theirs[name]))

    def ratio(self, name: str) -> tuple[float, float, float]:
        """The geometric mean of tuner's over the other's, with its interval of 95 %."""
        estimate = level([exp(each) for each in self.logs[name]])
        low, high = estimate.bounds(0.025)
        return exp(estimate.center), exp(low), exp(high)

    @property
    def count(self) -> int:
        """Pairs so far."""
        return len(next(iter(self.logs.values()), []))

    @property
    def disagreeing(self) -> list[str]:
        """Metrics whose mean ratio is beyond the tolerance."""
        return [name for name, most in TOLERANCE.items() if abs(self.ratio(name)[0] - 1) > most]

    @property
    def apart(self) -> list[str]:
        """Those that differ by more beyond doubt: the whole interval is beyond the tolerance."""
        spans = {name: self.ratio(name)[1:] for name in TOLERANCE}
        return [name for name, (low, high) in spans.items() if low > 1 + TOLERANCE[name] or high < 1 - TOLERANCE[name]]

    def __str__(self) -> str:
        lines = []
        for name in TOLERANCE:
            mean, low, high = self.ratio(name)
            lines.append(f"{name:<24} {mean:.3f} [{low:.3f}, {high:.3f}]  n={self.count} pairs")
        return "\n".join(lines)


class Tuner:
    """tuner's own load client and numbers on one server.

    Args:
        client: Sends the load.
        url: The server.
        model: Its name.
        traffic: What is sent.
    """

    def __init__(self, client: LoadClient, url: str, model: str, traffic: Workload = TRAFFIC) -> None:
        self._client, self._target, self._runs = client, Target(url=url, model=model, headers={}), 0
        self._traffic = traffic
        warmed = warm_up(client, self._target, traffic, context_tokens=None, kv_tokens=None, seed=0, watch=lambda: None)
        self._calibration = warmed.calibration

    def __call__(self) -> Mapping[str, float]:
        self._runs += 1
        planned = plan(
            self._traffic, seed=self._runs, context_tokens=None, kv_tokens=None, calibration=self._calibration
        )
        return measure([self._client.run(planned.stages[0], self._target)], self._traffic).numbers
