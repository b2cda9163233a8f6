"""How a log is judged: the mechanism that every engine's table of signs shares.

The log is cut at each new start of the server, since a container that restarts writes one log. In the last start, what
was said before the server became ready was survived and does not count; what was said after it was told to stop is not
why it stopped. Of what is left, the sign closest to the root cause decides.

While the server still runs, only words that leave no doubt make a verdict: an error may yet be survived. When it has
ended, or when the log is a file and nobody knows, families of shapes count as well.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tuner.engines import platform_signs as platform
from tuner.engines.causes import Cause, Diagnosis, Evidence
from tuner.engines.loglines import Level, LogLine, parse, parse_line
from tuner.engines.signs import Finding, Rank, Sign, find

_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Failure|Timeout)\b(?::|\(['\"]|\s*$)")
_ENDED_WELL = (None, 0, 130, 143, -2, -15)
_KILLED = (137, -9)
_SURVIVABLE = (Cause.V0_FALLBACK, Cause.DEGRADED)


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read one engine's log.

    Attributes:
        signs: What speaks for a cause.
        traps: Lines that look like a sign and are none.
        version: Names the engine's version, in one of its groups.
        start: The first line of a start of the server.
        ready: Said once, when the server begins to serve.
        serving: Said by a server that serves, ``ready`` included.
        started: Said when nothing can fail any more before ``ready``.
        told_to_stop: Said when somebody ends the server on purpose.
        not_the_root: Exceptions that only report another one.
    """

    signs: tuple[Sign, ...]
    traps: re.Pattern[str]
    version: re.Pattern[str]
    start: re.Pattern[str]
    ready: re.Pattern[str]
    serving: re.Pattern[str]
    started: re.Pattern[str]
    told_to_stop: re.Pattern[str]
    not_the_root: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Run:
    """One start of the server, as the log shows it; places are indices into ``lines``."""

    lines: Sequence[LogLine]
    ready_at: int | None
    serving_at: int | None
    started_at: int | None
    stopped_at: int | None


def diagnose(evidence: Evidence, reading: Reading) -> Diagnosis:
    """What the evidence says of a server whose log is read in this way.

    Returns:
        ``UNKNOWN`` without a line while the server runs and nothing is decided; ``HEALTHY`` once it has said that it
        serves; ``UNKNOWN`` with the line of the exception, where one was raised that no sign knows.
    """
    lines = parse(evidence.log)
    if evidence.stalled_phase is not None:
        found = _stalled(evidence.stalled_phase, lines)
    elif evidence.oom_killed:
        found = _oom_killed(lines, reading)
    else:
        found = _judge_runs(lines, evidence, reading) or _from_exit(evidence.exit_code)
    return replace(found, engine_version=version_of(lines, reading))


def last_start(lines: Sequence[LogLine], reading: Reading) -> Sequence[LogLine]:
    """The lines since the server was last started."""
    *_, last = _starts(lines, reading)
    return last


def version_of(lines: Sequence[LogLine], reading: Reading) -> str | None:
    """The engine's version, where the log names it; the last named where it names several."""
    for line in reversed(lines):
        if found := reading.version.search(line.text):
            return next(group for group in found.groups() if group)
    return None


def is_suspicious(line: str, reading: Reading) -> bool:
    """Whether a line may decide a diagnosis, whatever stands around it."""
    return any(_is_suspicious(logical, reading) for logical in parse_line(line))


def _is_suspicious(line: LogLine, reading: Reading) -> bool:
    if reading.traps.search(line.text):
        return False
    said = any(sign.level <= line.level and sign.regex.search(line.text) for sign in reading.signs)
    return said or _is_exception(line, reading)


def _judge_runs(lines: Sequence[LogLine], evidence: Evidence, reading: Reading) -> Diagnosis | None:
    """The verdict on the last start; where it has none and nothing runs any more, on the last one that failed."""
    *earlier, last = [_run(part, reading) for part in _starts(lines, reading)]
    verdict = _judge(last, evidence, reading)
    if verdict or evidence.running:
        return verdict
    verdicts = (_judge(run, Evidence(()), reading) for run in reversed(earlier))
    return next((found for found in verdicts if found and found.cause is not Cause.HEALTHY), None)


def _starts(lines: Sequence[LogLine], reading: Reading) -> Iterator[Sequence[LogLine]]:
    begin, spent = 0, False
    for index, line in enumerate(lines):
        if spent and reading.start.search(line.text):
            yield lines[begin:index]
            begin, spent = index, False
        spent = spent or _spends(line, reading)
    yield lines[begin:]


def _spends(line: LogLine, reading: Reading) -> bool:
    """Whether after this line only a new start can begin again."""
    patterns = (reading.ready, reading.told_to_stop, _EXCEPTION)
    return ": error: " in line.text or any(pattern.search(line.text) for pattern in patterns)


def _run(lines: Sequence[LogLine], reading: Reading) -> _Run:
    return _Run(
        lines,
        ready_at=_first(reading.ready, lines),
        serving_at=_first(reading.serving, lines),
        started_at=_first(reading.started, lines),
        stopped_at=_first(reading.told_to_stop, lines),
    )


def _first(pattern: re.Pattern[str], lines: Iterable[LogLine]) -> int | None:
    return next((index for index, line in enumerate(lines) if pattern.search(line.text)), None)


