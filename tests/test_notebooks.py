"""The notebooks, executed on fresh studies of the demo; and what of them is committed."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.simulated import simulated_study
from tuner import analysis

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"
SIZE_KB = 500


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two finished studies of the demo's deployment, with another objective each."""
    folder = tmp_path_factory.mktemp("studies")
    other = simulated_study(folder, 8, "objective=latency", "study.name=demo-latency", seed=5)
    return simulated_study(folder, 20), other


@pytest.fixture(scope="module")
def executed(studies):
    """Both notebooks, run on the two studies."""
    os.environ |= {
        name: str(o.folder.path) for name, o in zip(("TUNER_STUDY", "TUNER_OTHER_STUDY"), studies, strict=True)
    }
    try:
        return {name: execute(name) for name in ("analysis", "compare")}
    finally:
        del os.environ["TUNER_STUDY"], os.environ["TUNER_OTHER_STUDY"]


def execute(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return notebook


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook):
    shown = outputs(notebook)
    return "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown)


def figures(notebook):
    return [output["data"][FIGURE] for output in outputs(notebook) if FIGURE in output.get("data", {})]


@pytest.mark.parametrize("name", ["analysis", "compare"])
def test_every_cell_runs_and_nothing_is_said_on_the_side(executed, name):
    assert [output.get("name") for output in outputs(executed[name]) if output.get("name") == "stderr"] == []


def test_the_analysis_has_all_of_the_reports_figures(executed, studies):
    from tuner.report.charts import charts

    of_report = [plot for chart in charts(studies[0]) for plot in chart.plots]
    shown = figures(executed["analysis"])
    assert sorted(traces(figure) for figure in shown) == sorted(
        traces(json.loads(plot.to_json())) for plot in of_report
    )


def traces(figure):
    return [(trace["type"], trace.get("name") or "") for trace in figure["data"]]


def test_the_analysis_begins_with_the_verdict(executed, studies):
    assert studies[0].sentence in text(executed["analysis"])


def test_the_comparison_sets_both_studies_side_by_side(executed, studies):
    said = text(executed["compare"])
    assert all(f"{outcome.config.study.name}: {outcome.sentence}" in said for outcome in studies)
    assert "Output throughput, all users" in said
    assert len(figures(executed["compare"])) == 2


@pytest.mark.parametrize("name", ["analysis", "compare"])
def test_committed_outputs_are_there_and_small(name):
    file = NOTEBOOKS / f"{name}.ipynb"
    committed = nbformat.read(file, as_version=4)
    assert file.stat().st_size < SIZE_KB * 1000
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert figures(committed)


@pytest.mark.parametrize("name", ["analysis", "compare"])
def test_committed_outputs_say_nothing_of_the_machine_they_were_made_on(name):
    kept = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert not [word for word in ("/work/", "/root/", "/home/", "/tmp/", "site-packages") if word in kept]


def test_an_unfinished_study_can_be_analysed_as_well(tmp_path, monkeypatch):
    outcome = simulated_study(tmp_path, 3)
    monkeypatch.setenv("TUNER_STUDY", str(outcome.folder.path))
    assert analysis.study(outcome.folder.path).sentence in text(execute("analysis"))
