"""The end of a study, or of a sitting: its files are written, and a person reads what came of it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import words
from tuner.compare import GoalComparison
from tuner.compose import compose_of
from tuner.outcome import Outcome
from tuner.pace import left_s
from tuner.profile import profile_of
from tuner.secrets import redacted
from tuner.space import Candidate
from tuner.storage import TrialRecord

_LINE = 160
"""Characters of a deciding line that the closing table shows; the report has all of it."""


def close(outcome: Outcome, console: Console) -> None:
    """Write profile and report, and print the closing table."""
    written = write_results(outcome)
    console.print(table(outcome))
    console.print(outcome.sentence, style="bold", highlight=False, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)


def write_results(outcome: Outcome) -> list[Path]:
    """``profile.yaml``, ``compose.yaml`` and ``report.html`` in the study's folder, as far as there is what they need.

    Returns:
        Those that are there now.
    """
    from tuner.report import report_html  # frames and figures take a second to import

    if profile := profile_of(outcome):
        outcome.folder.write(outcome.folder.profile, profile.to_yaml())
    if compose := compose_of(outcome):
        outcome.folder.write(outcome.folder.compose, compose)
    outcome.folder.write(outcome.folder.report, report_html(outcome))
    folder = outcome.folder
    return [path for path in (folder.profile, folder.compose, folder.report) if path.exists()]


def table(outcome: Outcome) -> Table:
    """Baseline, winner, gain with its spread, and what was pruned and why."""
    grid = Table(title=f"study {outcome.config.study.name}", title_justify="left", show_header=False, box=None)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, text in _rows(outcome):
        grid.add_row(name, Text(text))
    return grid


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    rows = [("deployed", _described(outcome, outcome.baseline))]
    if outcome.improved and outcome.best and outcome.baseline:
        rows.append(("best", f"trial {outcome.best.number}: {_described(outcome, outcome.best)}"))
        rows.append(("  changed", Candidate(outcome.best.params).changed(outcome.deployed)))
    rows += _gains(outcome)
    measured = sum(record.measurement is not None for record in outcome.searched)
    feasible = sum(record.feasible for record in outcome.searched)
    rows.append(("trials", f"{len(outcome.launched)}: {measured} measured, {feasible} of them within all limits"))
    return [
        *rows,
        *_pruned(outcome),
        *_unanswered(outcome),
        *_spoiled(outcome),
        *(("damaged", f"{each}; its trial is not counted") for each in outcome.folder.damaged()),
        ("time", _time(outcome)),
        ("now", standing(outcome)),
    ]


def _unanswered(outcome: Outcome) -> list[tuple[str, str]]:
    return [("" if number else "failed requests", said) for number, said in enumerate(outcome.failed_requests)]


def _spoiled(outcome: Outcome) -> list[tuple[str, str]]:
    return [("" if number else "spoiled", said) for number, said in enumerate(outcome.spoiled)]


def _described(outcome: Outcome, record: TrialRecord | None) -> str:
    if record is None or record.measurement is None:
        return "not measured"
    names = dict.fromkeys([*outcome.config.objective.goals, *outcome.config.objective.limits])
    said = ((words.metric(name), getattr(record.measurement, name)) for name in names)
    return ", ".join(f"{metric.short} {metric.said(value)}" for metric, value in said)


def _gains(outcome: Outcome) -> list[tuple[str, str]]:
    """What decides, with the relaunches' own means: the best trial's single measurement was chosen for reading high."""
    if outcome.comparison is None:
        return []
    return [
        (
            "relaunched" if number == 0 else "",
            f"{outcome.changed(name)}, over {_relaunches(goal)} of each"
            + (" (proven)" if goal.proven else " (unproven)")
            + f": {words.digits(fmean(goal.baseline))} → {words.metric(name).said(fmean(goal.best))}",
        )
        for number, (name, goal) in enumerate(outcome.comparison.goals.items())
    ]


def _relaunches(goal: GoalComparison) -> str:
    fewer = min(len(goal.baseline), len(goal.best))
    return "1 relaunch" if fewer == 1 else f"{fewer} relaunches"


def _pruned(outcome: Outcome) -> list[tuple[str, str]]:
    dead = [record for record in outcome.launched if record.failure]
    return [*_by_cause("cannot run", dead), *_by_cause("ruled out", outcome.ruled_out)]


def _by_cause(heading: str, records: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    failures = [record.failure for record in records if record.failure]
    rows: list[tuple[str, str]] = []
    for cause, count in Counter(failure.cause for failure in failures).most_common():
        example = next(failure for failure in failures if failure.cause == cause)
        line = words.cut(words.unprefixed(redacted(example.line or example.message)), _LINE)
        rows.append(("" if rows else heading, f"{count} × {words.cause(cause)}: {line}"))
    return rows


def _time(outcome: Outcome) -> str:
    spent = words.duration(sum(record.seconds for record in (*outcome.records, *outcome.relaunches)))
    left = None if outcome.over and outcome.confirmed else left_s(outcome)
    return f"{spent} spent" + ("" if left is None else f", about {words.rough(left)} left")


def standing(outcome: Outcome) -> str:
    """Whether a study runs, is complete, or can go on."""
    if holder := outcome.folder.holder():
        return f"running (process {holder})"
    if outcome.over and outcome.confirmed:
        return "complete"
    return "not running; `tuner study start` with the same arguments goes on with it"


def overview(outcomes: Sequence[Outcome]) -> Table:
    """All studies, a line each."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("study", "trials", "now", "verdict"):
        grid.add_column(heading, no_wrap=heading != "verdict")
    for outcome in outcomes:
        now = standing(outcome).partition(";")[0]
        grid.add_row(outcome.config.study.name, str(len(outcome.launched)), now, Text(outcome.sentence))
    return grid


def summary(outcome: Outcome) -> dict[str, JsonValue]:
    """Where a study stands, for ``--json``."""
    return {
        "study": outcome.config.study.name,
        "folder": str(outcome.folder.path),
        "finished": len(outcome.launched),
        "ruled_out": len(outcome.ruled_out),
        "budget_trials": outcome.config.budget.trials,
        "over": outcome.over and outcome.confirmed,
        "running": outcome.folder.holder(),
        "spent_s": sum(record.seconds for record in (*outcome.records, *outcome.relaunches)),
        "left_s": None if outcome.over and outcome.confirmed else left_s(outcome),
        "baseline": list(outcome.baseline.verdict.values) if outcome.baseline and outcome.baseline.verdict else None,
        "best": outcome.best.number if outcome.best else None,
        "best_values": list(outcome.best.verdict.values) if outcome.best and outcome.best.verdict else None,
        "proven": outcome.proven,
        "pruned": dict(outcome.causes),
        "sentence": outcome.sentence,
    }
