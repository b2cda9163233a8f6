"""Baseline against best, and one study against another: the numbers that a person compares deployments by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from tuner import words
from tuner.analysis.frames import cold
from tuner.engines.registry import kind_of
from tuner.load.deciding import is_long_prompt, stage_of
from tuner.load.metrics import METRICS
from tuner.objective import direction
from tuner.proof.decision import Effect
from tuner.records.outcome import Outcome
from tuner.records.record import Role, TrialRecord
from tuner.space import Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """One number, measured one or several times.

    Attributes:
        values: One a launch.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the launches."""
        return fmean(self.values)

    @property
    def range(self) -> float | None:
        """From the lowest to the highest; ``None`` for a single launch."""
        return max(self.values) - min(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of baseline and best.

    Attributes:
        label: What it is, in plain words.
        unit: Its unit.
        more_is_better: Or less.
        matters: Whether the objective names it, as a goal or as a limit.
        baseline: ``None`` if it was not measured. Likewise the next.
        best: Of the best configuration; ``None`` also where nothing beats the baseline.
        skipped: Why its stage was not sent to baseline and best, because it did not fit; empty where it was.
        effect: What the proof says of the change; ``None`` without one.
    """

    label: str
    unit: str
    more_is_better: bool = False
    matters: bool = False
    baseline: Sample | None = None
    best: Sample | None = None
    skipped: tuple[str, str] = ("", "")
    effect: Effect | None = None

    @property
    def change(self) -> float | None:
        """By which share the best differs from the baseline, as it is: positive is more, not better."""
        if self.effect is not None:
            return self.effect.gain if self.more_is_better else -self.effect.gain
        if self.baseline is None or self.best is None or not self.baseline.mean:
            return None
        return self.best.mean / self.baseline.mean - 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """Between what the change is; ``None`` where it was not launched again."""
        if self.effect is None:
            return None
        ends = (self.effect.low, self.effect.high)
        return ends if self.more_is_better else (-ends[1], -ends[0])

    @property
    def better(self) -> bool | None:
        """Whether the change is for the better; ``None`` if noise could explain it, or nothing is known of noise."""
        if self.effect is None or not (self.effect.better or self.effect.worse):
            return None
        return self.effect.better


_Wanted = tuple[Row, Callable[[TrialRecord], float | None]]
"""A quantity, and how a launch tells it."""


def rows(outcome: Outcome) -> list[Row]:
    """Every quantity that either of the two was measured by: goals first, then limits, then the rest."""
    before, after = finalists(outcome)
    named = [*outcome.config.objective.goals, *outcome.config.objective.limits]
    plain = [name for name in dict.fromkeys([*named, *METRICS]) if name != "kv_tokens"]
    wanted = [*((name, *_metric(name, name in named)) for name in plain), ("", *_speed())]
    wanted += [*_long_prompts([*before, *after], named), ("kv_tokens", *_kv_cache([*before, *after]))]
    decision = outcome.decision
    found = [
        replace(
            row,
            baseline=_sample(before, get),
            best=_sample(after, get),
            skipped=(_skipped(before, name), _skipped(after, name)),
            effect=decision.effect(name) if decision else None,
        )
        for name, row, get in wanted
    ]
    return [row for row in found if row.baseline or row.best or any(row.skipped)]


def _skipped(records: Sequence[TrialRecord], name: str) -> str:
    """Why the stage that measures a metric was not sent."""
    return next((each.reason for record in records for each in record.skipped if each.what == stage_of(name)), "")


def finalists(outcome: Outcome) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """The launches that stand for baseline and best: their relaunches, or else their own trials.

    The best of many noisy trials reads too high, so that its own trial counts only while there is nothing better.
    """
    best = outcome.best if outcome.improved else None
    pairs = ((Role.CONFIRM_BASELINE, outcome.baseline), (Role.CONFIRM_BEST, best))
    before, after = (_launches(outcome, role, record) for role, record in pairs)
    return before, after


def _launches(outcome: Outcome, role: Role, record: TrialRecord | None) -> list[TrialRecord]:
    if record is None:
        return []
    relaunches = outcome.proof.launches if outcome.proof else ()
    again = [r for r in relaunches if r.role is role and r.measurement]
    return again or [record]


