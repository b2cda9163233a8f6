"""What a study looks like: plotly figures, each of which answers one question; ``None`` where there is nothing to show.

Everything is SVG on a transparent background, so that what is drawn can be printed.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

import plotly.graph_objects as go

from tuner import words
from tuner.analysis.frames import sent
from tuner.analysis.marks import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    goal_of,
    groups,
    reached,
    rounded,
    strip,
    styled,
    wrapped,
)
from tuner.analysis.tables import finalists
from tuner.engines.base import Phase
from tuner.errors import ConfigError
from tuner.load.naming import CONCURRENT, SINGLE_USER
from tuner.load.records import RequestRecord
from tuner.load.timing import itls_ms, tpot_ms
from tuner.objective import Direction, metric
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.space import Choice, Range

_PHASES: Mapping[Phase, str] = {
    Phase.STARTING: "#a7b0be",
    Phase.LOADING_WEIGHTS: "#7f9fd6",
    Phase.COMPILING: "#8a6fd1",
    Phase.PROFILING: "#b78be0",
    Phase.CAPTURING_GRAPHS: "#5f7de0",
    Phase.OPENING: "#58b4d1",
    Phase.WARMING_UP: "#e2b23c",
    Phase.MEASURING: "#2fa873",
    Phase.SCREENING: "#a3d9a5",
    Phase.ASKING: "#d98fb0",
    Phase.SOAKING: "#c9c45a",
    Phase.STOPPING: "#8a8f98",
}
_MOST_POINTS = 400
_MOST_BARS = 100
_FEW = 10


def history(outcome: Outcome, goal: int = 0) -> go.Figure | None:
    """Every trial in its order, and the best so far: did the search still learn when it ended?"""
    name, said = goal_of(outcome, goal)
    measured = [record for record in outcome.searched if record.verdict]
    if not measured:
        return None
    figure = go.Figure(groups(outcome, measured, lambda r: r.number, lambda r: reached(r, goal)))
    best = _best_so_far(measured, goal, outcome.config.objective.goals[name])
    last = max(record.number for record in outcome.records)
    if best:
        xs, ys = [*best, last], [*best.values(), list(best.values())[-1]]
        figure.add_scatter(x=xs, y=ys, mode="lines", line={"shape": "hv", "color": GREEN}, name="best so far")
    _across(figure, outcome, goal)
    figure.update_xaxes(dtick=1 if last < _FEW else None)
    strip(figure, [(record.number, record) for record in outcome.records if record.verdict is None], outcome)
    return styled(figure, x="trial", y=said.axis)


def slice_of(outcome: Outcome, name: str, goal: int = 0) -> go.Figure | None:
    """The goal over one parameter's values; other parameters vary at the same time."""
    parameter = outcome.config.space.params[name]
    tried = [record for record in outcome.searched if _place(parameter, record.params.get(name)) is not None]
    measured = [record for record in tried if record.verdict]
    if not measured:
        return None
    figure = go.Figure(
        groups(outcome, measured, lambda r: _place(parameter, r.params.get(name)), lambda r: reached(r, goal))
    )
    dead = [(_place(parameter, record.params.get(name)), record) for record in tried if record.verdict is None]
    strip(figure, dead, outcome)
    _parameter_axis(figure, parameter)
    setting = words.setting(outcome.config.space, name)
    said = goal_of(outcome, goal)[1]
    return styled(figure, x=wrapped(setting), y=f"{said.short} ({said.unit})", legend=False, height=300)


