"""Predicted against logged: what the memory model said of a launch beforehand, and its start-up lines afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass

from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

_PAIRS = (
    ("KV cache, tokens", "tokens", "kv_tokens", "kv_tokens"),
    ("KV cache", "GiB", "kv_gib", "kv_cache_gib"),
    ("weights", "GiB", "weights_gib", "weights_gib"),
    ("activations, peak", "GiB", "activation_gib", "peak_activation_gib"),
    ("outside torch", "GiB", "non_torch_gib", "non_torch_gib"),
    ("CUDA graphs", "GiB", "graph_gib", "graph_gib"),
)
"""What it is, its unit, its name in a ``Forecast`` and in ``StartupFacts``."""


@dataclass(frozen=True, slots=True)
class PredictionCheck:
    """One quantity of one launch.

    Attributes:
        trial: The launch's number.
        quantity: What was predicted, per GPU.
        unit: In which unit.
        predicted: Before the launch.
        logged: By the server's own start-up lines.
        starts: How many launches the prediction had learned from.
    """

    trial: int
    quantity: str
    unit: str
    predicted: float
    logged: float
    starts: int

    @property
    def error(self) -> float:
        """By which share too much was predicted; negative if too little."""
        return self.predicted / self.logged - 1


def predictions(outcome: Outcome) -> list[PredictionCheck]:
    """Every quantity that was both predicted and logged, by trial; nothing where nothing was predicted."""
    return [each for record in outcome.records for each in _of(record)]


def _of(record: TrialRecord) -> Iterator[PredictionCheck]:
    if record.forecast is None or record.facts is None:
        return
    for quantity, unit, before, after in _PAIRS:
        predicted, logged = getattr(record.forecast, before), getattr(record.facts, after)
        if predicted is not None and logged:
            yield PredictionCheck(record.number, quantity, unit, predicted, logged, record.forecast.starts)
