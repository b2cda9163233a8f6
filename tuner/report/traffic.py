"""A workload as one self-contained page: figures of its lengths, arrivals and shared prefixes."""

from collections.abc import Sequence

import plotly.graph_objects as go

from tuner.analysis.marks import styled
from tuner.load.outline import Outline
from tuner.load.wording import sending
from tuner.load.workload import Workload
from tuner.report import page
from tuner.report.charts import Chart, drawn
from tuner.report.markup import tag


def traffic_html(workload: Workload, stages: Sequence[Outline]) -> str:
    """The page."""
    found = [chart for chart in (_lengths(stages), _arrivals(stages), _sharing(stages)) if chart.plots]
    head = tag("header", tag("h1", workload.name), tag("p", sending(workload)))
    return page(f"{workload.name}: tuner workload", tag("main", head, drawn(found)), script=True)


def _lengths(stages: Sequence[Outline]) -> Chart:
    prompts, outputs = go.Figure(), go.Figure()
    for stage in stages:
        prompts.add_histogram(x=stage.prompts, name=stage.name, opacity=0.6)
        outputs.add_histogram(x=stage.outputs, name=stage.name, opacity=0.6)
    plots = [styled(prompts, x="prompt tokens", y="requests"), styled(outputs, x="output tokens", y="requests")]
    for plot in plots:
        plot.update_layout(barmode="overlay")
    return Chart("How long are prompts and answers?", "Requests by length.", tuple(plots), "pairs")


def _arrivals(stages: Sequence[Outline]) -> Chart:
    figure = go.Figure()
    for stage in stages:
        if stage.due_s:
            sent = list(range(1, len(stage.due_s) + 1))
            figure.add_scatter(x=stage.due_s, y=sent, mode="lines", line={"shape": "hv"}, name=stage.name)
    plots = (styled(figure, x="seconds", y="requests sent"),) if figure.data else ()
    return Chart("When are they sent?", "Whatever the server does; the slope is the rate.", plots)


def _sharing(stages: Sequence[Outline]) -> Chart:
    figure = go.Figure()
    for stage in stages:
        if any(stage.shared):
            shares = [shared / prompt for shared, prompt in zip(stage.shared, stage.prompts, strict=True)]
            figure.add_scatter(x=list(range(len(shares))), y=shares, mode="markers", name=stage.name)
    plots = (styled(figure, x="request", y="share of the prompt sent before"),) if figure.data else ()
    return Chart("What can a prefix cache find?", "With room for all of it; the server's may be smaller.", plots)
