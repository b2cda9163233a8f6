"""Records as frames: one row a trial, a request, a phase, a failure. Nothing is computed here that the records lack.

``documented`` says what each column means and in which unit. A value that was not measured is missing, never zero.
"""

import inspect
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import cache

import pandas as pd
from pydantic import JsonValue

from tuner import words
from tuner.engines.base import StartupFacts
from tuner.engines.effective import Status
from tuner.errors import ConfigError
from tuner.load.metrics import METRICS, LongPrompt, Measurement
from tuner.load.records import RequestRecord, read_records
from tuner.load.timing import tpot_ms
from tuner.records.folder import TrialFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

_MEANINGS = {
    "study": "Name of the study.",
    "trial": "Number of the trial; relaunches at the end of a study are counted on their own.",
    "relaunch": "Whether it is one of the launches of baseline and best at the end of the study.",
    "attempt": "Which try it was, from 1.",
    "role": "Why it was run: baseline, known good, search, repair, baseline again, best again.",
    "state": "How it ended: complete (measured), pruned (cannot run), failed (this machine's fault).",
    "feasible": "Whether it was measured and meets every limit.",
    "changed": "What it sets otherwise than the deployed configuration.",
    "gain": "Share by which the first goal is better than the baseline's trial; negative if it is worse.",
    "cause": "Why it was not measured, as a word; tuner.words.cause says it in plain ones.",
    "reason": "The log line that decided it, or else what tuner says of it.",
    "launched": "Whether a server was started; not if it was known beforehand that it cannot run.",
    "cold": "Whether it is known to have started with an empty compile cache: slower, with less KV cache.",
    "overridden": "Settings that ran with another value than was asked for, asked→ran.",
    "seconds": "Wall time of the whole trial, or of the phase.",
    "ask_s": "What the search took to propose it.",
    "started_at": "Wall clock at its start, UTC.",
    "digest": "Names the configuration: equal for equal parameters.",
    "phase": "What the trial was doing.",
    "order": "Place of the phase in its trial, from 0.",
    "error": "Class of tuner's error.",
    "message": "What happened, in a sentence.",
    "line": "The log line that decided it.",
    "advice": "What can be done.",
    "numbers": "The figures in the deciding line, as JSON.",
    "stage": "Part of the workload: concurrent, single_user, ttft_N, tool_call; `…, disturbed 1` was sent again.",
    "index": "Place of the request in its stage, from 0.",
    "stream": "Which of the stage's users sent it, from 0.",
    "prompt_tokens": "Length of the prompt as the server counted it.",
    "cached_tokens": "How many of them came out of the prefix cache, where the server says so.",
    "output_tokens": "Tokens generated.",
    "sent_ms": "When it was sent, from the beginning of its stage.",
    "ttft_ms": "Time to first token.",
    "tpot_ms": "Time per output token after the first.",
    "e2e_ms": "From sending to the last token.",
    "longest_gap_ms": "The longest wait between two tokens.",
    "finish_reason": "Why the server ended it.",
    "failure": "Why it failed, or ``cut`` if the stage ended before it; missing if it completed.",
}
_FAMILIES = {
    r"param\.(.+)": "Value of the parameter {0}; missing where it does not act or is left to the engine.",
    r"violation\.(.+)": "Share by which the limit on {0} is missed; at most 0 when it is met.",
    r"phase\.(.+)_s": "Time spent {0}.",
    r"forecast\.starts": "How many earlier starts the prediction had learned from.",
    r"forecast\.shortage": "The allocation that was predicted to fail first; missing if none.",
    r"forecast\.(.+?)(?:_gib|_tokens)?": "Predicted before the launch, per GPU: {0}.",
    r"ttft_(\d+)_cold_ms": "Time to first token of a prompt of {0} tokens, nothing of it cached.",
    r"ttft_(\d+)_cached_ms": "The same prompt sent again.",
}
_UNITS = {"seconds": "s", "gain": "share", "max_model_len": "tokens", "utilization": "share"}


def trials(outcome: Outcome) -> pd.DataFrame:
    """One row a trial, failed attempts and relaunches included; columns as ``documented`` says.

    ``param.*`` the values by parameter, every number of the measurement (durations in ms, throughput per s, both of the
    engine's own clock), ``violation.*``, ``phase.*_s`` and what the server's start-up lines said (``kv_tokens`` …).
    """
    return pd.DataFrame([_trial(outcome, record) for record in (*outcome.records, *outcome.relaunches)])


