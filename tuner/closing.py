"""The end of a study, or of a sitting: its files are written, and a person reads what came of it."""

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from tuner.live import values_text
from tuner.outcome import Outcome
from tuner.profile import profile_of
from tuner.report import report_html
from tuner.space import Candidate
from tuner.storage import TrialRecord


def close(outcome: Outcome, console: Console) -> None:
    """Write profile and report, and print the closing table."""
    write_results(outcome)
    console.print(table(outcome))
    console.print(outcome.sentence, style="bold", highlight=False, markup=False, soft_wrap=True)
    for path in (outcome.folder.profile, outcome.folder.report):
        if path.exists():
            console.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)


def write_results(outcome: Outcome) -> None:
    """``profile.yaml`` and ``report.html`` in the study's folder."""
    if profile := profile_of(outcome):
        outcome.folder.write(outcome.folder.profile, profile.to_yaml())
    outcome.folder.write(outcome.folder.report, report_html(outcome))


def table(outcome: Outcome) -> Table:
    """Baseline, winner, gain with its spread, and what was pruned and why."""
    grid = Table(title=f"study {outcome.config.study.name}", title_justify="left", show_header=False, box=None)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, text in _rows(outcome):
        grid.add_row(name, text)
    return grid


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    rows = [("baseline", _described(outcome, outcome.baseline))]
    if outcome.improved and outcome.best and outcome.baseline:
        rows.append(("best", f"trial {outcome.best.number}: {_described(outcome, outcome.best)}"))
        rows.append(("  changed", Candidate(outcome.best.params).changed(Candidate(outcome.baseline.params))))
    rows += _gains(outcome)
    measured = sum(record.measurement is not None for record in outcome.searched)
    feasible = sum(record.feasible for record in outcome.searched)
    rows.append(("trials", f"{len(outcome.searched)}: {measured} measured, {feasible} of them within all limits"))
    return rows + _pruned(outcome)


def _described(outcome: Outcome, record: TrialRecord | None) -> str:
    if record is None:
        return "not measured"
    metrics = [f"{name} {_metric(record, name)}" for name in outcome.config.objective.limits]
    return ", ".join([values_text(record, outcome.config.objective), *metrics])


def _metric(record: TrialRecord, name: str) -> str:
    value = getattr(record.measurement, name, None)
    return "not measured" if value is None else f"{value:.1f}"


def _gains(outcome: Outcome) -> list[tuple[str, str]]:
    if outcome.comparison is None:
        return []
    return [
        (
            "gain" if number == 0 else "",
            f"{name} {goal}, over {len(goal.best)} relaunches of each"
            + (" (proven)" if goal.proven else " (unproven)"),
        )
        for number, (name, goal) in enumerate(outcome.comparison.goals.items())
    ]


def _pruned(outcome: Outcome) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for cause, count in outcome.causes.most_common():
        example = next(r.failure for r in outcome.searched if r.failure and r.failure.cause == cause)
        rows.append(
            ("pruned" if not rows else "", f"{count} × {cause}: {(example.line or example.message).strip()[:160]}")
        )
    return rows


def summary(outcome: Outcome) -> dict[str, JsonValue]:
    """Where a study stands, for ``--json``."""
    return {
        "study": outcome.config.study.name,
        "folder": str(outcome.folder.path),
        "finished": len(outcome.searched),
        "budget_trials": outcome.config.budget.trials,
        "over": outcome.over and outcome.confirmed,
        "baseline": list(outcome.baseline.verdict.values) if outcome.baseline and outcome.baseline.verdict else None,
        "best": outcome.best.number if outcome.best else None,
        "best_values": list(outcome.best.verdict.values) if outcome.best and outcome.best.verdict else None,
        "proven": outcome.proven,
        "pruned": dict(outcome.causes),
        "sentence": outcome.sentence,
    }
