"""Which limit a measured configuration ran into, by what its server counted, and how near it came to the hardware's.

Requests that wait name the limit that keeps them out; where none waits, what a step takes decides.
"""

from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from tuner.engines.ceilings import Ceilings
from tuner.load.counters import EngineCounters
from tuner.load.deciding import stage_of
from tuner.load.metrics import Measurement
from tuner.load.naming import CONCURRENT, SINGLE_USER
from tuner.load.workload import Workload
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

_FULL = 0.95
"""A KV cache of which so much is in use has no room for another request."""
_AT_CEILING = 0.9
"""So many of the requests that may run at once are all of them: one ends, and the next begins a step later."""
_WAITING, _WAITING_SHARE = 0.25, 0.05
"""Requests that wait, in the mean: fewer only wait for the running step to end."""
_CLIENT_BUSY = 0.6
"""Share of a core from which the load client may be what is measured; from 0.8 there is no measurement."""
_GPU_BUSY = 0.8
"""Share of the time in which kernels ran; below it the GPUs wait for the host."""
_HOST_BUSY = 0.95
_READING = 0.5
"""Of the memory's bound, from which reading is most of what a step does."""


class BindingLimit(StrEnum):
    """What binds."""

    KV_SPACE = "KV space"
    SEQUENCES = "sequences"
    TOKEN_BUDGET = "token budget"
    HOST = "host"
    MEMORY_BANDWIDTH = "memory bandwidth"
    """At least half of each step is what reading takes."""
    STEP_TIME = "step time"
    """Nothing waits, and no more is known of why a step takes what it takes: kernels, launches, links, prompts."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What held a trial back.

    Attributes:
        limit: Which limit binds.
        why: The numbers that say so.
        share: What was measured, over what the memory's bandwidth allows; ``None`` where that is not known.
    """

    limit: BindingLimit
    why: str
    share: float | None

    @property
    def sentence(self) -> str:
        """For a person."""
        binds = "what binds is not known" if self.limit is BindingLimit.UNKNOWN else f"{self.limit} binds"
        return f"{binds} ({self.why})" + (f"; {self.used}" if self.used else "")

    @property
    def used(self) -> str:
        """How near it came to the hardware's limit; empty where that is not known."""
        return "" if self.share is None else f"{self.share:.0%} of what this memory bandwidth allows"


def bottleneck(record: TrialRecord, outcome: Outcome) -> Bottleneck | None:
    """What held a trial back; ``None`` if it was not measured."""
    if record.measurement is None:
        return None
    share = _share(record.measurement, record.ceilings, next(iter(outcome.config.objective.goals)))
    return Bottleneck(*_limit(record, record.measurement, outcome.config.workload, share), share)


def finalists(outcome: Outcome) -> dict[str, Bottleneck]:
    """Of deployment and best trial, by what they are called."""
    best = outcome.best if outcome.improved else None
    named = {"deployed": outcome.baseline, f"trial {best.number}" if best else "": best}
    return {name: found for name, record in named.items() if record and (found := bottleneck(record, outcome))}


def _limit(
    record: TrialRecord, measurement: Measurement, workload: Workload, share: float | None
) -> tuple[BindingLimit, str]:
    counters = measurement.engine
    if counters is None or counters.running_mean is None or counters.waiting_mean is None:
        return BindingLimit.UNKNOWN, "the server does not tell how many requests run and wait"
    if counters.preemptions:
        return BindingLimit.KV_SPACE, f"{counters.preemptions:.0f} times a request had to give up its KV cache"
    if counters.waiting_mean < max(_WAITING, _WAITING_SHARE * counters.running_mean):
        return _host(record, measurement) or _step(share)
    return _queued(counters, record, workload)


def _queued(counters: EngineCounters, record: TrialRecord, workload: Workload) -> tuple[BindingLimit, str]:
    running, waiting = counters.running_mean or 0.0, counters.waiting_mean or 0.0
    ceilings, prompt = record.ceilings or Ceilings(), workload.typical[0]
    waited = f"{waiting:.1f} requests waited in the mean"
    if ceilings.sequences and running >= _AT_CEILING * ceilings.sequences:
        return BindingLimit.SEQUENCES, f"{waited} while {running:.1f} ran, and at most {ceilings.sequences} run at once"
    if counters.kv_usage_max is not None and _is_full(counters, record, prompt):
        return BindingLimit.KV_SPACE, f"{waited} while {counters.kv_usage_max:.0%} of the KV cache were in use"
    room = counters.kv_usage_max is not None and ceilings.sequences is not None
    if room and ceilings.step_tokens and ceilings.step_tokens < waiting * prompt + running:
        return (
            BindingLimit.TOKEN_BUDGET,
            f"{waited} with room for more: a step computes at most {ceilings.step_tokens} tokens",
        )
    return BindingLimit.UNKNOWN, f"{waited}, and for what is not told"


def _is_full(counters: EngineCounters, record: TrialRecord, prompt: int) -> bool:
    """Whether the KV cache has no room for another prompt."""
    kv_tokens = record.facts.kv_tokens if record.facts else None
    usage = counters.kv_usage_max or 0.0
    return usage >= _FULL or bool(kv_tokens and (1 - usage) * kv_tokens < prompt)


def _host(record: TrialRecord, measurement: Measurement) -> tuple[BindingLimit, str] | None:
    """Whether what feeds the GPUs is too slow, where no request waited."""
    client = measurement.client_cpu_share or 0.0
    if client >= _CLIENT_BUSY:
        return BindingLimit.HOST, f"no request waited, and the load client used {client:.0%} of a core"
    state = next((each.state for each in reversed(record.host) if each.stage == CONCURRENT), None)
    busy = [gpu.utilization for gpu in state.gpus if gpu.utilization is not None] if state else []
    if busy and fmean(busy) < _GPU_BUSY:
        return BindingLimit.HOST, f"no request waited, and the GPUs ran kernels {fmean(busy):.0%} of the time only"
    if busy and state and (state.cpu_busy_share or 0.0) >= _HOST_BUSY:
        return BindingLimit.HOST, f"no request waited, and {state.cpu_busy_share:.0%} of the host's cores were busy"
    return None


def _step(share: float | None) -> tuple[BindingLimit, str]:
    if share is None:
        return BindingLimit.STEP_TIME, "no request waited"
    if share >= _READING:
        return BindingLimit.MEMORY_BANDWIDTH, "no request waited, and most of a step is reading weights and KV cache"
    return (
        BindingLimit.STEP_TIME,
        "no request waited, and kernels, launches, links or prompts take more than reading does",
    )


def _share(measurement: Measurement, ceilings: Ceilings | None, goal: str) -> float | None:
    """Of the stage that decides: one user's rate where the goal is a single user's, else that of all together."""
    if stage_of(goal) == SINGLE_USER:
        tpot_ms, bound = measurement.tpot_p50_ms, ceilings and ceilings.alone_tokens_per_s
        return 1000 / tpot_ms / bound if tpot_ms and bound else None
    rate, bound = measurement.output_tokens_per_s, ceilings and ceilings.tokens_per_s
    return rate / bound if rate and bound else None
