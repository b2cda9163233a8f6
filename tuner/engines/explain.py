"""What an engine's log says, whichever engine wrote it: ``tuner explain``."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tuner.engines import llamacpp, sglang
from tuner.engines.base import Degradation
from tuner.engines.causes import Cause, Diagnosis, Evidence
from tuner.engines.loglines import LogLine, parse
from tuner.engines.vllm import signs as vllm
from tuner.engines.vllm.degradations import degradations
from tuner.engines.vllm.phases import phase

_FOREIGN: tuple[tuple[Callable[[str], object], Callable[[Evidence], Diagnosis]], ...] = (
    (llamacpp.WROTE.search, llamacpp.diagnose),
    (sglang.WROTE.search, sglang.diagnose),
)
_SHARE = 0.02
_TELLING = 20_000
"""So many lines tell who wrote a log, however long it is."""


def explain(
    log: Sequence[str], exit_code: int | None = None, oom_killed: bool = False, running: bool = False
) -> Diagnosis:
    """The diagnosis of a log by the engine that wrote it.

    Args:
        log: Its lines, without line ends.
        exit_code: The server's exit status, where it is known.
        oom_killed: Whether the kernel or the container engine reported an out-of-memory kill.
        running: Whether the server still runs.

    Returns:
        The engine's diagnosis; ``DEGRADED`` where nothing failed and vLLM mentions a severe degradation.
    """
    evidence = Evidence(log, running=running, exit_code=exit_code, oom_killed=oom_killed)
    lines = parse(log)
    for wrote, diagnose in _FOREIGN:
        if _is_by(wrote, lines):
            return diagnose(evidence)
    return _with_degradations(vllm.diagnose(evidence), evidence)


def _is_by(wrote: Callable[[str], object], lines: Sequence[LogLine]) -> bool:
    """Whether enough lines are in this engine's own words; vLLM's logs mention others' only in passing."""
    telling = lines[:_TELLING]
    matching = sum(1 for line in telling if wrote(line.text))
    return matching > _SHARE * len(telling)


def _with_degradations(diagnosis: Diagnosis, evidence: Evidence) -> Diagnosis:
    """The same, or degraded: by a severe degradation, or by any where the log is about nothing else."""
    log = evidence.log
    undecided = diagnosis.cause is Cause.UNKNOWN and diagnosis.line is None and not evidence.running
    if not undecided and diagnosis.cause is not Cause.HEALTHY:
        return diagnosis
    is_excerpt = undecided and not any(phase(line) for line in log)
    named = (each for each in degradations(log) if each.severe or is_excerpt)
    first = next(named, None)
    return _degraded(diagnosis, first) if first else diagnosis


def _degraded(diagnosis: Diagnosis, degradation: Degradation) -> Diagnosis:
    return replace(
        diagnosis,
        cause=Cause.DEGRADED,
        line=degradation.line,
        line_number=degradation.line_number,
        advice=f"It runs, but with {degradation.name}: slower than it could. Drop the setting that the line names.",
        confidence="certain" if diagnosis.cause is Cause.HEALTHY else "likely",
    )
