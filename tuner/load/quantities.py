"""Everything that can be measured, and what is to be known of it: unit, direction, what stages and classes tell it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]

_LEAST = 0.001


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that can be measured.

    Attributes:
        name: As names begin.
        label: For people; so is the next one, where there is little room.
        short: As over a column.
        unit: What it is counted in.
        way: Which way it is better.
        watched: What a stage watches to know how precisely it knows it; ``None`` if nothing.
        distributed: Whether each request (or gap) has one, so that a name says which percentile.
        stages: Whether it is measured in each stage that lasts.
        classes: Whether it is told apart by class of request.
        promised: Whether it counts requests that keep their limits (``workload.slo``).
        floor: What less counts as where it is compared, since a ratio to nothing says nothing.
        counted: Whether it is a number of events, which may be 0: it is compared with an absolute limit only.
        symptom: Whether it is nothing that users feel, but why they feel something: it may get worse freely.
    """

    name: str
    label: str
    short: str
    unit: str
    way: Direction
    watched: Literal["rate", "ttft", "tpot"] | None = None
    distributed: bool = False
    stages: bool = False
    classes: bool = False
    promised: bool = False
    floor: float = 0.0
    counted: bool = False
    symptom: bool = False


def _latency(name: str, label: str, short: str, watched: Literal["ttft", "tpot"]) -> Quantity:
    return Quantity(name, label, short, "ms", "minimize", watched, distributed=True, stages=True, classes=True)


def _rate(name: str, label: str, short: str, unit: str) -> Quantity:
    return Quantity(name, label, short, unit, "maximize", "rate", stages=True, classes=True)


def _goodput(name: str, label: str, short: str, unit: str, watched: Literal["rate"] | None) -> Quantity:
    return Quantity(
        name, label, short, unit, "maximize", watched, stages=True, classes=True, promised=True, floor=_LEAST
    )


def _of_server(name: str, label: str, short: str, unit: str, way: Direction, *, counted: bool = False) -> Quantity:
    """What the server counts in a stage that lasts; it explains what users feel."""
    floor = 0.0 if counted else _LEAST
    return Quantity(name, label, short, unit, way, stages=True, floor=floor, counted=counted, symptom=True)


_QUANTITIES = (
    _latency("ttft_ms", "Time to first token", "TTFT", "ttft"),
    _latency("tpot_ms", "Time per output token", "TPOT", "tpot"),
    _latency("itl_ms", "Gap between tokens", "ITL", "tpot"),
    _latency("e2e_ms", "Whole answer", "E2E", "tpot"),
    _rate("output_tokens_per_s", "Output throughput", "throughput", "tokens/s"),
    _rate("requests_per_s", "Requests answered", "requests", "/s"),
    _goodput("goodput_share", "Requests within all of their limits", "goodput", "of requests", None),
    _goodput("goodput_requests_per_s", "Requests answered within all of their limits", "good requests", "/s", "rate"),
    Quantity(
        "saturation_requests_per_s",
        "Requests a second that are sustained",
        "sustained rate",
        "/s",
        "maximize",
        floor=_LEAST,
    ),
    Quantity("tool_call_ms", "Tool call", "tool call", "ms", "minimize"),
    Quantity("kv_tokens", "Room in the KV cache", "KV cache", "tokens", "maximize"),
    Quantity("kv_requests", "Room in the KV cache", "KV cache, requests", "requests", "maximize", symptom=True),
    _of_server("preemptions", "Requests that gave up their KV cache", "preemptions", "", "minimize", counted=True),
    _of_server("prefix_hit_rate", "Found in the prefix cache", "prefix hits", "of prompt tokens", "maximize"),
    Quantity("energy_per_token_j", "Energy of the GPUs for an output token", "energy", "J/token", "minimize", "rate"),
    Quantity("cost_per_million_tokens", "Cost of output tokens", "cost", "a million tokens", "minimize", "rate"),
    Quantity("startup_s", "From launch to first answer", "start-up", "s", "minimize"),
)
QUANTITIES: Mapping[str, Quantity] = {each.name: each for each in _QUANTITIES}
"""Everything that can be measured, by name."""
