"""The report's figures: each with the question that it answers, and how to read it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner import words
from tuner.analysis import figures, frames
from tuner.analysis.parallel import parallel
from tuner.records.outcome import Outcome
from tuner.report.markup import NOTHING, Html, html, joined, table, tag

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure on the page.

    Attributes:
        title: The question that it answers.
        caption: How to read it.
        plots: One, or several small ones, by name.
        kind: ``small`` for many small ones, ``pairs`` for two side by side, ``wide`` for one that needs more room
            than a phone has.
        below: What stands under it.
    """

    title: str
    caption: str
    plots: "tuple[go.Figure, ...]"
    kind: str = ""
    below: Html = NOTHING


def charts(outcome: Outcome) -> list[Chart]:
    """All figures for which the study has something to show."""
    several = len(outcome.config.objective.goals) > 1
    found: list[Chart] = []
    for goal, name in enumerate(outcome.config.objective.goals):
        of = f": {words.metric(name).label}" if several else ""
        found += _of_goal(outcome, goal, of)
    return [chart for chart in (*found, *_of_study(outcome)) if chart.plots]


def _of_goal(outcome: Outcome, goal: int, of: str) -> Iterator[Chart]:
    yield Chart(
        f"Did the search still find better ones?{of}",
        "Each mark is a trial. Crosses on the strip below could not be measured and have no value. "
        "The dashed line is the deployed configuration.",
        _some(figures.history(outcome, goal)),
    )
    varied = [name for name, parameter in outcome.config.space.params.items() if parameter.levels != 1]
    yield Chart(
        f"What does each setting do?{of}",
        "One setting a picture, while all others vary too: a trend across the whole width counts, a single mark does "
        "not. Crosses below: values with which the engine could not run.",
        tuple(plot for name in varied if (plot := figures.slice_of(outcome, name, goal)) is not None),
        kind="small",
    )
    yield Chart(
        f"Which combinations lead where?{of}",
        "Each line is a trial and crosses every setting at its value; the last upright is the goal. "
        "Click on the legend to leave a group out.",
        _some(parallel(outcome, goal)),
        kind="wide",
    )


def _of_study(outcome: Outcome) -> Iterator[Chart]:
    yield Chart(
        "What does throughput cost in latency?",
        "Up and to the left is better. On the dotted line no trial within the limits beats another in both.",
        _some(figures.tradeoff(outcome)),
    )
    yield Chart(
        "Deployed against best: all requests, not only the median",
        "The share of requests that were at least as fast; the further left, the better.",
        tuple(plot for what in figures.LATENCIES if (plot := figures.latencies(outcome, what)) is not None),
        kind="pairs",
    )
    yield Chart(
        "Where did the time go?",
        _timeline_caption(outcome),
        _some(figures.timeline(outcome)),
        below=_phases(outcome),
    )


def _timeline_caption(outcome: Outcome) -> str:
    many = figures.launches_a_bar(outcome)
    bar = "a launch" if many == 1 else f"the mean of {many} launches"
    return f"Each bar is {bar} in wall time, from the bottom up in its phases."


def _phases(outcome: Outcome) -> Html:
    """How much time went into each phase, over the whole study."""
    spent = frames.phases(outcome).groupby("phase", sort=False)["seconds"].sum()
    whole = float(spent.sum()) or 1.0
    rows = [(str(phase), words.duration(s), words.percent(s / whole)) for phase, s in spent.items()]
    return table(("phase", "in all", "share"), rows, "facts narrow")


def _some(figure: "go.Figure | None") -> "tuple[go.Figure, ...]":
    return () if figure is None else (figure,)


def drawn(found: list[Chart]) -> Html:
    """The figures' places, each with the data that the page's script draws."""
    return joined(_section(chart) for chart in found)


def _section(chart: Chart) -> Html:
    kind = chart.kind
    places = joined(_place(plot) for plot in chart.plots)
    parts = (tag("h3", chart.title), tag("p", chart.caption, class_="caption"))
    return tag("section", *parts, tag("div", places, class_=f"plots {kind}".strip()), chart.below)


def _place(plot: "go.Figure") -> Html:
    height = f"min-height:{plot.layout.height}px"
    spec = str(plot.to_json()).replace("<", "\\u003c")  # nothing in a script may look like its end
    data = Html(f'<script type="application/json">{spec}</script>')
    return tag("figure", data, html(""), class_="plot", style=height)
