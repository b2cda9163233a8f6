"""How every figure looks: marks for trials, colours that hold on light and dark grounds, one layout.

A trial that was not measured has no value, so it stands on a strip of its own below the axis.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

import plotly.graph_objects as go

from tuner import words
from tuner.analysis.frames import changed
from tuner.records.outcome import Outcome
from tuner.records.record import Ending, TrialRecord

BLUE, ORANGE, RED, PINK, GREEN = "#2f8bd8", "#dd8a06", "#d8505f", "#e3a1a9", "#16a06b"
GREY, INK = "#8a8f98", "#7b8087"
MANY = 200
"""With more trials than this, marks are faint and lines say less."""
_TITLE_WIDTH = 28
_GRID = "rgba(128,128,128,.22)"
_Coordinate = Callable[[TrialRecord], float | str | None]


def goal_of(outcome: Outcome, goal: int) -> tuple[str, words.Metric]:
    """A goal's name, and how to say it."""
    name = list(outcome.config.objective.goals)[goal]
    return name, words.metric(name)


def reached(record: TrialRecord, goal: int) -> float:
    """What a measured trial reached in a goal."""
    assert record.verdict is not None
    return record.verdict.values[goal]


def groups(
    outcome: Outcome, records: Sequence[TrialRecord], x: _Coordinate, y: Callable[[TrialRecord], float]
) -> list[go.Scatter]:
    """Measured trials by what they are worth; baseline and best stand out."""
    best, baseline = outcome.best, outcome.baseline
    special = [record for record in (baseline, best) if record]
    rest = [record for record in records if record not in special]
    many = len(records) > MANY
    looks = (
        ("limits met", BLUE, "circle", 4 if many else 7, [r for r in rest if r.feasible]),
        ("a limit missed", ORANGE, "diamond-open", 5 if many else 8, [r for r in rest if not r.feasible]),
        ("deployed", INK, "square", 11, [r for r in records if r == baseline]),
        ("best", GREEN, "star", 14, [r for r in records if r == best and best != baseline]),
    )
    faint = 0.5 if many else 0.9
    return [
        go.Scatter(
            x=[x(record) for record in group],
            y=rounded(y(record) for record in group),
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": size, "opacity": 1 if size > 8 else faint},
            name=name,
            hovertext=[hover(outcome, record) for record in group],
            hoverinfo="text",
        )
        for name, color, symbol, size, group in looks
        if group
    ]


def hover(outcome: Outcome, record: TrialRecord) -> str:
    """What a trial says when it is pointed at."""
    lines = [f"trial {record.number} ({record.role})"]
    if record.verdict:
        pairs = zip(outcome.config.objective.goals, record.verdict.values, strict=True)
        lines += [f"{words.metric(name).short}: {words.metric(name).said(value)}" for name, value in pairs]
        lines += words.misses(record.verdict.violations)
    elif record.failure:
        lines.append(words.cause(record.failure.cause))
    if len(outcome.records) <= MANY:
        lines += (changed(outcome, record) or "as deployed").split(", ")
    return "<br>".join(escape(line[:110], quote=False) for line in lines)


_DEAD = (
    (Ending.CANNOT_RUN, "cannot run", RED),
    (Ending.RULED_OUT, "ruled out, not launched", PINK),
    (Ending.FAILED, "failed, not its fault", GREY),
)


def strip(figure: go.Figure, dead: Sequence[tuple[object, TrialRecord]], outcome: Outcome) -> None:
    """Trials without a measurement, below the axis: they have a place, but no value."""
    for ending, name, color in _DEAD:
        group = [(x, record) for x, record in dead if record.ending is ending]
        if group:
            figure.add_scatter(
                x=[x for x, _ in group],
                y=[0] * len(group),
                yaxis="y2",
                mode="markers",
                marker={"color": color, "symbol": "x-thin", "size": 7, "line": {"color": color, "width": 1.6}},
                name=name,
                hovertext=[hover(outcome, record) for _, record in group],
                hoverinfo="text",
            )
    if dead:
        strip = {"domain": [0, 0.07], "visible": False, "range": [-1, 1], "fixedrange": True}
        figure.update_layout(yaxis_domain=[0.11, 1], yaxis2=strip, xaxis_anchor="y2")


def rounded(values: Iterable[float]) -> list[float]:
    """Five digits are more than can be seen, and keep the page small."""
    return [float(f"{value:.5g}") for value in values]


def wrapped(title: str) -> str:
    """A long title on several short lines, broken where a setting's name has its joints."""
    lines = [""]
    for part in re.split(r"(?<=[_ -])(?=\w)", title):
        if len(lines[-1] + part) > _TITLE_WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "<br>".join(escape(line) for line in lines)


def styled(figure: go.Figure, *, x: str, y: str, height: int = 420, legend: bool = True) -> go.Figure:
    """The figure with the one layout that all have; ``x`` and ``y`` are the axes' titles."""
    figure.update_layout(
        height=height,
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        margin={"l": 8, "r": 12, "t": 28 if legend else 8, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.03, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"bgcolor": "#22262c", "font_color": "#ffffff", "align": "left"},
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(title_text=x, title_font_size=12, gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_yaxes(title_font_size=12, gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_layout(yaxis_title_text=y)
    return figure
