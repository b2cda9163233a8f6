"""What the launches told of themselves: what was never launched, what ran otherwise than asked, what was predicted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from tuner import words
from tuner.analysis.frames import cold as is_cold
from tuner.analysis.predictions import PredictionCheck, predictions
from tuner.engines.base import Degradation
from tuner.engines.causes import Cause
from tuner.engines.effective import EffectiveSetting, Status
from tuner.errors import PredictedOutOfMemory
from tuner.records.bottleneck import bottleneck
from tuner.records.expected import ExpectationCheck, expectations, interval
from tuner.records.idle import idle_parameters
from tuner.records.outcome import Outcome
from tuner.records.record import Screened, TrialRecord
from tuner.records.screened import agreement
from tuner.report.markup import NOTHING, Html, folded, joined, table, tag
from tuner.study import agreed

_NUMBERS = 8
"""Trials that are named one by one."""
_PREDICTED = "predicted: "
_AGREEMENT = (
    "Agreement is the correlation of what settings do there with what they do here, by all launches: at 1 what was "
    "measured there counts in full, at 0 not at all."
)


def numbers(records: Sequence[TrialRecord]) -> str:
    """Which trials."""
    return ", ".join(str(record.number) for record in records[:_NUMBERS]) + (" …" if len(records) > _NUMBERS else "")


def ruled_out(outcome: Outcome) -> Html:
    """Trials that were never launched, since they could be known to fail; empty if there are none."""
    if not outcome.ruled_out:
        return NOTHING
    grouped = [list(group) for _, group in groupby(sorted(outcome.ruled_out, key=_why), key=_why)]
    rows = [_reason(records) for records in sorted(grouped, key=len, reverse=True)]
    return joined([table(("why", "trials", "for one of them"), rows, "failures three"), _spared(outcome)])


def _why(record: TrialRecord) -> str:
    if record.failure is None:
        return ""
    predicted = record.failure.error == PredictedOutOfMemory.__name__ and record.failure.cause in list(Cause)
    return (_PREDICTED if predicted else "") + words.cause(record.failure.cause)


def _reason(records: list[TrialRecord]) -> tuple[str, ...]:
    failure = records[0].failure
    assert failure is not None
    parts = [failure.message] + ([tag("small", failure.advice)] if failure.advice else [])
    return _why(records[0]), joined([str(len(records)), tag("small", numbers(records))]), joined(parts)


def _spared(outcome: Outcome) -> Html:
    """What the launches would have cost, by what failed launches did cost here."""
    failed = [record.seconds for record in outcome.launched if record.failure]
    if not failed:
        return NOTHING
    saved_s = len(outcome.ruled_out) * sum(failed) / len(failed)
    text = f"A launch that failed took {words.duration(sum(failed) / len(failed))} here: about "
    return tag("p", f"{text}{words.rough(saved_s)} of server time were spared.", class_="caption")


def screened(outcome: Outcome) -> Html:
    """Settings that were measured in running servers, and how well that agreed with launches; empty without any."""
    found = agreement(outcome)
    if found is None:
        return NOTHING
    said = (tag("p", sentence) for sentence in (*found.sentences, *_unscreened(outcome)))
    head = ("trial", "changed while it ran", words.metric(found.metric).label, "launched as well", "")
    rows = [_screen(outcome, record, each, found.metric) for record in outcome.records for each in record.screened]
    return joined([*said, folded(f"All {found.settings} settings", table(head, rows, "numbers"))])


def _screen(outcome: Outcome, record: TrialRecord, each: Screened, goal: str) -> tuple[str, ...]:
    metric = words.metric(goal)
    setting = ", ".join(f"{name} {words.value(value)}" for name, value in each.setting.items())
    launched = outcome.readings.level(each.digest, goal)
    readings = (metric.said(value) if value else "" for value in (each.measurement.numbers.get(goal), launched))
    return str(record.number), setting, *readings, each.doubt


def _unscreened(outcome: Outcome) -> Iterator[str]:
    """What ended the screening of a launch before its time."""
    for record in outcome.records:
        if record.unscreened:
            yield f"Trial {record.number} screened {len(record.screened)}, then no more: {record.unscreened}."


def began_with(outcome: Outcome) -> Html:
    """The earlier studies that the search began with, and how well they agreed; empty without any."""
    found = [tag("p", f"{each}.") for each in agreed.sentences(outcome)]
    return joined([*found, tag("p", _AGREEMENT, class_="caption")]) if found else NOTHING


def expected(outcome: Outcome) -> Html:
    """What the search expected of its launches against what they read; empty where it said nothing."""
    found = expectations(outcome)
    if found is None:
        return NOTHING
    metric = words.metric(found.metric)
    head = ("trial", "why", f"{metric.label}, expected", "read", "error")
    rows = [_expectation(each, found.metric) for each in found.checks]
    return joined([tag("p", found.sentence), folded("Launch by launch", table(head, rows, "numbers"))])


def _expectation(each: ExpectationCheck, name: str) -> tuple[str, ...]:
    metric = words.metric(name)
    reading = metric.said(each.read) + ("" if each.inside else " (outside)")
    error = words.percent(each.error, sign=True)
    return str(each.record.number), each.expected.why, interval(each.expected, name), reading, error


def binding(outcome: Outcome) -> Html:
    """What held each trial back, and how near it came to the hardware's limit; empty if none was measured."""
    found = [(each, limit) for each in outcome.launched if (limit := bottleneck(each, outcome))]
    if not found:
        return NOTHING
    counted = Counter(limit.limit for _, limit in found).most_common()
    said = ", ".join(f"{limit} in {count}" for limit, count in counted)
    rows = [(str(each.number), str(limit.limit), limit.why, limit.used or "not known") for each, limit in found]
    every = folded(f"All {len(found)} trials", table(("trial", "binds", "because", "used"), rows, "failures"))
    return joined([tag("p", f"Of {len(found)} measured trials: {said}."), every])


