"""Predictions as the server's own figures have corrected them.

Each start says what weights, KV cache and buffers took. How they compare with what was computed corrects the next
prediction, and how much they differ among themselves says how wrong it may still be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.engines.base import StartupFacts
from tuner.engines.llamacpp.memory.sizes import Sizes

_FIRST_ERROR = {"weights_gib": 0.03, "kv_gib": 0.05, "compute_gib": 0.6}
"""How wrong a term may be before any start, as a share of it: of the last, backends differ."""
_LEAST_ERROR = 0.02
_SAID = {"weights_gib": "weights_gib", "kv_gib": "kv_cache_gib", "compute_gib": "peak_activation_gib"}


@dataclass(frozen=True, slots=True)
class BufferPrediction:
    """What a server would take.

    Attributes:
        sizes: The best guess.
        least_gib: The least that it may be.
        starts: How many starts it has learned from.
    """

    sizes: Sizes
    least_gib: float | None
    starts: int


@dataclass(frozen=True, slots=True)
class BufferCalibration:
    """What starts have taught.

    Attributes:
        ratios: What was said over what was computed, by term, of each start.
        starts: How many there were.
    """

    ratios: tuple[tuple[str, float], ...] = ()
    starts: int = 0

    def after(self, seen: Sequence[tuple[Sizes, StartupFacts]]) -> "BufferCalibration":
        """The same after some more starts."""
        told = tuple(pair for computed, facts in seen for pair in _ratios(computed, facts))
        return BufferCalibration(self.ratios + told, self.starts + len(seen))

    def predict(self, computed: Sizes) -> BufferPrediction:
        """What was computed, corrected."""
        best = _times(computed, {name: self._factor(name) for name in _SAID})
        least = _times(best, {name: 1 - self._error(name) for name in _SAID})
        return BufferPrediction(best, least.needed_gib, self.starts)

    def _of(self, name: str) -> list[float]:
        return [ratio for term, ratio in self.ratios if term == name]

    def _factor(self, name: str) -> float:
        ratios = self._of(name)
        return sum(ratios) / len(ratios) if ratios else 1.0

    def _error(self, name: str) -> float:
        ratios = self._of(name)
        if len(ratios) < 2:
            return _FIRST_ERROR[name]
        return max(_LEAST_ERROR, *(abs(ratio / self._factor(name) - 1) * 2 for ratio in ratios))


def _ratios(computed: Sizes, facts: StartupFacts) -> list[tuple[str, float]]:
    pairs = [(name, getattr(computed, name), getattr(facts, said)) for name, said in _SAID.items()]
    return [(name, said / gib) for name, gib, said in pairs if gib and said]


def _times(terms: Sizes, factors: Mapping[str, float]) -> Sizes:
    return Sizes(
        terms.weights_gib * factors["weights_gib"],
        None if terms.kv_gib is None else terms.kv_gib * factors["kv_gib"],
        terms.compute_gib * factors["compute_gib"],
        terms.mapped,
    )
