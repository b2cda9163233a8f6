"""The profiling run's peak, fitted to what starts logged of it: a ridge regression towards the formulas."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from tuner.engines.vllm.memory.sizes import PEAKS, Part, Peak, Sizes

PEAK_PRIOR, PEAK_FLOOR = 0.35, 0.02
ROUNDING_GIB = 0.01
"""Two figures of the log, of two decimals each, may be off by so much together."""

_PART_PRIORS: Mapping[Part, tuple[float, float]] = {
    **{part: (1.0, 0.3) for part in Part},
    # what sorting takes was reckoned from three starts
    Part.LOGITS: (1.0, 0.4),
    # the profiling run of 0.26 does not see it; that of another version may
    Part.SPLIT_KV: (0.0, 0.5),
    Part.OTHER: (0.0, 0.15),
    Part.TUNING: (0.0, 0.3),
}
"""For each part its factor before any start, and how sure that is; ``OTHER`` and ``TUNING`` are GiB instead."""
_LEAST = 0.2
"""Of a part's first factor: what no start is believed to have shown."""
_DEVIATIONS = 3.0
"""Standard deviations that a peak may be off where no start was near."""
_UNLIKELY = 1e-12
_BOUND_NOISE = 0.2
"""How exactly a peak that was predicted too high is known to be the one that was logged: it may be lower still."""
_SWEEPS, _SETTLED = 60, 1e-4
_RECENT = 8


