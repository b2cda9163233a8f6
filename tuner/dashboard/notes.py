"""What tuner writes about a study and its trials in the dashboard, in Markdown.

The dashboard shows every trial's numbers, but its own best trial ignores limits and relaunches: the study's note says
what really came out, and each trial's what ran, how it ended and which line decided it.
"""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap

from tuner import words
from tuner.analysis.tables import Row, rows
from tuner.engines.effective import Status
from tuner.host.state import GpuState, HostState
from tuner.records.outcome import Outcome
from tuner.records.record import Ending, TrialRecord
from tuner.records.verdict import answers, soak
from tuner.records.verdict import worse as worsened
from tuner.secrets import redacted

_LONGEST_LINE = 1500
_WIDTH = 88
"""Characters that fit side by side in the dashboard's narrow column."""


def study_note(outcome: Outcome) -> str:
    """What has come of a study so far; the feasible best above all."""
    parts = [f"## {outcome.sentence}", _best(outcome)]
    parts += ["The dashboard's own *Best Trial* knows neither limits nor relaunches: this note does."]
    if outcome.causes:
        rows = [(words.cause(name), str(count)) for name, count in outcome.causes.most_common()]
        parts += ["### What could not run", _table(("cause", "trials"), rows)]
    return redacted("\n\n".join(parts))


def study_facts(outcome: Outcome) -> Mapping[str, str]:
    """What stands on the study's first page, next to the dashboard's own best trial."""
    facts = {"verdict": outcome.sentence}
    if outcome.best is not None and outcome.best.verdict is not None and outcome.decision is None:
        pairs = zip(outcome.config.objective.goals, outcome.best.verdict.values, strict=True)
        values = ", ".join(words.metric(name).said(value) for name, value in pairs)
        facts["best within all limits so far"] = f"trial {outcome.best.number}: {values}"
    return {name: redacted(text) for name, text in facts.items()}


def _best(outcome: Outcome) -> str:
    """Deployed against best: by the relaunches, or by their own trials until there are any."""
    if outcome.baseline is None and outcome.best is None:
        return "Nothing has been measured yet."
    best = f"trial {outcome.best.number}" if outcome.improved and outcome.best else ""
    shown = [row for row in rows(outcome) if row.matters]
    table = _table(("", "deployed", best, "change"), [_row(row) for row in shown])
    by = "Means over the relaunches." if outcome.decision else "As in their own trials; relaunches decide."
    worse = [f"**What got worse: {'; '.join(found)}.**"] if (found := worsened(outcome)) else []
    answered = [f"Answers, {said}." for said in answers(outcome)]
    soaked = [f"Soak: {said}." for said in soak(outcome)]
    return "\n\n".join([table, *worse, *answered, *soaked, by])


def _row(row: Row) -> tuple[str, str, str, str]:
    means = ["" if sample is None else f"{words.digits(sample.mean)} {row.unit}" for sample in (row.baseline, row.best)]
    change = "" if row.change is None else words.percent(row.change, sign=True)
    if row.interval:
        change += " [{}, {}]".format(*(words.percent(end, sign=True) for end in row.interval))
    return row.label, means[0], means[1], change


def trial_note(outcome: Outcome, record: TrialRecord) -> str:
    """What ran, what became of it, and why."""
    parts = [f"**{_verdict(outcome, record)}**", *_reason(record), *_changed(outcome, record)]
    parts += [*_otherwise(record), *_slower(record), *_disturbed(record), *_host(record), *_phases(record)]
    parts += ["Command line:", _fenced(words.command(record.argv)), "Log, requests and record are among the artifacts."]
    return redacted("\n\n".join(parts))


def trial_facts(record: TrialRecord) -> Mapping[str, str | float | bool]:
    """What stands below a trial's parameters, brief enough for the dashboard's narrow page; the note has all of it."""
    facts: dict[str, str | float | bool] = {"role": record.role, "digest": record.digest, "seconds": record.seconds}
    if not record.launched:
        facts["launched"] = False
    if record.failure:
        line, message = record.failure.line, record.failure.message
        facts |= {"cause": record.failure.cause} | ({"line": _brief(line)} if line else {"reason": _brief(message)})
    if record.verdict:
        facts["verdict"] = record.verdict.reason
    return facts


def _brief(text: str) -> str:
    return redacted(words.cut(words.unprefixed(text), _WIDTH))


