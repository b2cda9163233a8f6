"""What output tokens cost: energy by the GPUs' own counters, money by the price of the machine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tuner.host.state import HostState, StageHost
from tuner.load.estimates import arrived_tokens
from tuner.load.metrics import Measurement
from tuner.load.naming import CONCURRENT
from tuner.load.records import StageResult

ENERGY, COST = "energy_per_token_j", "cost_per_million_tokens"
_MILLION = 1_000_000
_HOUR_S = 3600


def with_costs(
    measurement: Measurement,
    results: Sequence[StageResult],
    host: Sequence[StageHost],
    price_per_hour: float | None,
) -> Measurement:
    """A measurement with what its tokens cost, where it is known.

    Args:
        measurement: Of these stages.
        results: The stages.
        host: The machine during them, one state a stage and in their order.
        price_per_hour: What the machine costs an hour.
    """
    priced = _priced(measurement, price_per_hour) if price_per_hour else measurement
    energy = dict(_energy(results, host))
    return priced.model_copy(update={"named": {**priced.named, **energy}})


def _energy(results: Sequence[StageResult], host: Sequence[StageHost]) -> Iterator[tuple[str, float]]:
    """Of the concurrent stage, ramps included: all that its GPUs used, over all tokens that it brought."""
    for result, watched in zip(results, host, strict=True):
        used_j = _used_j(watched.state)
        if result.stage == CONCURRENT and used_j and (tokens := arrived_tokens(result)):
            yield ENERGY, used_j / tokens


def _used_j(state: HostState) -> float | None:
    used = [gpu.energy_j for gpu in state.gpus]
    return None if None in used else sum(each for each in used if each is not None)


def _priced(measurement: Measurement, price_per_hour: float) -> Measurement:
    """A cost is a price over a throughput, and as uncertain."""
    rate = measurement.output_tokens_per_s
    if not rate:
        return measurement
    dear = price_per_hour / _HOUR_S * _MILLION
    intervals = dict(measurement.intervals)
    known = intervals.get("output_tokens_per_s")
    if known and known.low > 0:
        intervals[COST] = replace(known, low=dear / known.high, high=dear / known.low)
    named = {**measurement.named, COST: dear / rate}
    return measurement.model_copy(update={"named": named, "intervals": intervals})