def _judge(run: _Run, evidence: Evidence, reading: Reading) -> Diagnosis | None:
    findings = [finding for finding in find(run.lines, reading.signs, reading.traps) if _counts(finding, run)]
    wrappers = [finding for finding in findings if finding.sign.rank is Rank.WRAPPER]
    survived = [finding for finding in findings if finding.sign.cause in _SURVIVABLE]
    causes = [finding for finding in findings if finding not in wrappers and finding not in survived]
    if evidence.running and not wrappers:
        causes = [finding for finding in causes if finding.sign.rank is not Rank.FAMILY]
    if causes:
        return _explained(max(causes, key=_closeness), run, reading)
    if wrappers and not (evidence.running and run.serving_at is None):
        return _unexplained(wrappers[0], run, reading)
    if survived:
        return _said(max(survived, key=_closeness))
    return _quiet(run, evidence, reading)


def _closeness(finding: Finding) -> tuple[int, bool, bool]:
    """By rank; of one rank, words come before the source code that a traceback quotes, and code before its place."""
    text = finding.line.text
    return finding.sign.rank, not text.startswith("  "), not text.startswith('  File "')


def _counts(finding: Finding, run: _Run) -> bool:
    sign, at = finding.sign, finding.index
    if sign.cause in _SURVIVABLE:
        return True
    if run.stopped_at is not None and at > run.stopped_at:
        return False
    if run.ready_at is not None and at < run.ready_at:
        return False
    return sign.serving or run.serving_at is None or at < run.serving_at


def _explained(finding: Finding, run: _Run, reading: Reading) -> Diagnosis:
    """The finding's own words; for an engine that merely is dead, the exception that it died of."""
    if finding.sign.cause is Cause.ENGINE_DIED and finding.sign.rank is Rank.AFTERMATH:
        return _unexplained(finding, run, reading)
    return _said(finding)


def _said(finding: Finding) -> Diagnosis:
    sure: Literal["certain", "likely"] = "likely" if finding.sign.rank in (Rank.FAMILY, Rank.AFTERMATH) else "certain"
    return Diagnosis(
        finding.sign.cause,
        line=finding.line.raw,
        line_number=finding.line.number,
        numbers=finding.numbers,
        advice=finding.advice,
        confidence=sure,
    )


def _unexplained(finding: Finding, run: _Run, reading: Reading) -> Diagnosis:
    """Something failed and no sign says why: died if it had served, else unknown; with the exception's line, if any."""
    died = finding.sign.cause is Cause.ENGINE_DIED or run.serving_at is not None
    line = _root_exception(run, reading) or finding.line
    return Diagnosis(
        Cause.ENGINE_DIED if died else Cause.UNKNOWN,
        line=line.raw,
        line_number=line.number,
        advice=platform.LOOK_ABOVE,
        confidence="likely" if died else "guess",
    )


def _root_exception(run: _Run, reading: Reading) -> LogLine | None:
    """The first exception of the tracebacks that ended the run, which the later ones only pass on."""
    raised = (line for line in run.lines[run.ready_at or 0 : run.stopped_at] if _is_exception(line, reading))
    return next((line for line in raised if not reading.not_the_root.search(line.text)), None)


def _is_exception(line: LogLine, reading: Reading) -> bool:
    return line.level >= Level.NONE and bool(_EXCEPTION.match(line.text)) and not reading.traps.search(line.text)


def _quiet(run: _Run, evidence: Evidence, reading: Reading) -> Diagnosis | None:
    """No sign and no wrapper: healthy if it serves, unknown with its exception if it raised one, else undecided."""
    if run.serving_at is not None:
        return _healthy(run.lines[run.serving_at], "certain") if evidence.exit_code in _ENDED_WELL else None
    if evidence.running:
        return None
    if root := _root_exception(run, reading):
        return Diagnosis(Cause.UNKNOWN, root.raw, root.number, advice=platform.LOOK_ABOVE, confidence="guess")
    if run.started_at is not None and evidence.exit_code in _ENDED_WELL:
        return _healthy(run.lines[run.started_at], "likely")
    return None


def _healthy(line: LogLine, sure: Literal["certain", "likely"]) -> Diagnosis:
    return Diagnosis(Cause.HEALTHY, line.raw, line.number, confidence=sure)


def _stalled(phase: str, lines: Sequence[LogLine]) -> Diagnosis:
    last = lines[-1] if lines else None
    return Diagnosis(
        Cause.STALLED,
        line=last.raw if last else None,
        line_number=last.number if last else None,
        advice=f"Nothing moved in the phase '{phase}' within its time limit; the line is the last that was said.",
    )


def _oom_killed(lines: Sequence[LogLine], reading: Reading) -> Diagnosis:
    found = find(lines, reading.signs, reading.traps)
    if killed := next((finding for finding in found if finding.sign.cause is Cause.HOST_OOM), None):
        return _said(killed)
    return Diagnosis(Cause.HOST_OOM, advice=platform.MORE_HOST_MEMORY)


def _from_exit(exit_code: int | None) -> Diagnosis:
    if exit_code in _KILLED:
        return Diagnosis(Cause.HOST_OOM, advice=platform.MORE_HOST_MEMORY, confidence="guess")
    if exit_code is not None and exit_code < 0 and exit_code not in _ENDED_WELL:
        return Diagnosis(Cause.ENGINE_DIED, advice=f"Ended by signal {-exit_code}.", confidence="likely")
    return Diagnosis(Cause.UNKNOWN, confidence="guess")