def phases(outcome: Outcome) -> pd.DataFrame:
    """One row a trial and phase, in the order in which they happened."""
    return pd.DataFrame(
        [
            _identity(outcome, record) | {"order": order, "phase": str(span.phase), "seconds": span.seconds}
            for record in (*outcome.records, *outcome.relaunches)
            for order, span in enumerate(record.phases)
        ],
        columns=[*_IDENTITY, "order", "phase", "seconds"],
    )


def failures(outcome: Outcome) -> pd.DataFrame:
    """One row a trial without a measurement: its cause, the line that decided it, what to do, the time it took."""
    return pd.DataFrame(
        [
            _identity(outcome, record)
            | {"state": str(record.state), **record.failure.model_dump(exclude={"numbers"})}
            | {"numbers": json.dumps(record.failure.numbers), "seconds": record.seconds}
            for record in (*outcome.records, *outcome.relaunches)
            if record.failure
        ],
        columns=[*_IDENTITY, "state", "error", "cause", "message", "line", "advice", "numbers", "seconds"],
    )


def requests(outcome: Outcome, records: Sequence[TrialRecord] | None = None) -> pd.DataFrame:
    """One row a request, in milliseconds of the engine's own clock.

    Args:
        outcome: The study.
        records: Whose requests; by default those of every trial that was measured.
    """
    asked = (*outcome.records, *outcome.relaunches) if records is None else records
    return pd.DataFrame(
        [
            _identity(outcome, record) | _request(request, record.measurement.clock_scale)
            for record in asked
            if record.measurement
            for request in sent(outcome, record)
        ],
        columns=[*_IDENTITY, *_REQUEST],
    )


def sent(outcome: Outcome, record: TrialRecord) -> Iterator[RequestRecord]:
    """Every request of a trial's measurement; none if its file is gone or it was not measured.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder_of(outcome, record).requests
    if path.exists():
        yield from read_records(path)


def damaged_requests(outcome: Outcome, records: Iterable[TrialRecord]) -> list[str]:
    """What is wrong with those trials' files of requests that are damaged."""
    return [said for record in records if (said := _wrong_with_requests(outcome, record))]


def _wrong_with_requests(outcome: Outcome, record: TrialRecord) -> str:
    try:
        deque(sent(outcome, record), maxlen=0)
    except ConfigError as error:
        return error.message
    return ""


def folder_of(outcome: Outcome, record: TrialRecord) -> TrialFolder:
    """Where a trial's evidence is stored."""
    kind = "confirm" if _is_relaunch(outcome, record) else "trials"
    return TrialFolder(outcome.folder.path / kind / record.label)


def documented(frame: pd.DataFrame) -> pd.DataFrame:
    """What each column of a frame means, and its unit."""
    names = list(frame.columns)
    return pd.DataFrame(
        {"unit": [_unit(name) for name in names], "meaning": [_meaning(name) for name in names]},
        index=pd.Index(names, name="column"),
    )


_IDENTITY = ("study", "trial", "relaunch", "role")
_REQUEST = (
    *("stage", "index", "stream", "prompt_tokens", "cached_tokens", "output_tokens", "sent_ms"),
    *("ttft_ms", "tpot_ms", "e2e_ms", "longest_gap_ms", "finish_reason", "failure"),
)


def _identity(outcome: Outcome, record: TrialRecord) -> dict[str, JsonValue]:
    relaunch = _is_relaunch(outcome, record)
    values = (record.study, record.number, relaunch, str(record.role))
    return dict(zip(_IDENTITY, values, strict=True))


def _is_relaunch(outcome: Outcome, record: TrialRecord) -> bool:
    return any(record is relaunch for relaunch in outcome.relaunches)


def _trial(outcome: Outcome, record: TrialRecord) -> dict[str, JsonValue]:
    row = _identity(outcome, record)
    row |= {"attempt": record.attempt, "state": str(record.state), "feasible": record.feasible}
    row |= {"changed": changed(outcome, record), "gain": gain(outcome, record)}
    row |= {"cause": record.failure.cause if record.failure else None}
    row |= {"reason": (record.failure.line or record.failure.message) if record.failure else None}
    row |= {"launched": record.launched, "cold": cold(record), "overridden": _overridden(record)}
    row |= {"seconds": record.seconds, "ask_s": record.ask_s, "started_at": record.started_at, "digest": record.digest}
    row |= {f"param.{name}": _cell(value) for name, value in record.params.items()}
    row |= _measured(record.measurement) if record.measurement else {}
    row |= {f"violation.{name}": value for name, value in (record.verdict.violations if record.verdict else {}).items()}
    row |= {f"phase.{span.phase}_s": span.seconds for span in record.phases}
    row |= {
        f"forecast.{name}": value for name, value in (record.forecast.model_dump() if record.forecast else {}).items()
    }
    return row | (_facts(record.facts) if record.facts else {})


