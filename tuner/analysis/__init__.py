"""A study for whoever wants to know more: frames with documented columns, tables, and figures.

The report, the notebooks and ``tuner study export`` use nothing else. Start with ``study``::

    from tuner import analysis

    outcome = analysis.study("studies/demo")
    analysis.trials(outcome).sort_values("gain")
"""

from pathlib import Path

from tuner.analysis.export import FORMATS, TABLES, export
from tuner.analysis.figures import (
    LATENCIES,
    history,
    latencies,
    launches_a_bar,
    pareto_front,
    slice_of,
    timeline,
    tradeoff,
)
from tuner.analysis.frames import documented, failures, phases, requests, trials
from tuner.analysis.parallel import parallel
from tuner.analysis.tables import comparison, settings, side_by_side
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome

__all__ = [
    "FORMATS",
    "LATENCIES",
    "TABLES",
    "comparison",
    "documented",
    "export",
    "failures",
    "history",
    "latencies",
    "launches_a_bar",
    "parallel",
    "pareto_front",
    "phases",
    "requests",
    "settings",
    "side_by_side",
    "slice_of",
    "study",
    "timeline",
    "tradeoff",
    "trials",
]


def study(path: str | Path) -> Outcome:
    """The study in a folder, ``studies/demo``.

    Raises:
        ConfigError: There is none.
    """
    folder = StudyFolder(Path(path))
    if not folder.config.exists():
        raise ConfigError(f"{path} holds no study", fix="name a folder with a config.yaml, such as studies/demo")
    return Outcome.of(folder)
