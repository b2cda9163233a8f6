"""What a machine's own starts teach of the memory model, and how far it may be believed.

Every start that printed its sizes is compared with what was predicted for it beforehand; the differences correct the
next prediction, and their size is its margin. A configuration is ruled out only if it cannot start even where every
term turns out as much in its favour as such predictions have ever been wrong.

Margins are measured (``margins``), and priors before there is anything to measure: generous for what was only read in
vLLM's source (the profiling run's parts, the graphs), narrow for what was counted (2 % of the weights). PolyServe's
planner, with constants for all of these terms, was wrong by 16.6 % on average and 26.5 % at worst.

A start whose compile cache was cold peaks higher than the same one warm (syv-ai/qwen38-27b-rtx3090#75; 1.29 GiB
against 0.78 for Qwen3-8B on an H200): its peak corrects the best guess, and never what rules a candidate out for want
of KV cache. What comes after the KV cache is another matter: there a cold start has more room, not less (``late``).
"""

import copy
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING

from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.anchor import Anchors
from tuner.engines.vllm.memory.cache import CacheLayout
from tuner.engines.vllm.memory.demand import Demand
from tuner.engines.vllm.memory.late import Late, Need
from tuner.engines.vllm.memory.margins import margin
from tuner.engines.vllm.memory.peak import ROUNDING_GIB, PeakFit
from tuner.engines.vllm.memory.sizes import (
    COMPILER_GIB,
    MemoryEstimate,
    Part,
    Shortage,
    Sizes,
    StartStage,
    account,
    free_shortage,
    kv_gib,
    sizes_of,
    unknown,
)
from tuner.engines.vllm.model.architecture import Architecture

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEIGHTS_PRIOR, WEIGHTS_FLOOR = 0.02, 0.002
GRAPHS_PRIOR, GRAPHS_FLOOR = 0.5, 0.05
NON_TORCH_PRIOR_GIB, NON_TORCH_FLOOR_GIB = 0.25, 0.01
_TELLING_BLOCKS, _ROUNDED_GIB = 100, 0.005
"""Of so few blocks one more or less says nothing; a figure of two decimals is off by so much."""
TUNING_GIB = 0.4
"""Sizes that are compiled on their own are compiled after the KV cache: so much of a failure may be the compiler's."""


@dataclass(frozen=True, slots=True)
class ObservedStart:
    """One start of a server, and what its log says of its memory; also of one that failed later on.

    Attributes:
        demand: What was asked for.
        facts: What the log says.
        out_of_memory: Whether it ended by running out of GPU memory that nobody else held.
    """

    demand: Demand
    facts: StartupFacts
    out_of_memory: bool = False

    @property
    def came_up(self) -> bool | None:
        """Whether what comes after the KV cache fitted next to it; ``None`` where the start does not tell.

        A cold start tells as well: its higher peak makes the KV cache smaller, and leaves more room after it.
        """
        if self.facts.init_s is not None:
            return True
        return False if self.out_of_memory and self.facts.kv_cache_gib is not None else None

    @property
    def warm(self) -> bool:
        """Whether its peak is that of every later start: nothing was compiled on the way."""
        return self.facts.compile_cache_hit is True or self.demand.eager


