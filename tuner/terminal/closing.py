"""The end of a run: the study's files are written, and its result is shown to a person."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import words
from tuner.export.compose import compose_of
from tuner.export.profile import SCHEMA, profile_of, schema
from tuner.records import verdict
from tuner.records.bottleneck import Bottleneck, bottleneck, finalists
from tuner.records.expected import check_of, expectations, interval
from tuner.records.outcome import Outcome, named
from tuner.records.record import Role, TrialRecord
from tuner.records.screened import agreement
from tuner.secrets import redacted
from tuner.study import agreed, earned
from tuner.study.minimal import effects_of
from tuner.study.pace import left_s

_LINE = 160
"""Characters of a deciding line that the closing table shows; the report has all of it."""


def close(outcome: Outcome, console: Console) -> None:
    """Write profile and report, and print the closing table."""
    written = write_results(outcome)
    console.print(table(outcome))
    console.print(outcome.sentence, style="bold", highlight=False, markup=False, soft_wrap=True)
    if worse := verdict.worse(outcome):
        text = f"What got worse: {'; '.join(worse)}."
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)


def write_results(outcome: Outcome) -> list[Path]:
    """``profile.yaml`` and ``compose.yaml`` of a winner, and ``report.html``, in the study's folder.

    Where the verdict is to keep what is deployed, there is neither profile nor compose file, also not an earlier one.

    Returns:
        Those that are there now.
    """
    from tuner.report import report_html  # frames and figures take a second to import

    folder, profile, compose = outcome.folder, profile_of(outcome), compose_of(outcome)
    _write(outcome, folder.profile, profile.to_yaml() if profile else None)
    _write(outcome, folder.profile.with_name(SCHEMA), schema() if profile else None)
    _write(outcome, folder.compose, compose)
    folder.write(folder.report, report_html(outcome))
    return [path for path in (folder.profile, folder.compose, folder.report) if path.exists()]


def _write(outcome: Outcome, path: Path, text: str | None) -> None:
    if text is None:
        path.unlink(missing_ok=True)
    else:
        outcome.folder.write(path, text)


def table(outcome: Outcome) -> Table:
    """Baseline, winner, gain with its spread, and what was pruned and why."""
    grid = Table(title=f"study {outcome.config.study.name}", title_justify="left", show_header=False, box=None)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, text in _rows(outcome):
        grid.add_row(name, Text(text))
    return grid


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    rows = _finalists(outcome)
    measured = sum(record.measurement is not None for record in outcome.searched)
    within = sum(map(outcome.within, outcome.searched))
    rows.append(("trials", f"{len(outcome.launched)}: {measured} measured, {within} of them within all limits"))
    return [
        *rows,
        *_pruned(outcome),
        *_headed("binds", [f"{name}: {found.sentence}" for name, found in finalists(outcome).items()]),
        *_headed("began with", agreed.sentences(outcome)),
        *_headed("expected", [found.sentence for found in [expectations(outcome)] if found]),
        *_headed("screened", _screened(outcome)),
        *_headed("trade", [text for text in [verdict.trade(outcome)] if text]),
        *_headed("drift", verdict.drifts(outcome)),
        *_headed("failed requests", outcome.failed_requests),
        *_headed("disturbed", outcome.disturbed),
        *_headed("warnings", _warnings(outcome)),
        *_headed("damaged", [f"{each}; its trial is not counted" for each in outcome.folder.damaged()]),
        ("time", _time(outcome)),
        ("now", standing(outcome)),
    ]


def _screened(outcome: Outcome) -> Sequence[str]:
    found = agreement(outcome)
    return found.sentences if found else ()


def _headed(heading: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [("" if number else heading, line) for number, line in enumerate(lines)]


def _finalists(outcome: Outcome) -> list[tuple[str, str]]:
    """Deployed and best by their relaunches; by their own trials only until there are any."""
    decision = outcome.decision
    rows = [("deployed", _described(outcome, outcome.baseline))]
    if not (outcome.improved and outcome.best and outcome.chosen and outcome.baseline):
        return rows
    changed = ("  changed", outcome.config.space.changed(outcome.chosen.params, outcome.deployed))
    if decision is None or not decision.launches:
        best = ("best", f"trial {outcome.best.number}: {_described(outcome, outcome.best)}")
        return [*rows, best, changed, *_headed("earns", earned.sentences(outcome))]
    rows = [("deployed", _relaunched(outcome, Role.CONFIRM_BASELINE))]
    rows.append(("best", f"trial {outcome.best.number}: {_relaunched(outcome, Role.CONFIRM_BEST)}"))
    said = f"{verdict.effects(decision)}, over {verdict.launches(decision)} of each ({verdict.title(decision)})"
    limits = [f"{text}: {'kept' if bound.kept else 'not shown'}" for text, bound in verdict.limits(outcome)]
    checks = [*_headed("limits", limits), *_headed("answers", verdict.answers(outcome))]
    checks += _headed("soak", verdict.soak(outcome))
    return [*rows, changed, ("relaunched", said), *checks, *_headed("earns", earned.sentences(outcome))]


def _relaunched(outcome: Outcome, role: Role) -> str:
    """The means over the relaunches of one of the two."""
    records = [r for r in outcome.proof.launches if r.role is role] if outcome.proof else []
    measured = [record.measurement for record in records if record.measurement]
    said = []
    for name in _decisive(outcome):
        values = [value for m in measured if (value := m.numbers.get(name)) is not None]
        metric = words.metric(name)
        said.append(f"{metric.short} {metric.said(fmean(values) if values else None)}")
    return ", ".join(said)


def _decisive(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys([*outcome.config.objective.goals, *outcome.config.objective.limits]))


def _warnings(outcome: Outcome) -> list[str]:
    """What the measurements of baseline and best say against themselves."""
    finalists = (outcome.baseline, outcome.best if outcome.improved else None)
    return [
        f"{named(record.role, record.number)}: {warning}"
        for record in finalists
        if record and record.measurement
        for warning in record.measurement.warnings
    ]


def _described(outcome: Outcome, record: TrialRecord | None) -> str:
    if record is None or record.measurement is None:
        return "not measured"
    numbers = record.measurement.numbers
    said = ((words.metric(name), numbers.get(name)) for name in _decisive(outcome))
    return ", ".join(f"{metric.short} {metric.said(value)}" for metric, value in said)


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
    spent = words.duration(outcome.spent_s)
    left = None if outcome.over and outcome.confirmed else left_s(outcome)
    return f"{spent} spent" + ("" if left is None else f", about {words.rough(left)} left")


def standing(outcome: Outcome) -> str:
    """Whether a study runs, is complete, or can be resumed."""
    if (holder := outcome.folder.holder()) is not None:
        return f"running (process {holder})"
    if outcome.over and outcome.confirmed:
        return "complete"
    return "not running; `tuner study start` with the same arguments resumes it"


def launches(outcome: Outcome) -> Table | None:
    """Launch by launch what the search expected and what was read, and what held it back; ``None`` before any."""
    measured = [record for record in outcome.launched if record.measurement]
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("trial", "why", "expected", "read", "off", "binds", "of the bandwidth"):
        grid.add_column(heading, overflow="fold")
    for record in measured:
        grid.add_row(*_launch(outcome, record))
    return grid if measured else None


def _launch(outcome: Outcome, record: TrialRecord) -> tuple[str, ...]:
    name = next(iter(outcome.config.objective.goals))
    metric, check, found = words.metric(name), check_of(record, name), bottleneck(record, outcome)
    why, expected = (record.expected.why, interval(record.expected, name)) if record.expected else (record.role, "")
    read = metric.said(record.measurement.numbers.get(name)) if record.measurement else ""
    off = words.percent(check.error, sign=True) + ("" if check.inside else " (outside)") if check else ""
    binds = (str(found.limit), "" if found.share is None else f"{found.share:.0%}") if found else ("", "")
    return str(record.number), why, expected, read, off, *binds


def launched(outcome: Outcome) -> list[JsonValue]:
    """The same for ``--json``."""
    return [_told(outcome, record) for record in outcome.launched if record.measurement]


def _told(outcome: Outcome, record: TrialRecord) -> dict[str, JsonValue]:
    check, found = check_of(record, next(iter(outcome.config.objective.goals))), bottleneck(record, outcome)
    return {
        "number": record.number,
        "expected": record.expected.model_dump(mode="json") if record.expected else None,
        "read": check.read if check else None,
        "error": check.error if check else None,
        "inside": check.inside if check else None,
        **_bound(found),
    }


def _bound(found: Bottleneck | None) -> dict[str, JsonValue]:
    if found is None:
        return {"binds": None, "because": None, "bandwidth_share": None}
    return {"binds": found.limit, "because": found.why, "bandwidth_share": found.share}


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
    effects = effects_of(outcome)
    return {
        "study": outcome.config.study.name,
        "folder": str(outcome.folder.path),
        "finished": len(outcome.launched),
        "relaunched": len(outcome.confirmations),
        "ruled_out": len(outcome.ruled_out),
        "screened": sum(len(record.screened) for record in outcome.records),
        "budget_trials": outcome.config.budget.trials,
        "over": outcome.over and outcome.confirmed,
        "running": outcome.folder.holder(),
        "spent_s": outcome.spent_s,
        "left_s": None if outcome.over and outcome.confirmed else left_s(outcome),
        "baseline": list(outcome.baseline.verdict.values) if outcome.baseline and outcome.baseline.verdict else None,
        "best": outcome.best.number if outcome.best else None,
        "best_values": list(outcome.best.verdict.values) if outcome.best and outcome.best.verdict else None,
        "proven": outcome.proven,
        "kind": outcome.decision.kind if outcome.decision else None,
        "decision": outcome.decision.model_dump(mode="json") if outcome.decision else None,
        "effects": effects.model_dump(mode="json") if effects else None,
        "binds": {name: _bound(found) for name, found in finalists(outcome).items()},
        "launches": launched(outcome),
        "began_with": dict(agreed.agreement(outcome)),
        "worse": list(verdict.worse(outcome)),
        "answers": list(verdict.answers(outcome)),
        "soak": list(verdict.soak(outcome)),
        "near_misses": [*(record.number for record in outcome.near_misses)],
        "pruned": dict(outcome.causes),
        "sentence": outcome.sentence,
    }