def _metric(name: str, matters: bool) -> _Wanted:
    said = words.metric(name)
    row = Row(said.label, said.unit, direction(name) == "maximize", matters)
    return row, lambda record: record.measurement.numbers.get(name) if record.measurement else None


def _speed() -> _Wanted:
    """Tokens a second as one user sees them arrive: the inverse of TPOT."""

    def per_s(record: TrialRecord) -> float | None:
        tpot_ms = record.measurement.tpot_p50_ms if record.measurement else None
        return 1000 / tpot_ms if tpot_ms else None

    return Row("Decoding speed, one user", "tokens/s", more_is_better=True), per_s


def _long_prompts(records: Sequence[TrialRecord], named: Sequence[str]) -> Iterator[tuple[str, *_Wanted]]:
    measured = [record.measurement for record in records if record.measurement]
    sent = (name for each in measured for name in each.numbers if is_long_prompt(name))
    stages = (each.what for record in records for each in record.skipped)
    skipped = (name for what in stages for how in ("cold", "cached") if is_long_prompt(name := f"{what}_{how}_ms"))
    for name in dict.fromkeys((*sent, *skipped)):
        if name not in named:
            yield name, *_metric(name, matters=False)


def _kv_cache(records: Sequence[TrialRecord]) -> _Wanted:
    """Of warm starts, where there are any: a cold one compiles first and has less room for it."""
    any_warm = any(not cold(record) for record in records)

    def tokens(record: TrialRecord) -> float | None:
        return record.facts.kv_tokens if record.facts and not (any_warm and cold(record)) else None

    return Row("KV cache", "tokens", more_is_better=True), tokens


def _sample(records: Sequence[TrialRecord], get: Callable[[TrialRecord], float | None]) -> Sample | None:
    known = tuple(value for record in records if (value := get(record)) is not None)
    return Sample(known) if known else None


def comparison(outcome: Outcome) -> pd.DataFrame:
    """Baseline against best of one study: means over their launches, and the change with its interval."""
    compared = rows(outcome)
    return pd.DataFrame(
        {
            "unit": [row.unit for row in compared],
            "deployed": [row.baseline and row.baseline.mean for row in compared],
            "best": [row.best and row.best.mean for row in compared],
            "change": [row.change for row in compared],
            "low": [row.interval and row.interval[0] for row in compared],
            "high": [row.interval and row.interval[1] for row in compared],
        },
        index=pd.Index([row.label for row in compared], name="quantity"),
    )


def side_by_side(outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Deployments in columns, quantities in rows: what each study started from and what it found.

    Args:
        outcomes: Studies by the name that heads their columns.

    Returns:
        Columns ``(study, "deployed" | "best")``, rows ``(quantity, unit)``; missing where one did not measure it.
    """
    columns = {}
    for name, outcome in outcomes.items():
        measured = {(row.label, row.unit): row for row in rows(outcome)}
        columns[name, "deployed"] = {key: row.baseline and row.baseline.mean for key, row in measured.items()}
        columns[name, "best"] = {key: row.best and row.best.mean for key, row in measured.items()}
    order = list(dict.fromkeys(key for column in columns.values() for key in column))
    index = pd.MultiIndex.from_tuples(order, names=["quantity", "unit"])
    table = {column: [values.get(key) for key in order] for column, values in columns.items()}
    return pd.DataFrame(table, index=index).astype(float)


def settings(outcome: Outcome) -> pd.DataFrame:
    """Every flag and variable of baseline and best, as one types them; missing where it is left to the engine."""
    config = outcome.config
    switch = kind_of(config.engine).conventions.switch
    old = words.lines(config.model.settings, switch)
    tried = config.space.settings(outcome.chosen) if outcome.chosen else Settings()
    new = words.lines(config.model.settings.merged(tried), switch)
    names = list(dict.fromkeys([*old, *new]))
    table = {"deployed": [old.get(name) for name in names], "best": [new.get(name) for name in names]}
    return pd.DataFrame(table, index=pd.Index(names, name="setting"))