@dataclass(frozen=True, slots=True)
class PredictedFigure:
    """One figure of a start, predicted and logged.

    Attributes:
        name: Which: ``weights_gib``, ``activation_gib``, ``non_torch_gib``, ``graph_gib``, ``kv_gib``, ``kv_tokens``.
        predicted: Before the start.
        logged: By its log.
    """

    name: str
    predicted: float
    logged: float

    @property
    def error(self) -> float | None:
        """Predicted over logged, less one; ``None`` where nothing was logged to speak of."""
        return self.predicted / self.logged - 1 if self.logged else None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is known of a configuration's memory before it is launched.

    Attributes:
        terms: The best guess, ``None`` where something needed for it is not known.
        margin_gib: How much more KV cache there may be than ``terms`` says.
        ruled_out: Why it cannot start, beyond that margin; ``None`` if it may.
        starts: How many starts the guess has learned from.
        unknown: What keeps it from being made.
    """

    terms: MemoryEstimate | None
    margin_gib: float | None
    ruled_out: Shortage | None
    starts: int
    unknown: tuple[str, ...] = ()


@dataclass
class _Factor:
    """A term that is corrected by a factor, or by a difference, from start to start.

    Attributes:
        prior: Its margin before any error is known.
        floor: The least margin.
        relative: Whether factors are learned, and margins are shares.
    """

    prior: float
    floor: float
    relative: bool = True
    errors: list[float] = field(default_factory=list)
    learned: dict[Hashable, float] = field(default_factory=dict)

    def corrected(self, formula: float, kind: Hashable = None) -> float:
        """The formula's value as starts have it; those of the same kind count, if there were any."""
        if not self.learned:
            return formula
        step = self.learned[kind] if kind in self.learned else fmean(self.learned.values())
        return formula * step if self.relative else formula + step

    def learn(self, formula: float, logged: float, kind: Hashable = None) -> None:
        """Note how wrong the prediction was, and put it right for the next."""
        predicted = self.corrected(formula, kind)
        if self.relative and not (formula > 0 and logged >= 0):
            return
        error = (predicted / logged - 1 if logged else 1.0) if self.relative else predicted - logged
        self.errors.append(error)
        self.learned[kind] = logged / formula if self.relative else logged - formula

    @property
    def margin(self) -> float:
        """How far off the next may be."""
        return margin(self.errors, self.prior, self.floor)


@dataclass
class _Learned:
    """What starts have shown of each term."""

    weights: _Factor = field(default_factory=lambda: _Factor(WEIGHTS_PRIOR, WEIGHTS_FLOOR))
    non_torch: _Factor = field(default_factory=lambda: _Factor(NON_TORCH_PRIOR_GIB, NON_TORCH_FLOOR_GIB, False))
    graphs: _Factor = field(default_factory=lambda: _Factor(GRAPHS_PRIOR, GRAPHS_FLOOR))
    estimate: _Factor = field(default_factory=lambda: _Factor(GRAPHS_PRIOR, GRAPHS_FLOOR))
    cache: _Factor = field(default_factory=lambda: _Factor(0.0, 0.0))
    guessed: PeakFit = field(default_factory=PeakFit)
    """From all starts."""
    sure: PeakFit = field(default_factory=PeakFit)
    """From warm ones."""
    late: Late = field(default_factory=Late)
    anchors: Anchors = field(default_factory=Anchors)

    def copied(self) -> "_Learned":
        """The same with containers of its own; what they hold is never changed."""
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        return _Learned(**{name: replace(part, **_containers(part)) for name, part in parts.items()})


def _containers(part: "DataclassInstance") -> dict[str, object]:
    return {each.name: copy.copy(getattr(part, each.name)) for each in fields(part)}


