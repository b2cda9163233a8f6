"""What a study found, in tables: the verdict, baseline against best, what changes, what was tried, what failed."""

from collections.abc import Mapping, Sequence
from itertools import chain, groupby

from pydantic import JsonValue

from tuner import words
from tuner.analysis.frames import cold, damaged_requests, gain
from tuner.analysis.tables import Row, Sample, finalists, rows
from tuner.engines.registry import kind_of
from tuner.objective import Limit
from tuner.proof.decision import Bound, Kind
from tuner.records import verdict as words_of
from tuner.records.bottleneck import finalists as binds
from tuner.records.idle import idle_parameters
from tuner.records.outcome import Outcome
from tuner.records.record import Ending, Role, TrialRecord
from tuner.report import launches
from tuner.report.launches import numbers
from tuner.report.markup import NOTHING, Html, folded, html, joined, table, tag
from tuner.study import earned
from tuner.study.minimal import SettingEffect, effects_of

_LEGEND = "Grey: as deployed. –: has no effect with the other settings."
_WHOLE, _SHOWN = 40, 25
"""A study of more trials than the first shows as many of its best as the second, and all of them on request."""


def verdict(outcome: Outcome) -> Html:
    """The answer, in one sentence, and what it rests on."""
    name = outcome.config.study.name
    kind = _look_of(outcome)
    place, worse = f"{outcome.config.model.id} on {outcome.config.hardware.name}", words_of.worse(outcome)
    return joined(
        [
            tag("p", f"tuner study {name}", class_="kicker"),
            tag("h1", outcome.sentence, class_=f"verdict {kind}"),
            *([tag("p", f"What got worse: {'; '.join(worse)}.", class_="warning")] if worse else []),
            tag("p", place, class_="place"),
            tag("p", _effort(outcome), class_="effort"),
            *(tag("p", f"{name}: {found.sentence}.", class_="note") for name, found in binds(outcome).items()),
            _simulated(outcome),
            *(tag("p", f"{each}; its trial is not counted.", class_="note") for each in outcome.folder.damaged()),
            *(tag("p", f"{each}: its requests are not shown.", class_="note") for each in _damaged_requests(outcome)),
        ]
    )


def _damaged_requests(outcome: Outcome) -> list[str]:
    return damaged_requests(outcome, chain(*finalists(outcome)))


def _look_of(outcome: Outcome) -> str:
    """Green for a winner, amber for one of which something is not shown, red where nothing could run."""
    if outcome.decision and outcome.decision.kind is Kind.LIMIT_NOT_SHOWN:
        return "doubted"
    return "proven" if outcome.proven else "none" if outcome.best is None else "kept"


def _effort(outcome: Outcome) -> str:
    every = (*outcome.records, *outcome.relaunches)
    measured = sum(record.measurement is not None for record in outcome.searched)
    feasible = sum(map(outcome.within, outcome.searched))
    spent = words.duration(outcome.spent_s)
    day = min((record.started_at for record in every), default="")[:10]
    relaunches = f", {len(outcome.relaunches)} relaunches" if outcome.relaunches else ""
    trials = f"{len(outcome.launched):,} trials: {measured} measured, {feasible} of them within all limits"
    trials += f"; {len(outcome.ruled_out)} more ruled out before a launch" if outcome.ruled_out else ""
    return f"{trials}{relaunches}; {spent} of server time, begun {day}." if day else f"{trials}."


def _simulated(outcome: Outcome) -> Html:
    if not outcome.config.hardware.simulated:
        return NOTHING
    return tag("p", "Simulated: no GPU was used, and the times are those of the simulated engine.", class_="note")


def comparison(outcome: Outcome) -> Html:
    """Baseline against best, each change with its interval."""
    compared = rows(outcome)
    if not compared:
        return tag("p", "The deployed configuration was not measured, so there is nothing to compare with.")
    limits = {words.metric(name).label: _limit(limit) for name, limit in outcome.config.objective.limits.items()}
    head = ("", "deployed", "best found" if outcome.improved else "", "change")
    first = table(head, [_compared(row, limits.get(row.label, "")) for row in compared if row.matters], "numbers")
    rest = table(head, [_compared(row, "") for row in compared if not row.matters], "numbers")
    failed = [tag("p", f"Requests that failed: {said}.", class_="note") for said in outcome.failed_requests]
    failed += [tag("p", f"Measured in disturbance: {said}.", class_="note") for said in outcome.disturbed]
    failed += [tag("p", f"Limit: {said}: {_kept(bound)}.", class_="note") for said, bound in words_of.limits(outcome)]
    failed += [tag("p", f"Answers, {said}.", class_="note") for said in words_of.answers(outcome)]
    failed += [tag("p", f"Soak: {said}.", class_="note") for said in words_of.soak(outcome)]
    failed += [tag("p", f"{said}.", class_="note") for said in words_of.drifts(outcome)]
    if said := words_of.trade(outcome):
        failed.append(tag("p", f"{said}.", class_="note"))
    return joined([first, *failed, tag("p", _basis(outcome), class_="caption"), folded("All other numbers", rest)])


