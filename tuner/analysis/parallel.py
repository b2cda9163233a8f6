"""Parallel coordinates in plain SVG lines: plotly's own need WebGL, which neither prints nor runs on every phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from tuner import words
from tuner.analysis.marks import GREEN, GREY, INK, MANY, goal_of, hover, reached, rounded, styled
from tuner.records.outcome import Outcome
from tuner.records.record import Ending, TrialRecord
from tuner.space import Choice, Range

_Band = tuple[str, str, dict[str, str | int], list[TrialRecord]]
"""A name, a colour, how the line looks, and whose lines look like this."""
_GOLDEN = 0.618
_BELOW = -0.09
"""Where a line passes that has no value on an upright."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """One upright of the parallel coordinates: where a trial crosses it, and what is written along it."""

    title: str
    at: Mapping[int, float]
    ticks: Mapping[float, str]


def parallel(outcome: Outcome, goal: int = 0) -> go.Figure | None:
    """Every trial as a line across all parameters: which combinations lead where?"""
    tried = outcome.searched
    measured = [record for record in tried if record.verdict]
    if len(measured) < 2:
        return None
    axes = [axis for name in outcome.config.space.params if (axis := _upright(outcome, name)) is not None]
    axes.append(_goal_upright(outcome, measured, goal))
    figure = go.Figure()
    for label, color, look, records in _bands(outcome, goal):
        figure.add_scatter(**_polyline(axes, records, outcome), name=label, line={"color": color, "width": 1.4, **look})
    for x, axis in enumerate(axes):
        figure.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, line={"color": GREY, "width": 1})
        for y, text in axis.ticks.items():
            figure.add_annotation(x=x, y=y, text=escape(text), xanchor="left", xshift=3, showarrow=False, font_size=10)
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=[_broken(axis.title) for axis in axes], showgrid=False
    )
    figure.update_xaxes(range=[-0.2, len(axes) - 0.25], tickangle=0, tickfont_size=10)
    figure.update_yaxes(visible=False, range=[-0.14, 1.06])
    return styled(figure, x="", y="", height=460)


def _aside(record: TrialRecord) -> float:
    """A little next to its place, each trial by another bit: lines that would lie on one another can be told apart."""
    return 0.04 * (record.number * _GOLDEN % 1 - 0.5)


def _upright(outcome: Outcome, name: str) -> _Axis | None:
    """A parameter's axis; ``None`` if every trial has the same value."""
    parameter = outcome.config.space.params[name]
    values = {record.number: record.params.get(name) for record in outcome.searched}
    at = {number: _height(parameter, value) for number, value in values.items()}
    if len(set(at.values())) < 2:
        return None
    return _Axis(words.setting(outcome.config.space, name), at, _ticks(parameter, min(at.values()) < 0))


def _height(parameter: Range | Choice, value: object) -> float:
    """Between 0 and 1 along the upright; below it where the parameter has no value."""
    if not parameter.accepts(value) or (value is None and isinstance(parameter, Range)):  # type: ignore[arg-type]
        return _BELOW
    if parameter.levels is None or (isinstance(parameter, Range) and parameter.levels > MANY):
        assert isinstance(parameter, Range)
        assert isinstance(value, int | float)
        return min(1.0, max(0.0, (value - parameter.low) / (parameter.high - parameter.low)))
    return parameter.level(value) / max(1, parameter.levels - 1)  # type: ignore[arg-type]


def _ticks(parameter: Range | Choice, some_unset: bool) -> dict[float, str]:
    if isinstance(parameter, Choice):
        ticks = {_height(parameter, choice): words.brief(choice) for choice in parameter.choices}
    else:
        ticks = {0.0: f"{parameter.low:,}", 1.0: f"{parameter.high:,}"}
    return ticks | ({_BELOW: "–"} if some_unset else {})


def _goal_upright(outcome: Outcome, measured: Sequence[TrialRecord], goal: int) -> _Axis:
    values = [reached(record, goal) for record in measured]
    low, high = min(values), max(values)
    at = {record.number: (reached(record, goal) - low) / ((high - low) or 1) for record in measured}
    said = goal_of(outcome, goal)[1]
    ticks = {0.0: words.digits(low), 1.0: words.digits(high), _BELOW: "none"}
    everyone = {record.number: at.get(record.number, _BELOW) for record in outcome.searched}
    return _Axis(f"{said.short} ({said.unit})", everyone, ticks)


def _bands(outcome: Outcome, goal: int) -> list[_Band]:
    """Trials by what came of them, the best drawn last."""
    minimize = list(outcome.config.objective.goals.values())[goal] == "minimize"
    dead = [record for record in outcome.searched if record.verdict is None]
    missed = [record for record in outcome.searched if record.ending is Ending.LIMIT_MISSED]
    good = sorted((r for r in outcome.searched if r.feasible), key=lambda r: reached(r, goal), reverse=minimize)
    few = len(outcome.searched) <= MANY
    top = max(1, len(good) // (3 if few else 20))
    faint = 0.5 if few else 0.25
    bands: tuple[_Band, ...] = (
        ("cannot run", f"rgba(216,80,95,{faint})", {"dash": "dot"}, dead),
        ("a limit missed", f"rgba(221,138,6,{faint})", {"dash": "dot"}, missed),
        ("limits met", f"rgba(47,139,216,{faint})", {}, good[:-top]),
        ("best third" if few else "best 5%", GREEN, {}, good[-top:]),
        ("deployed", INK, {"width": 3}, [record for record in good if record is outcome.baseline]),
    )
    return [band for band in bands if band[3]]


def _polyline(axes: Sequence[_Axis], records: Sequence[TrialRecord], outcome: Outcome) -> dict[str, object]:
    """All lines of a band as one trace, broken between trials; each says what it is where it reaches the goal."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    for record in records:
        xs += [*range(len(axes)), None]
        ys += [*rounded(axis.at[record.number] + _aside(record) for axis in axes), None]
        texts += [""] * (len(axes) - 1) + [hover(outcome, record), ""]
    return {"x": xs, "y": ys, "hovertext": texts, "hoverinfo": "text", "mode": "lines"}


def _broken(title: str) -> str:
    """A setting's name on several short lines."""
    return "<br>".join(escape(part) for part in title.replace("_", "-").strip("-").split("-"))