_SAID = {
    Ending.RULED_OUT: "Ruled out before a launch",
    Ending.CANNOT_RUN: "Cannot run",
    Ending.FAILED: "Failed, and not for its configuration",
}


def _verdict(outcome: Outcome, record: TrialRecord) -> str:
    if record.failure:
        return f"{_SAID[record.ending]}: {words.cause(record.failure.cause)}."
    if record.verdict is None:
        return "No verdict."
    pairs = zip(outcome.config.objective.goals, record.verdict.values, strict=True)
    values = ", ".join(f"{words.metric(name).short} {words.metric(name).said(value)}" for name, value in pairs)
    missed = "; ".join(words.misses(record.verdict.violations)) or "all limits met"
    return f"{values}; {missed}."


def _reason(record: TrialRecord) -> Iterable[str]:
    if record.failure is None:
        return
    yield "Deciding line:" if record.failure.line else "What happened:"
    yield _quoted(record.failure.line or record.failure.message)
    if record.failure.advice:
        yield f"What to do: {record.failure.advice}"


def _changed(outcome: Outcome, record: TrialRecord) -> Iterable[str]:
    space, deployed = outcome.config.space, outcome.deployed
    changes = space.changes(record.params, deployed)
    if not changes:
        yield "As deployed."
        return
    rows = [
        (f"`{words.setting(space, name)}`", words.value(deployed.get(name)), words.value(value))
        for name, value in changes.items()
    ]
    yield _table(("setting", "deployed", "here"), rows)


def _otherwise(record: TrialRecord) -> Iterable[str]:
    """What ran with another value than was asked for."""
    rows = [
        (f"`{each.name}`", words.value(each.requested), words.value(each.effective), each.by or "")
        for each in record.effective
        if each.status is Status.OVERRIDDEN
    ]
    if rows:
        yield _table(("overridden", "asked", "what ran", "by"), rows)


def _slower(record: TrialRecord) -> Iterable[str]:
    if record.facts and record.facts.degradations:
        names = ", ".join(each.name.replace("_", " ") for each in record.facts.degradations)
        yield f"Slower than it could be: {names}."
    if record.facts and record.facts.compile_cache_hit is False:
        yield "A cold start: the compile cache held nothing for it."


def _disturbed(record: TrialRecord) -> Iterable[str]:
    for each in record.disturbed:
        became = "it counts all the same, for want of a better turn" if each.counts else "it was sent again"
        who = "Others used this machine" if each.by_others else "The server was busy with itself"
        yield f"{who} during *{each.stage}*; {became}:"
        yield _quoted(each.line)


def _host(record: TrialRecord) -> Iterable[str]:
    """The machine in each turn of each stage."""
    rows = [
        (each.stage, *_cores(each.state), "; ".join(map(_gpu, each.state.gpus)) or "not known") for each in record.host
    ]
    if rows:
        yield _table(("this machine during", "cores busy", "of others", "steal", "GPUs"), rows)


def _cores(state: HostState) -> tuple[str, str, str]:
    others = None if state.other_cpu_cores is None or not state.cores else state.other_cpu_cores / state.cores
    return _share(state.cpu_busy_share), _share(others), _share(state.cpu_steal_share)


def _share(share: float | None) -> str:
    return "not known" if share is None else words.percent(share)


def _gpu(state: GpuState) -> str:
    """Index, then what is known of it."""
    readings = (
        (state.sm_clock_mhz, "{:.0f} MHz"),
        (state.temperature_c, "{:.0f} °C"),
        (state.power_w, "{:.0f} W"),
        (state.memory_used_mib, "{:.0f} MiB used"),
        (state.other_memory_mib, "{:.0f} MiB by others"),
        (state.other_utilization, "others {:.0%}"),
    )
    known = [text.format(value) for value, text in readings if value is not None]
    return f"{state.index}: " + ", ".join([*known, *(state.throttle_reasons or ())])


def _phases(record: TrialRecord) -> Iterable[str]:
    if not record.phases:
        return
    spans = ", ".join(f"{span.phase} {words.duration(span.seconds)}" for span in record.phases)
    yield f"{words.duration(record.seconds)} in all: {spans}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _quoted(line: str) -> str:
    """A log's line as it stands, but for line ends: the dashboard would scroll sideways."""
    return _fenced("\n".join(wrap(line.strip()[:_LONGEST_LINE], _WIDTH, break_on_hyphens=False)))


def _fenced(shown: str) -> str:
    """A text that is not ours, in a fence that it cannot leave."""
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}text\n{shown}\n{fence}"