def otherwise(outcome: Outcome) -> Html:
    """Settings that did nothing or ran with another value; empty if there are none."""
    idle = (tag("p", f"{each.sentence}.") for each in idle_parameters(outcome.searched, outcome.config.space))
    return joined(part for part in (*idle, _overridden(outcome)) if part)


def _overridden(outcome: Outcome) -> Html:
    found = [(each, record) for record in outcome.searched for each in record.effective]
    by_kind: dict[tuple[str, ...], list[TrialRecord]] = {}
    for each, record in found:
        if each.status is Status.OVERRIDDEN:
            by_kind.setdefault(_kind(each), []).append(record)
    if not by_kind:
        return NOTHING
    rows = [
        (tag("code", name), asked, joined([ran, tag("small", by)]), joined([str(len(hit)), tag("small", numbers(hit))]))
        for (name, asked, ran, by), hit in sorted(by_kind.items(), key=lambda item: -len(item[1]))
    ]
    return table(("setting", "asked", "what ran", "trials"), rows, "overrides")


def _kind(each: EffectiveSetting) -> tuple[str, ...]:
    return each.name, words.value(each.requested), words.value(each.effective), words.unprefixed(each.by or "")


def slower(outcome: Outcome) -> Html:
    """What servers said that they do slower than they could; empty if they said nothing."""
    said: list[tuple[Degradation, TrialRecord]] = [
        (each, record) for record in outcome.searched if record.facts for each in record.facts.degradations
    ]
    if not said:
        return NOTHING
    counted = Counter(each.name for each, _ in said)
    deployed = {each.name for each, record in said if record is outcome.baseline}
    lines = {each.name: each.line for each, _ in reversed(said)}
    rows = [
        (
            joined(
                [name.replace("_", " "), tag("small", "the deployed configuration too" if name in deployed else "")]
            ),
            str(count),
            tag("code", words.cut(words.unprefixed(lines[name]), 400)),
        )
        for name, count in counted.most_common()
    ]
    return table(("what", "trials", "as the engine says it"), rows, "failures three")


def cold(records: Sequence[TrialRecord]) -> Html:
    """That some trials compiled anew; empty if none is known to."""
    launched = [record for record in records if record.launched]
    found = [record for record in launched if is_cold(record)]
    if not found:
        return NOTHING
    text = f"cold: {len(found)} of {len(launched)} launches found no compiled graphs in the cache. They start slower "
    return tag("p", f"{text}and leave less for the KV cache; neither is compared with warm ones.", class_="caption")


def predicted(outcome: Outcome) -> Html:
    """Predicted against logged memory; empty where nothing was predicted."""
    found = predictions(outcome)
    if not found:
        return NOTHING
    head = ("per GPU", "launches", "error, median", "largest", "from the second launch on, largest")
    rows = [row for name in dict.fromkeys(p.quantity for p in found) for row in _errors(name, found)]
    every = table(("trial", "per GPU", "predicted", "logged", "error"), [_one(each) for each in found], "numbers")
    return joined([table(head, rows, "numbers"), _margin(outcome), folded(f"All {len(found)} predictions", every)])


def _margin(outcome: Outcome) -> Html:
    """How far predictions are trusted, and how many trials they ruled out."""
    last = next((each for each in reversed(outcome.records) if each.forecast and each.forecast.margin_gib), None)
    if last is None or last.forecast is None or last.forecast.margin_gib is None:
        return NOTHING
    count = sum(_why(record).startswith(_PREDICTED) for record in outcome.ruled_out)
    starts = f"{last.forecast.starts} start" + ("" if last.forecast.starts == 1 else "s")
    text = f"At trial {last.number}, after {starts}, a shortage of KV cache was believed only beyond "
    margin = f"{words.digits(last.forecast.margin_gib)} GiB, the model's own error so far. "
    return tag("p", f"{text}{margin}Predictions ruled out {count} of the trials.", class_="caption")


def _errors(quantity: str, found: Sequence[PredictionCheck]) -> Iterator[tuple[str, ...]]:
    these = [each for each in found if each.quantity == quantity]
    sizes = sorted(abs(each.error) for each in these)
    later = [abs(each.error) for each in these if each.starts]
    yield (
        quantity,
        str(len(these)),
        words.percent(sizes[len(sizes) // 2]),
        words.percent(sizes[-1]),
        words.percent(max(later)) if later else "",
    )


def _one(each: PredictionCheck) -> tuple[str, ...]:
    values = (f"{words.digits(value)} {each.unit}" for value in (each.predicted, each.logged))
    return str(each.trial), each.quantity, *values, words.percent(each.error, sign=True)