def _kept(bound: Bound) -> str:
    return "shown to be kept" if bound.kept else "shown to be broken" if bound.broken else "not shown to be kept"


def _basis(outcome: Outcome) -> str:
    before, after = (len(records) for records in finalists(outcome))
    if outcome.decision is None:
        return "From one trial each; the best of many trials reads too high until it is launched again."
    return (
        f"Means over {before} launches of the deployed and {after} of the best configuration, in turns and on fresh "
        "prompts; below each the lowest and the highest, below a change the interval in which it is. A change that "
        "noise could explain stands in grey."
    )


def _limit(limit: Limit) -> str:
    bound, word = (limit.max, "at most") if limit.max is not None else (limit.min, "at least")
    return f"limit: {word} {bound:g}" + (" × deployed" if limit.of == "baseline" else "")


def _compared(row: Row, limit: str) -> tuple[str, ...]:
    name = joined([row.label, tag("small", limit)]) if limit else row.label
    look = "same" if row.better is None else "better" if row.better else "worse"
    change = "" if row.change is None else words.percent(row.change, sign=True)
    shown = tag("span", change, class_=look)
    if row.interval:
        shown = joined([shown, tag("small", " … ".join(words.percent(end, sign=True) for end in row.interval))])
    before, after = _sampled(row.baseline, row.unit, row.skipped[0]), _sampled(row.best, row.unit, row.skipped[1])
    return name, before, after, shown


def _sampled(sample: Sample | None, unit: str, skipped: str) -> str:
    if sample is None:
        return joined([tag("span", "skipped", class_="same"), tag("small", skipped)]) if skipped else ""
    value = joined([words.digits(sample.mean), tag("span", unit, class_="unit")])
    if not sample.range:
        return value
    return joined([value, tag("small", f"{words.digits(min(sample.values))} – {words.digits(max(sample.values))}")])


def changes(outcome: Outcome) -> Html:
    """The settings that differ, as a diff of what one types."""
    if not outcome.improved or outcome.chosen is None:
        return tag("p", "Nothing: the deployed configuration stays as it is.")
    config = outcome.config
    switch = kind_of(config.engine).conventions.switch
    old = words.lines(config.model.settings, switch)
    tried = config.space.settings(outcome.chosen)
    new = words.lines(config.model.settings.merged(tried), switch)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    lines = []
    for name in names:
        lines += [tag("del", f"- {old[name]}")] if name in old else []
        lines += [tag("ins", f"+ {new[name]}")] if name in new else []
    said = " ".join(filter(None, (_advice(outcome), _moot(outcome, names))))
    return joined([tag("pre", *lines, class_="diff"), tag("p", said, class_="caption"), _earnings(outcome)])


def _earnings(outcome: Outcome) -> Html:
    """What each change of the winner earns, with its interval."""
    effects = effects_of(outcome)
    if effects is None:
        return joined([tag("p", text, class_="caption") for text in earned.untold(outcome)])
    rows = [_earning(each) for each in (*effects.kept, *effects.went_back)]
    head = ("setting", "deployed", f"trial {effects.trial}", "earns", "")
    said = f"{earned.others(effects)} {earned.bar(effects)}"
    return joined([tag("h3", "What each change earns"), table(head, rows), tag("p", said, class_="caption")])


def _earning(effect: SettingEffect) -> tuple[str, ...]:
    gains = tag("span", earned.earned(effect.goals), class_="better" if effect.resolved else "same")
    return effect.name, words.value(effect.deployed), words.value(effect.value), gains, ", ".join(earned.became(effect))


def _advice(outcome: Outcome) -> str:
    if outcome.proven:
        return "The whole configuration, with its proof, is in profile.yaml."
    if outcome.decision and outcome.decision.kind is Kind.LIMIT_NOT_SHOWN:
        return "It is in profile.yaml, marked as not to be deployed without looking: read the verdict."
    if outcome.decision and outcome.decision.refused:
        return f"Refused, {' and '.join(outcome.decision.refused)}: no profile is written."
    return "Not shown to be better: no profile is written, and the deployed configuration stays."


def _moot(outcome: Outcome, names: Sequence[str]) -> str:
    """Which of the changed settings are known to do nothing here, and so need no change."""
    space = outcome.config.space
    idle = [space.target(each.name)[1] for each in idle_parameters(outcome.searched, space)]
    moot = ", ".join(name for name in names if name in idle)
    return f"Known to do nothing here: {moot}." if moot else ""


def tried(outcome: Outcome) -> Html:
    """Every trial, what it set otherwise than the deployed configuration, and what that gave."""
    every = _trials(outcome, outcome.records, outcome.folder.interrupted())
    colds = launches.cold(outcome.records)
    if len(outcome.records) <= _WHOLE:
        return joined([every, tag("p", _LEGEND, class_="caption"), colds])
    ranked = outcome.ranked[:_SHOWN]
    caption = tag("p", f"The best {len(ranked)} within all limits. {_LEGEND}", class_="caption")
    everything = folded(f"All {len(outcome.records)} trials in their order", every)
    return joined([_trials(outcome, ranked), caption, colds, everything])