class Calibration:
    """The memory model of one model on one machine, as its starts have corrected it.

    Args:
        model: The model; ``None`` where nothing is known of it.
        hardware: The GPUs.
        starts: In the order in which they happened.

    Attributes:
        hardware: The GPUs, with what the starts said of their memory.
        history: For each start what was predicted of it by the starts before, and what it logged.
    """

    def __init__(self, model: Architecture | None, hardware: Hardware, starts: Sequence[ObservedStart] = ()) -> None:
        self.model = model
        self.hardware = hardware.learned(start.facts for start in starts)
        self.history: list[tuple[PredictedFigure, ...]] = []
        self._learned = _Learned()
        self._compiled: set[Demand] = set()
        self._compiles = False
        for start in starts:
            self._learn(start)

    def after(self, starts: Sequence[ObservedStart]) -> "Calibration":
        """The same after some more starts; this one stays as it is."""
        later = copy.copy(self)
        later.hardware = self.hardware.learned(start.facts for start in starts)
        later.history, later._compiled = [*self.history], {*self._compiled}
        later._learned = self._learned.copied()
        for start in starts:
            later._learn(start)
        return later

    def predict(self, demand: Demand) -> Prediction:
        """What such a server would take, and whether it is ruled out."""
        starts = len(self.history)
        refused = free_shortage(demand, self.hardware)
        if self.model is None or unknown(self.model, demand):
            absent = unknown(self.model, demand) if self.model else ("the model's config.json",)
            return Prediction(self._learned.anchors.terms(demand, self.hardware), None, refused, starts, absent)
        terms = account(self._best(demand), demand, self.hardware)
        favourable = account(self._least(demand), demand, self.hardware)
        spare = None if terms.kv_gib is None or favourable.kv_gib is None else favourable.kv_gib - terms.kv_gib
        return Prediction(terms, spare, refused or self._ruled_out(demand, favourable), starts)

    def _ruled_out(self, demand: Demand, favourable: MemoryEstimate) -> Shortage | None:
        """What fails even in the terms' favour; what comes after the KV cache is favoured by a small cache instead."""
        shortage = favourable.shortage
        if shortage and shortage.stage is not StartStage.WARM_UP:
            return shortage
        roomy = self._most_room(demand)
        late = account(_needing(roomy, self._learned.late.least), demand, self.hardware).shortage
        return late if late and late.stage is StartStage.WARM_UP else self._known_to_fail(roomy, demand)

    def _known_to_fail(self, roomy: Sizes, demand: Demand) -> Shortage | None:
        """What a start that failed after its KV cache, and needed no more, tells."""
        free, kv = self.hardware.free_gib, kv_gib(roomy, demand, self.hardware)
        if free is None or kv is None:
            return None
        taken = roomy.weights_gib + roomy.non_torch_gib + roomy.graph_gib + kv
        failed = self._learned.late.failed(Need.of(roomy, demand), free - taken)
        if failed is None:
            return None
        return Shortage(
            StartStage.WARM_UP, Cause.CUDA_OOM, "what an earlier start had no room for", taken + failed, free
        )

    def _formulas(self, demand: Demand, cold: bool = False) -> Sizes:
        """What the formulas give; with a cold compile cache the compiler's own buffers as well."""
        assert self.model is not None
        sizes = sizes_of(self.model, demand, self.hardware)
        assert sizes is not None
        if not cold or demand.eager:
            return sizes
        compiler = {Part.COMPILER: COMPILER_GIB, Part.TUNING: 1.0 if demand.compile_sizes else 0.0}
        return replace(sizes, parts_gib={**sizes.parts_gib, **compiler})

    def _best(self, demand: Demand) -> Sizes:
        cold = self._compiles and demand not in self._compiled
        guessed = self._learned.guessed.corrected(self._formulas(demand, cold))
        return _needing(self._corrected(guessed, demand), self._learned.late.likely)

    def _corrected(self, sizes: Sizes, demand: Demand) -> Sizes:
        """All terms but the peak as starts have them."""
        grown = self._learned.cache.corrected(1.0, _placement(demand))
        cache = replace(
            sizes.cache,
            block_bytes=sizes.cache.block_bytes * grown,
            token_bytes=sizes.cache.token_bytes * grown,
        )
        return replace(
            sizes,
            weights_gib=self._learned.weights.corrected(sizes.weights_gib, _placement(demand)),
            non_torch_gib=self._learned.non_torch.corrected(sizes.non_torch_gib, demand.world_size),
            graph_gib=self._learned.graphs.corrected(sizes.graph_gib),
            graph_estimate_gib=self._learned.estimate.corrected(sizes.graph_estimate_gib),
            cache=cache,
        )

    def _least(self, demand: Demand) -> Sizes:
        """As little of everything as may be: the most KV cache."""
        sizes = self._corrected(self._learned.sure.bounded(self._formulas(demand), -1), demand)
        return replace(
            sizes,
            weights_gib=sizes.weights_gib * (1 - min(self._learned.weights.margin, 1)),
            non_torch_gib=max(0.0, sizes.non_torch_gib - self._learned.non_torch.margin),
            graph_gib=sizes.graph_gib * (1 - min(self._learned.graphs.margin, 1)),
            graph_estimate_gib=sizes.graph_estimate_gib * (1 - min(self._learned.estimate.margin, 1)),
        )

    def _most_room(self, demand: Demand) -> Sizes:
        """As much set aside before the KV cache, and as little taken by graphs after it, as may be."""
        peaks, least = self._learned.guessed.bounded(self._formulas(demand, cold=True), 1), self._least(demand)
        sizes = self._corrected(peaks, demand)
        return replace(
            sizes,
            parts_gib={**sizes.parts_gib, Part.SPLIT_KV: self._learned.guessed.split_kv(sizes)},
            graph_gib=least.graph_gib,
            graph_estimate_gib=sizes.graph_estimate_gib * (1 + self._learned.estimate.margin),
        )

    def _learn(self, start: ObservedStart) -> None:
        if self.model is None or unknown(self.model, start.demand):
            self._learn_anchor(start)
            return
        terms = account(self._best(start.demand), start.demand, self.hardware)
        self.history.append(compare(terms, start.facts))
        formulas, logged = self._formulas(start.demand), _Logged(start)
        if logged.weights_gib is not None:
            self._learned.weights.learn(formulas.weights_gib, logged.weights_gib, _placement(start.demand))
        if logged.non_torch_gib is not None:
            self._learned.non_torch.learn(formulas.non_torch_gib, logged.non_torch_gib, start.demand.world_size)
        if logged.graph_gib is not None:
            self._learned.graphs.learn(formulas.graph_gib, logged.graph_gib)
        if logged.estimate_gib is not None:
            self._learned.estimate.learn(formulas.graph_estimate_gib, logged.estimate_gib)
        if (ratio := logged.block_ratio(formulas.cache)) is not None:
            self._learned.cache.learn(1.0, ratio, _placement(start.demand))
        peak = logged.activation_gib(self._corrected(formulas, start.demand), self.hardware.total_gib)
        if peak is not None:
            self._learn_peak(start, peak)
        self._learn_late(start, formulas)
        self._compiled.add(start.demand)

    def _learn_anchor(self, start: ObservedStart) -> None:
        """What no formula is known for teaches all the same."""
        terms = self._learned.anchors.terms(start.demand, self.hardware)
        self.history.append(compare(terms, start.facts) if terms else ())
        self._learned.anchors.learn(start.demand, start.facts)

    def _learn_peak(self, start: ObservedStart, peak_gib: float) -> None:
        cold = start.facts.compile_cache_hit is False
        self._compiles = self._compiles or cold
        self._learned.guessed.learn(self._formulas(start.demand, cold), peak_gib)
        if start.warm:
            self._learned.sure.learn(self._formulas(start.demand), peak_gib)

    def _learn_late(self, start: ObservedStart, formulas: Sizes) -> None:
        """What comes after the KV cache fitted or not; of a room that is not known exactly the least counts."""
        kv, free, fitted = start.facts.kv_cache_gib, start.facts.free_gib or self.hardware.free_gib, start.came_up
        if fitted is None or kv is None or free is None:
            return
        logged, sizes = _Logged(start), self._corrected(formulas, start.demand)
        graphs = logged.graph_gib or sizes.graph_gib * (1 + self._learned.graphs.margin)
        others = logged.non_torch_gib or sizes.non_torch_gib + self._learned.non_torch.margin
        tuning = TUNING_GIB if start.demand.compile_sizes and not (fitted or start.warm) else 0.0
        taken = (logged.weights_gib or sizes.weights_gib) + others + graphs + kv + tuning
        self._learned.late.learn(Need.of(formulas, start.demand), free - taken, fitted)