@dataclass
class PeakFit:
    """The profiling run's peak: which factor each part needs so that the logged peaks come out.

    A ridge regression towards the formulas: several starts with different batches tell parts that grow with the batch
    from parts that do not. Factors never become negative, so that more of anything never needs less memory.

    Errors measured on small batches say little of large ones, where other parts make up the peak. So the margin is the
    regression's own deviation at that place, which falls only for the sums of parts that starts have shown, times the
    errors so far in units of it.
    """

    factors: dict[Part, float] = field(default_factory=lambda: {part: mean for part, (mean, _) in _PART_PRIORS.items()})
    _products: dict[tuple[Part, Part], float] = field(default_factory=dict)
    _targets: dict[Part, float] = field(default_factory=dict)
    _surprises: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    _covariance: Mapping[tuple[Part, Part], float] = field(default_factory=lambda: _inverse({}))

    def corrected(self, sizes: Sizes) -> Sizes:
        """The sizes with every part as starts have it."""
        return replace(sizes, parts_gib={part: self.factors[part] * _size(sizes, part) for part in Part})

    def learn(self, sizes: Sizes, logged_gib: float) -> None:
        """Note how wrong the prediction was, and fit the factors anew."""
        expected = self.corrected(sizes)
        self._note(expected.peak, (expected.activation_gib - logged_gib) / self._deviation(sizes, PEAKS[expected.peak]))
        shown = self._likely_peak(sizes, logged_gib)
        self._add(sizes, shown, logged_gib, _noise_gib(logged_gib))
        if expected.peak is not shown:
            self._add(sizes, expected.peak, logged_gib, _BOUND_NOISE * logged_gib)
        for _ in range(_SWEEPS):
            before = dict(self.factors)
            for part in Part:
                self.factors[part] = self._best(part)
            if all(abs(self.factors[part] - factor) < _SETTLED for part, factor in before.items()):
                break
        self._covariance = _inverse(self._products)

    def _likely_peak(self, sizes: Sizes, logged_gib: float) -> Peak:
        """The moment that a logged peak speaks of: one that comes out at it, while no other need be above it.

        The moment predicted to be the highest is often another than the real one, where its parts were never seen.
        """
        expected = self.corrected(sizes)
        deviations = {peak: self._deviation(sizes, PEAKS[peak]) for peak in Peak}
        off = {peak: (logged_gib - expected.peak_gib(peak)) / deviations[peak] for peak in Peak}
        below = {peak: math.log(max(0.5 * (1 + math.erf(off[peak] / math.sqrt(2))), _UNLIKELY)) for peak in Peak}
        return max(Peak, key=lambda peak: -(off[peak] ** 2) / 2 - math.log(deviations[peak]) - below[peak])

    def _note(self, peak: Peak, surprise: float) -> None:
        kind = peak is Peak.COMPILER
        self._surprises = {**self._surprises, kind: [*self._surprises[kind], surprise][-_RECENT:]}

    def _add(self, sizes: Sizes, peak: Peak, logged_gib: float, noise_gib: float) -> None:
        """One equation: that peak's parts add up to what was logged, as exactly as this noise allows."""
        weight = 1 / noise_gib**2
        row = {part: _size(sizes, part) for part in PEAKS[peak]}
        for part, value in row.items():
            self._targets[part] = self._targets.get(part, 0.0) + weight * value * logged_gib
            for other, beside in row.items():
                pair = (part, other)
                self._products[pair] = self._products.get(pair, 0.0) + weight * value * beside

    def _best(self, part: Part) -> float:
        """The factor that fits best beside the others' present ones."""
        mean, spread = _PART_PRIORS[part]
        trust = 1 / spread**2
        others = sum(
            self._products.get((part, other), 0.0) * factor for other, factor in self.factors.items() if other != part
        )
        above = trust * mean + self._targets.get(part, 0.0) - others
        return max(_LEAST * mean, above / (trust + self._products.get((part, part), 0.0)))

    def bounded(self, sizes: Sizes, sign: int) -> Sizes:
        """The sizes as starts have them, with the whole peak as far off as it may be: 1 for more, -1 for less."""
        expected = self.corrected(sizes)
        bounds = (expected.peak_gib(peak) + sign * self._margin_gib(sizes, peak, sign) for peak in Peak)
        share = max(0.0, max(bounds)) / expected.activation_gib
        return replace(expected, parts_gib={part: gib * share for part, gib in expected.parts_gib.items()})

    def _margin_gib(self, sizes: Sizes, peak: Peak, sign: int) -> float:
        """How far off a peak may be; parts whose factor is at its least cannot turn out less."""
        movable = [part for part in PEAKS[peak] if sign > 0 or self.factors[part] > _LEAST * _PART_PRIORS[part][0]]
        expected = self.corrected(sizes).peak_gib(peak)
        return max(PEAK_FLOOR * expected, self._surprise(peak) * _DEVIATIONS * self._deviation(sizes, movable))

    def _surprise(self, peak: Peak) -> float:
        """How much larger errors are than the regression's own deviation: the compiler's, or those of all else."""
        recent = self._surprises[peak is Peak.COMPILER]
        return max(1.0, math.sqrt(fmean(each**2 for each in recent))) if recent else 1.0

    def _deviation(self, sizes: Sizes, parts: Sequence[Part]) -> float:
        """The standard deviation of the next log's figure for some parts' sum, by the regression."""
        row = {part: _size(sizes, part) for part in parts}
        variance = sum(row[one] * row[other] * self._covariance[one, other] for one in row for other in row)
        expected = sum(self.factors[part] * gib for part, gib in row.items())
        return math.hypot(_noise_gib(expected), math.sqrt(max(variance, 0.0)))

    def split_kv(self, sizes: Sizes) -> float:
        """The most of the split-KV workspace that the profiling run may see: all of it, until starts say otherwise."""
        seen = self._products.get((Part.SPLIT_KV, Part.SPLIT_KV), 0.0) > 0
        return sizes.split_kv_gib * (min(1.0, self.factors[Part.SPLIT_KV] + PEAK_PRIOR) if seen else 1.0)


def _noise_gib(logged_gib: float) -> float:
    """How exactly a logged peak repeats: two decimals, and a hundredth."""
    return ROUNDING_GIB + 0.01 * logged_gib


def _inverse(products: Mapping[tuple[Part, Part], float]) -> dict[tuple[Part, Part], float]:
    """The factors' covariance: the regression's matrix, priors included, inverted (Gauss-Jordan: it is regular)."""
    parts = list(Part)
    rows = [
        [products.get((one, other), 0.0) for other in parts] + [float(one is other) for other in parts] for one in parts
    ]
    for index, part in enumerate(parts):
        rows[index][index] += 1 / _PART_PRIORS[part][1] ** 2
    for index, pivot in enumerate(rows):
        rows[index] = pivot = [value / pivot[index] for value in pivot]
        for other, row in enumerate(rows):
            if other != index:
                rows[other] = [value - row[index] * above for value, above in zip(row, pivot, strict=True)]
    size = len(parts)
    return {(one, other): rows[i][size + j] for i, one in enumerate(parts) for j, other in enumerate(parts)}


def _size(sizes: Sizes, part: Part) -> float:
    """What a part's factor multiplies, in GiB."""
    if part is Part.OTHER:
        return 1.0
    return sizes.split_kv_gib if part is Part.SPLIT_KV else sizes.parts_gib[part]