def tradeoff(outcome: Outcome) -> go.Figure | None:
    """Throughput of all users against the latency of one: what has to be paid for what?"""
    latency = _latency_metric(outcome)
    points = [r for r in outcome.searched if r.measurement and _point(r, latency)]
    if not points:
        return None
    figure = go.Figure(
        groups(outcome, points, lambda r: metric_of(r, latency), lambda r: metric_of(r, "output_tokens_per_s"))
    )
    front = pareto_front([(metric_of(r, latency), metric_of(r, "output_tokens_per_s")) for r in points if r.feasible])
    if front:
        xs, ys = zip(*front, strict=True)
        line = {"shape": "hv", "color": GREEN, "dash": "dot"}
        figure.add_scatter(x=xs, y=ys, mode="lines", line=line, name="Pareto front, limits met", hoverinfo="skip")
    _latency_limit(figure, outcome, latency)
    return styled(figure, x=words.metric(latency).axis, y=words.metric("output_tokens_per_s").axis)


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (latency, throughput) those that no other beats in both, by rising latency."""
    front: list[tuple[float, float]] = []
    for latency, throughput in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or throughput > front[-1][1]:
            front.append((latency, throughput))
    return front


def timeline(outcome: Outcome) -> go.Figure | None:
    """Each launch and its phases in the order in which they ran: where did the GPU's time go?

    A study of many launches shows means over ``launches_a_bar`` of them.
    """
    bars = _bunches(outcome)
    if not bars:
        return None
    in_minutes = max(_mean_s(bunch) for bunch in bars) > 300
    names = [_span_of(outcome, bunch) for bunch in bars]
    figure = go.Figure()
    for phase, color in _PHASES.items():
        took = [_mean_s(bunch, phase) for bunch in bars]
        if any(took):
            scaled = rounded(seconds / 60 if in_minutes else seconds for seconds in took)
            hover = [f"{name}<br>{phase}: {words.duration(seconds)}" for name, seconds in zip(names, took, strict=True)]
            bar = {"marker_color": color, "marker_line_width": 0, "hovertext": hover, "hoverinfo": "text"}
            figure.add_bar(x=list(range(len(bars))), y=scaled, name=str(phase), **bar)
    figure.update_layout(barmode="stack", bargap=0.15 if len(bars) == len(_launches(outcome)) else 0)
    shown = range(0, len(bars), max(1, len(bars) // 25))
    figure.update_xaxes(tickvals=list(shown), ticktext=[_short(outcome, bars[n][0]) for n in shown])
    return styled(figure, x="trial, then relaunches (↻)", y="minutes" if in_minutes else "seconds")


def launches_a_bar(outcome: Outcome) -> int:
    """How many launches each bar of ``timeline`` stands for."""
    return max(1, ceil(len(_launches(outcome)) / _MOST_BARS))


LATENCIES: Mapping[str, str] = {
    "ttft": "Time to first token, all users (ms)",
    "gaps": "Gap between tokens, all users (ms)",
    "tpot": "Time per output token, all users (ms)",
    "single_tpot": "Time per output token, one user (ms)",
}
"""The distributions that ``latencies`` can show, and what stands below them."""


def latencies(outcome: Outcome, what: str) -> go.Figure | None:
    """Distribution of a latency over the requests of baseline and best: not only the median counts.

    Args:
        outcome: The study.
        what: A key of ``LATENCIES``.
    """
    figure = go.Figure()
    for records, name, color in zip(finalists(outcome), ("deployed", "best"), (GREY, BLUE), strict=True):
        values = sorted(value for record in records for value in _latency_values(outcome, record, what))
        if values:
            kept = _thinned(values)
            shares = [n / (len(kept) - 1) if len(kept) > 1 else 1.0 for n in range(len(kept))]
            line = {"shape": "hv", "color": color, "dash": "solid" if name == "best" else "dash"}
            figure.add_scatter(x=rounded(kept), y=rounded(shares), mode="lines", line=line, name=name)
    if not figure.data:
        return None
    counted = "gaps" if what == "gaps" else "requests"
    figure.update_traces(
        hovertemplate=f"%{{y:.0%}} of the {counted} within %{{x:.3s}} ms<extra>%{{fullData.name}}</extra>"
    )
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_xaxes(range=_with_margin([x for trace in figure.data for x in trace.x]))
    return styled(figure, x=LATENCIES[what], y=f"share of the {counted}", height=300)


def metric_of(record: TrialRecord, name: str) -> float:
    """A number of a measured trial."""
    assert record.measurement is not None
    return metric(record.measurement, name)


def _best_so_far(records: Sequence[TrialRecord], goal: int, direction: Direction) -> dict[int, float]:
    """The best feasible value up to each trial that improved on it, by number."""
    best: dict[int, float] = {}
    for record in (record for record in records if record.feasible):
        value = reached(record, goal)
        last = list(best.values())[-1:]
        if not last or (value > last[0] if direction == "maximize" else value < last[0]):
            best[record.number] = value
    return best


def _launches(outcome: Outcome) -> list[TrialRecord]:
    """In the order in which they ran; what was ruled out beforehand is none."""
    every = sorted((*outcome.records, *outcome.relaunches), key=lambda r: (r.started_at, r.number))
    return [record for record in every if record.phases]


def _bunches(outcome: Outcome) -> list[list[TrialRecord]]:
    """Neighbouring launches that share a bar."""
    launches, size = _launches(outcome), launches_a_bar(outcome)
    return [launches[first : first + size] for first in range(0, len(launches), size)]


def _mean_s(bunch: Sequence[TrialRecord], phase: Phase | None = None) -> float:
    """What a launch of the bunch took in the mean, in a phase or in all."""
    spans = (span for record in bunch for span in record.phases)
    return sum(span.seconds for span in spans if phase in (None, span.phase)) / len(bunch)


def _span_of(outcome: Outcome, bunch: Sequence[TrialRecord]) -> str:
    ends = dict.fromkeys(_short(outcome, record) for record in (bunch[0], bunch[-1]))
    return ("mean of trials " if len(ends) > 1 else "trial ") + " to ".join(ends)


def _short(outcome: Outcome, record: TrialRecord) -> str:
    return f"{'↻ ' if record in outcome.relaunches else ''}{record.number}"


def _across(figure: go.Figure, outcome: Outcome, goal: int) -> None:
    """The baseline's value as a line across."""
    if outcome.baseline is not None:
        figure.add_hline(y=reached(outcome.baseline, goal), line={"color": INK, "dash": "dash", "width": 1})