def _needing(sizes: Sizes, share: float) -> Sizes:
    """The sizes with so much of what the formulas give for after the KV cache."""
    return replace(
        sizes,
        kept_gib=sizes.kept_gib * share,
        split_kv_gib=sizes.split_kv_gib * share,
        gather_gib=sizes.gather_gib * share,
        warm_up_gib=sizes.warm_up_gib * share,
    )


class _Logged:
    """The terms that a start's log tells, or that follow from what it tells."""

    def __init__(self, start: ObservedStart) -> None:
        self.demand = start.demand
        self.facts = start.facts
        self.weights_gib = start.facts.weights_gib
        self.graph_gib = start.facts.graph_gib if start.demand.graphs else None

    @property
    def non_torch_gib(self) -> float | None:
        """From 0.33 on the log tells it together with the weights."""
        if self.facts.non_torch_gib is not None or self.facts.consumed_gib is None or self.weights_gib is None:
            return self.facts.non_torch_gib
        return self.facts.consumed_gib - self.weights_gib

    def block_ratio(self, cache: CacheLayout) -> float | None:
        """By how much a block is larger than the formula has it; 1 where figures of two decimals cannot tell."""
        kv, tokens = self.facts.kv_cache_gib, self.facts.kv_tokens
        if not kv or not tokens or not (expected := cache.tokens(kv)) or cache.blocks(kv) < _TELLING_BLOCKS:
            return None
        ratio, unsure = expected / tokens, _ROUNDED_GIB / kv + 1 / cache.blocks(kv)
        return 1.0 if abs(ratio - 1) <= unsure else ratio

    @property
    def estimate_gib(self) -> float | None:
        """What is missing between the requested memory and the sum of the terms told, where graphs are counted."""
        said = (self.facts.requested_gib, self.weights_gib, self.facts.peak_activation_gib, self.non_torch_gib)
        if not self.demand.graphs_counted or None in said or self.facts.kv_cache_gib is None:
            return None
        requested, *terms = (term for term in said if term is not None)
        left = requested - sum(terms) - self.facts.kv_cache_gib
        return left if left > ROUNDING_GIB else 0.0

    def activation_gib(self, others: Sizes, total_gib: float | None) -> float | None:
        """The peak: told from 0.10 on by starts that came up; else what the requested memory and the rest leave."""
        if self.facts.peak_activation_gib is not None:
            return self.facts.peak_activation_gib
        requested = self.facts.requested_gib or (total_gib and total_gib * self.demand.utilization)
        fixed = self.demand.kv_cache_memory_bytes is not None
        if not requested or fixed or self.facts.kv_cache_gib is None or self.weights_gib is None:
            return None
        rest = others.non_torch_gib + others.graph_estimate_gib
        left = requested - self.facts.kv_cache_gib - self.weights_gib - rest
        return left if left > 0 else None


def compare(terms: MemoryEstimate, facts: StartupFacts) -> tuple[PredictedFigure, ...]:
    """What was predicted next to what was logged, for every figure that is known on both sides."""
    return tuple(_pairs(terms, facts))


def _pairs(terms: MemoryEstimate, facts: StartupFacts) -> Iterator[PredictedFigure]:
    pairs: tuple[tuple[str, float | None, float | None], ...] = (
        ("weights_gib", terms.weights_gib, facts.weights_gib),
        ("activation_gib", terms.activation_gib, facts.peak_activation_gib),
        ("non_torch_gib", terms.non_torch_gib, facts.non_torch_gib),
        ("graph_gib", terms.graph_gib, facts.graph_gib),
        ("kv_gib", terms.kv_gib, facts.kv_cache_gib),
        ("kv_tokens", terms.kv_tokens, facts.kv_tokens),
    )
    for name, predicted, logged in pairs:
        if predicted is not None and logged is not None:
            yield PredictedFigure(name, predicted, logged)


def _placement(demand: Demand) -> Hashable:
    return demand.tensor_parallel, demand.pipeline_parallel, demand.experts_divided_by