def _overridden(record: TrialRecord) -> str:
    """What ran with another value than was asked for: ``block_size=32→16``."""
    changed = (each for each in record.effective if each.status is Status.OVERRIDDEN)
    return ", ".join(f"{each.name}={words.value(each.requested)}→{words.value(each.effective)}" for each in changed)


def _facts(facts: StartupFacts) -> dict[str, JsonValue]:
    row = {name: _cell(value) for name, value in asdict(facts).items() if name != "degradations"}
    return row | {"degradations": ", ".join(each.name for each in facts.degradations)}


def changed(outcome: Outcome, record: TrialRecord) -> str:
    """What a trial sets otherwise than the deployed configuration; empty if nothing."""
    return outcome.config.space.changed(record.params, outcome.deployed)


def cold(record: TrialRecord) -> bool:
    """Whether the server is known to have compiled anew: it started slower, and had less room for the KV cache."""
    return record.facts is not None and record.facts.compile_cache_hit is False


def gain(outcome: Outcome, record: TrialRecord) -> float | None:
    """The share by which a trial's first goal is better than the baseline's; ``None`` if either was not measured."""
    if record.verdict is None or outcome.baseline is None or outcome.baseline.verdict is None:
        return None
    return outcome.config.objective.gains(record.verdict.values, outcome.baseline.verdict.values)[0]


def _measured(measurement: Measurement) -> dict[str, JsonValue]:
    plain = measurement.model_dump(
        exclude={
            "long_prompts",
            "named",
            "failures",
            "unreliable",
            "intervals",
            "samples",
            "windows",
            "warnings",
            "engine",
        }
    )
    cells: dict[str, JsonValue] = {n: cell for n, cell in plain.items() if isinstance(cell, int | float | str | None)}
    return (
        cells
        | dict(measurement.named)
        | dict(cell for prompt in measurement.long_prompts for cell in _long_prompt(prompt))
    )


def _long_prompt(prompt: LongPrompt) -> Iterator[tuple[str, float | None]]:
    yield f"ttft_{prompt.asked_tokens}_cold_ms", prompt.cold_ms
    yield f"ttft_{prompt.asked_tokens}_cached_ms", prompt.cached_ms


def _request(request: RequestRecord, scale: float) -> dict[str, JsonValue]:
    gaps = [later - earlier for earlier, later in zip(request.chunk_ms, request.chunk_ms[1:], strict=False)]
    times = (request.ttft_ms, tpot_ms(request), request.e2e_ms, max(gaps, default=None))
    values = (
        *(request.stage, request.index, request.stream),
        *(request.prompt_tokens, request.cached_tokens, request.output_tokens),
        request.started_ms * scale,
        *(None if time is None else time * scale for time in times),
        request.finish_reason,
        str(request.failure.kind) if request.failure else None,
    )
    return dict(zip(_REQUEST, values, strict=True))


def _cell(value: JsonValue) -> JsonValue:
    """A value that fits in a cell: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _unit(column: str) -> str:
    if column.startswith("param."):
        return ""
    return "share" if column.startswith("violation.") else _UNITS.get(column, words.unit(column))


def _meaning(column: str) -> str:
    if known := _MEANINGS.get(column) or _fields().get(column):
        return known
    for pattern, meaning in _FAMILIES.items():
        if found := re.fullmatch(pattern, column):
            return meaning.format(*found.groups())
    return words.metric(column).label


@cache
def _fields() -> dict[str, str]:
    """What the measurement and the start-up facts say of their own fields."""
    said = dict(re.findall(r"^\s*(\w+): (.+)$", inspect.getdoc(StartupFacts) or "", flags=re.MULTILINE))
    started = {field.name: said[field.name] for field in fields(StartupFacts) if field.name in said}
    measured = {name: field.description or "" for name, field in Measurement.model_fields.items()}
    return started | measured | {name: f"{words.metric(name).label}." for name in METRICS}