def _trials(outcome: Outcome, records: Sequence[TrialRecord], interrupted: Sequence[int] = ()) -> Html:
    """One line a trial, a column for each parameter that differs between them."""
    names = [name for name in outcome.config.space.params if len({_shown(record, name) for record in records}) > 1]
    settings = [_jointed(words.setting(outcome.config.space, name)) for name in names]
    rows: dict[int, tuple[str, ...]] = {
        record.number: (*_worth(outcome, record), *(_value(outcome, record.params, name) for name in names))
        for record in records
    }
    rows |= {number: _unfinished(outcome, number, len(names)) for number in interrupted}
    return table(("trial", "result", "gain", "time", *settings), [rows[number] for number in sorted(rows)], "trials")


def _shown(record: TrialRecord, name: str) -> str | None:
    return words.brief(record.params[name]) if name in record.params else None


def _unfinished(outcome: Outcome, number: int, columns: int) -> tuple[str, ...]:
    """A trial without a record: it is being run now, or tuner was killed in the middle of it."""
    running = outcome.folder.holder() is not None and number == max(outcome.folder.interrupted())
    text = "running" if running else "interrupted: tuner was killed while it ran"
    return (str(number), tag("span", text, class_="failed"), *[""] * (columns + 2))


def _jointed(setting: str) -> Html:
    """A long name that may break where it has its joints."""
    return Html(html(setting.lstrip("-")).replace("_", "_<wbr>").replace("-", "-<wbr>"))


def _value(outcome: Outcome, params: Mapping[str, JsonValue], name: str) -> str:
    if name not in params:
        return tag("span", "–", class_="same")
    text = words.brief(params[name])
    changed = name in outcome.config.space.changes(params, outcome.deployed)
    return tag("b", text) if changed else tag("span", text, class_="same")


def _worth(outcome: Outcome, record: TrialRecord) -> tuple[str, ...]:
    role = record.role if record.attempt == 1 else f"{record.role}, attempt {record.attempt}"
    number = str(record.number) if role == Role.SEARCH else joined([str(record.number), tag("small", role)])
    improvement = gain(outcome, record)
    better = "" if improvement is None else words.percent(improvement, sign=True)
    return number, result(outcome, record), better, _took(record)


def _took(record: TrialRecord) -> str:
    if not record.launched:
        return tag("span", "not launched", class_="same")
    took = words.duration(record.seconds)
    return joined([took, tag("span", "cold", class_="cold same")]) if cold(record) else took


def result(outcome: Outcome, record: TrialRecord) -> Html:
    """What a trial came to."""
    if record.verdict:
        pairs = zip(outcome.config.objective.goals, record.verdict.values, strict=True)
        values = ", ".join(words.metric(name).said(value) for name, value in pairs)
        missed = (tag("small", text) for text in words.misses(record.verdict.violations))
        return tag("span", values, *missed, class_=_look(record))
    failure = record.failure
    return tag("span", words.cause(failure.cause) if failure else "no verdict", class_=_look(record))


_LOOKS = {Ending.MEASURED: "good", Ending.LIMIT_MISSED: "missed", Ending.FAILED: "failed"}


def _look(record: TrialRecord) -> str:
    return _LOOKS.get(record.ending, "dead")


def failed(outcome: Outcome) -> Html:
    """Launches without a measurement, by cause: how many, what they cost, the line that decided it, what to do."""
    dead = [record for record in (*outcome.records, *outcome.relaunches) if record.failure and record.launched]
    if not dead:
        return tag("p", "None: every launch was measured.")
    causes = [list(group) for _, group in groupby(sorted(dead, key=_cause), key=_cause)]
    by_count = sorted(causes, key=len, reverse=True)
    head = ("cause", "trials", "time", "deciding line")
    return joined([table(head, [_failure(records) for records in by_count], "failures"), _unlearnt(dead)])


def _cause(record: TrialRecord) -> str:
    return record.failure.cause if record.failure else ""


def _failure(records: list[TrialRecord]) -> tuple[str, ...]:
    failure = next((r.failure for r in records if r.failure and r.failure.line), records[0].failure)
    assert failure is not None
    parts = [tag("code", words.cut((failure.line or failure.message).strip(), 600))]
    parts += [tag("small", failure.advice)] if failure.advice else []
    spent = words.duration(sum(record.seconds for record in records))
    return words.cause(failure.cause), joined([str(len(records)), tag("small", numbers(records))]), spent, joined(parts)


def _unlearnt(dead: list[TrialRecord]) -> Html:
    """What was this machine's fault says nothing of the configuration."""
    count = sum(record.ending is Ending.FAILED for record in dead)
    if not count:
        return NOTHING
    were = "attempt was" if count == 1 else "attempts were"
    return tag(
        "p", f"{count} {were} no fault of the configuration: the search did not learn from it.", class_="caption"
    )