def _latency_metric(outcome: Outcome) -> str:
    """The latency that the objective speaks of: as a goal, else as a limit, else TPOT of one user."""
    named = [*outcome.config.objective.goals, *outcome.config.objective.limits]
    return next((name for name in named if words.unit(name) == "ms"), "tpot_p50_ms")


def _point(record: TrialRecord, latency: str) -> bool:
    names = (latency, "output_tokens_per_s")
    return all(record.measurement is not None and name in record.measurement.numbers for name in names)


def _latency_limit(figure: go.Figure, outcome: Outcome, latency: str) -> None:
    limit = outcome.config.objective.limits.get(latency)
    if limit is None or limit.max is None or outcome.baseline is None:
        return
    bound = limit.max * (metric_of(outcome.baseline, latency) if limit.of == "baseline" else 1.0)
    figure.add_vline(x=bound, line={"color": ORANGE, "dash": "dash", "width": 1}, annotation_text="limit")


def _latency_values(outcome: Outcome, record: TrialRecord, what: str) -> Iterable[float]:
    scale = record.measurement.clock_scale if record.measurement else 1.0
    stage = SINGLE_USER if what == "single_tpot" else CONCURRENT
    window = record.measurement.windows.get(stage) if record.measurement else None
    for request in _readable(outcome, record):
        if request.stage == stage and request.completed and (window is None or window.holds(request.started_ms)):
            yield from (value * scale for value in _latency_of(request, what))


def _readable(outcome: Outcome, record: TrialRecord) -> Sequence[RequestRecord]:
    """None of a damaged file, which the report's head names."""
    try:
        return list(sent(outcome, record))
    except ConfigError:
        return []


def _latency_of(request: RequestRecord, what: str) -> Sequence[float]:
    if what == "gaps":
        return itls_ms(request)
    value = request.ttft_ms if what == "ttft" else tpot_ms(request)
    return [] if value is None else [value]


def _thinned(values: Sequence[float]) -> list[float]:
    """Evenly spaced order statistics, the first and the last among them."""
    if len(values) <= _MOST_POINTS:
        return list(values)
    step = (len(values) - 1) / (_MOST_POINTS - 1)
    return [values[round(n * step)] for n in range(_MOST_POINTS)]


def _with_margin(values: Sequence[float]) -> list[float]:
    """A range that keeps curves off the edges."""
    margin = 0.04 * (max(values) - min(values) or max(values))
    return [min(values) - margin, max(values) + margin]


def _place(parameter: Range | Choice, value: object) -> float | str | None:
    """Where a value stands on its parameter's axis; ``None`` if the engine was left to choose, or it does not act."""
    if isinstance(parameter, Choice):
        return words.value(value) if parameter.accepts(value) else None  # type: ignore[arg-type]
    return value if isinstance(value, int | float) else None


def _power(value: object) -> str:
    """A power of two as one says it: ``512``, ``32k``."""
    return f"{value // 1024}k" if isinstance(value, int) and value >= 1024 else str(value)


def _parameter_axis(figure: go.Figure, parameter: Range | Choice) -> None:
    if isinstance(parameter, Choice):
        labels = [words.value(choice) for choice in parameter.choices]
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=labels)
    elif parameter.scale != "linear":
        exact = [parameter.value(n) for n in range(parameter.levels or 0)] if parameter.scale == "pow2" else None
        ticks = {"tickvals": exact, "ticktext": [_power(v) for v in exact]} if exact else {}
        figure.update_xaxes(type="log", tickangle=0, **ticks)
