"""The simulated engine as the world that predictions are held against: what starts in it, and what its logs say.

Its memory model and the predictor share no code. Both stand on vLLM's source; where they differ, as they do in the
profiling run's peak, the predictor has to learn it from the logs.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tuner.engines.hardware import Hardware
from tuner.engines.vllm.log.facts import facts
from tuner.engines.vllm.memory.calibration import Calibration, ObservedStart
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.model.architecture import find
from tuner.sim import backends, flags, startup
from tuner.sim.compile_cache import CompileCache
from tuner.sim.events import Log, Raw
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.settings import Rejected, Site, resolve
from tuner.space import Settings


@dataclass(frozen=True)
class Plan:
    """What the simulator makes of a configuration."""

    starts: bool
    kv_gib: float | None


@dataclass(frozen=True)
class World:
    """A machine, a vLLM version and a model.

    Attributes:
        name: For tables.
        model: As the command line names it.
        hardware: As the predictor knows it before any start: no word of what is free.
        preset: As the simulator knows it.
        version: Of vLLM.
        fixed: Settings that every configuration has.
        ranges: What the random ones take.
    """

    name: str
    model: str
    hardware: Hardware
    preset: str
    version: str
    fixed: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, list[Any]] = field(default_factory=dict)

    def draw(self, dice: random.Random) -> dict[str, Any]:
        """A configuration at random, of those that vLLM does not refuse outright."""
        while True:
            drawn = {name: dice.choice(values) for name, values in self.ranges.items()}
            args = {**self.fixed, **drawn}
            if args["max_num_batched_tokens"] >= args["max_num_seqs"]:
                return args

    def settings(self, args, warm=True):
        """The simulator's reading of it."""
        words = [
            f"--{name.replace('_', '-')}" + (f"={value}" if value is not True else "") for name, value in args.items()
        ]
        site = Site.of(self.preset, self.hardware.gpus, self.version)
        return replace(resolve(self.model, flags.parse(site.version, [self.model, *words]), {}, site), warm=warm)

    def plan(self, args, warm=True) -> Plan:
        """Whether such a server comes up, and with how much KV cache."""
        try:
            outcome = backends.outcome(self.settings(args, warm))
        except Rejected:
            return Plan(False, None)
        return Plan(True, outcome.kv_gib) if isinstance(outcome, MemoryPlan) else Plan(False, outcome.plan_gib)

    def log(self, args, warm=True) -> list[str]:
        """What such a server prints, whether it comes up or not."""
        settings = self.settings(args, warm)
        launch = startup.Launch(settings, backends.outcome(settings), CompileCache(None, settings, {}), "127.0.0.1", 1)
        banner = startup.banner(settings.site, self.model, {})
        return written((*banner, *startup.script(launch)))

    def start(self, args, warm=True) -> ObservedStart:
        """What a start teaches."""
        try:
            outcome = backends.outcome(self.settings(args, warm))
        except Rejected:
            outcome = None
        ran_out = isinstance(outcome, StartupFailure) and outcome.stage in ("weights", "profile", "graphs", "sampler")
        return ObservedStart(self.demand(args), facts(self.log(args, warm)), out_of_memory=ran_out)

    def demand(self, args):
        """The predictor's reading of it."""
        return demand_of(Settings(args), self.hardware, release(self.version), find(self.model))

    def calibration(self, starts=()) -> Calibration:
        """The predictor after these starts."""
        return Calibration(find(self.model), self.hardware, starts)


def written(events) -> list[str]:
    """The lines that these events leave in a log."""
    said = [event for event in events if isinstance(event, Log | Raw)]
    return [_prefix(event) + line for event in said for line in event.text.split("\n")]


def _prefix(event) -> str:
    return f"({event.who} pid=1) {event.level} 11-22 09:00:00 [{event.source}] " if isinstance(event, Log) else ""


UTILIZATIONS = [percent / 100 for percent in range(60, 99)]
_RANGES: dict[str, list[Any]] = {
    "gpu_memory_utilization": UTILIZATIONS,
    "max_num_batched_tokens": [2048, 4096, 8192, 16384, 32768, 65536],
    "max_num_seqs": [4, 8, 16, 32, 64, 128, 256, 512],
    "max_model_len": [16384, 32768, 65536, 131072, 202752],
}
_TWO = {"tensor_parallel_size": 2, "enable_expert_parallel": True}
_AWQ, _BF16 = "QuantTrio/GLM-4.7-Flash-AWQ", "zai-org/GLM-4.7-Flash"
_RTX = Hardware("2 x RTX 4090", 2, 23.99, None, (8, 9), 128)
_LARGE = {**_RANGES, "max_num_seqs": [16, 64, 256, 1024], "gpu_memory_utilization": UTILIZATIONS[15:]}

WORLDS = (
    World("RTX 4090 x2, 0.15, AWQ", _AWQ, _RTX, "rtx4090", "0.15", _TWO, _RANGES),
    World(
        "RTX 4090 x2 (Linux), 0.15, AWQ", _AWQ, replace(_RTX, total_gib=23.52), "rtx4090-linux", "0.15", _TWO, _RANGES
    ),
    World("RTX 4090 x2, 0.26, AWQ", _AWQ, _RTX, "rtx4090", "0.26", _TWO, _RANGES),
    World("H100, 0.26, bf16", _BF16, Hardware("H100", 1, 79.18, None, (9, 0), 132), "h100", "0.26", {}, _LARGE),
)
