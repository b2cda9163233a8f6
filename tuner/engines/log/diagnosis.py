"""How a log is judged: the mechanism that every engine's table of signs shares.

While the server still runs, only words that leave no doubt make a verdict: an error may yet be survived. When it has
ended, or when the log is a file and nobody knows, families of shapes count as well.
"""

from dataclasses import replace
from typing import Literal

from tuner.engines.causes import Cause, Diagnosis, Evidence, Fate
from tuner.engines.log import platform
from tuner.engines.log.lines import LogLine
from tuner.engines.log.reader import LogGrammar, Reader, StartSigns
from tuner.engines.log.signs import Finding, Rank

_ENDED_WELL = (None, 0, 130, 143, -2, -15)
_KILLED = (137, -9)
_TERMINATED = (143, -15)
_STILL_STARTING = "It still starts, and nothing that it has said decides how that ends."
_WAITS = 3
"""So many minutes in which a server that serves says that it waits, and nothing else moves: it hangs."""


_VAGUE = (Rank.BROKEN, Rank.RAISED, Rank.FAMILY, Rank.AFTERMATH)
_UNKNOWN = Fate()


class DiagnosticReader(Reader):
    """Reads a log as it grows, and says at any time what it means.

    Args:
        reading: How the engine's log is read.
    """

    def __init__(self, reading: LogGrammar) -> None:
        super().__init__(reading, lambda start: _judge(start, _UNKNOWN))

    def diagnose(self, fate: Fate = _UNKNOWN) -> Diagnosis:
        """What the log so far says of a server of this fate.

        Returns:
            ``UNKNOWN`` without a line while the server runs and nothing is decided; ``HEALTHY`` once it has said that
            it serves; ``UNKNOWN`` with the line of the exception, where one was raised that no sign knows.
        """
        if fate.stalled_phase is not None:
            found = _stalled(fate.stalled_phase, self.last)
        elif fate.oom_killed:
            found = _oom_killed(self)
        else:
            found = _judge(self.start, fate) or _earlier(self, fate) or _from_exit(fate, self.start.stopped)
        return replace(found, advice=_with_share(found.advice, self.start), engine_version=self.version)


def diagnose(evidence: Evidence, reading: LogGrammar) -> Diagnosis:
    """What the evidence says of a server whose log is read in this way."""
    reader = DiagnosticReader(reading)
    for line in evidence.log:
        reader.read(line)
    return reader.diagnose(evidence.fate)


def _earlier(reader: Reader, fate: Fate) -> Diagnosis | None:
    """Where the last start says nothing and nothing runs any more: what the last one before it failed of."""
    return None if fate.running else reader.failed


def _judge(start: StartSigns, fate: Fate) -> Diagnosis | None:
    cause = start.sure if fate.running and not start.wrapper else start.cause
    if start.broken and _died_of_it(start, fate):
        return _said(start.broken)
    if cause:
        return _explained(cause, start)
    if start.wrapper and not (fate.running and start.serving is None):
        return _unexplained(start.wrapper, start)
    if start.survived:
        return _said(start.survived)
    return _quiet(start, fate)


def _died_of_it(start: StartSigns, fate: Fate) -> bool:
    """Whether the exception that no sign knows is why it ended: the log says that something failed, and no reason."""
    if fate.running or start.cause is None:
        return not fate.running and start.wrapper is not None
    return start.cause.sign.rank < Rank.BROKEN


def _explained(finding: Finding, start: StartSigns) -> Diagnosis:
    """The finding's own words; for an engine that merely is dead, the exception that it died of."""
    if finding.sign.cause is Cause.ENGINE_DIED and finding.sign.rank is Rank.AFTERMATH:
        if start.first_wait and _hangs(start):
            return _hanging(start.first_wait, start.waits)
        return _unexplained(finding, start)
    return _said(finding)


def _said(finding: Finding) -> Diagnosis:
    vague = finding.sign.rank in _VAGUE or finding.sign.cause is Cause.UNKNOWN
    return Diagnosis(
        finding.sign.cause,
        line=finding.line.raw,
        line_number=finding.line.number,
        numbers=finding.numbers,
        advice=finding.advice,
        confidence="likely" if vague else "certain",
        machine=finding.sign.machine,
        lasting=finding.sign.lasting,
    )


def _unexplained(finding: Finding, start: StartSigns) -> Diagnosis:
    """Something failed and no sign says why: died if it had served, else unknown; with the exception's line, if any."""
    died = finding.sign.cause is Cause.ENGINE_DIED or start.serving is not None
    line = start.root or finding.line
    return Diagnosis(
        Cause.ENGINE_DIED if died else Cause.UNKNOWN,
        line=line.raw,
        line_number=line.number,
        advice=platform.LOOK_ABOVE,
        confidence="likely" if died else "guess",
    )


def _quiet(start: StartSigns, fate: Fate) -> Diagnosis | None:
    """No sign and no wrapper: healthy if it serves, unknown with its exception if it raised one, else undecided."""
    if start.first_wait and _hangs(start):
        return _hanging(start.first_wait, start.waits)
    if start.serving is not None:
        return _healthy(start.serving, "certain") if fate.exit_code in _ENDED_WELL else None
    if start.root and not fate.running:
        root = start.root
        return Diagnosis(Cause.UNKNOWN, root.raw, root.number, advice=platform.LOOK_ABOVE, confidence="guess")
    if start.started is not None and fate.exit_code not in _TERMINATED and fate.exit_code in _ENDED_WELL:
        return _healthy(start.started, "likely")
    return None


def _hangs(start: StartSigns) -> bool:
    """Whether it has waited for long, and in the end at most for too long."""
    return start.waits >= _WAITS and (start.root is None or start.root.text.lstrip().startswith("TimeoutError"))


def _healthy(line: LogLine, sure: Literal["certain", "likely"]) -> Diagnosis:
    return Diagnosis(Cause.HEALTHY, line.raw, line.number, confidence=sure)


def _hanging(line: LogLine, waits: int) -> Diagnosis:
    return Diagnosis(
        Cause.STALLED,
        line.raw,
        line.number,
        numbers={"waits": float(waits)},
        advice="It had started well and then only waited for a worker that hangs: see what the workers say then.",
        confidence="likely",
    )


def _stalled(phase: str, last: LogLine | None) -> Diagnosis:
    return Diagnosis(
        Cause.STALLED,
        line=last.raw if last else None,
        line_number=last.number if last else None,
        advice=f"Nothing moved in the phase '{phase}' within its time limit; the line is the last that was said.",
    )


def _oom_killed(reader: Reader) -> Diagnosis:
    if reader.out_of_host_memory:
        return _said(reader.out_of_host_memory)
    return Diagnosis(Cause.HOST_OOM, advice=platform.MORE_HOST_MEMORY)


def _from_exit(fate: Fate, stopped: LogLine | None) -> Diagnosis:
    """What an exit status says where the log decides nothing; the line is the one that tells of a stop, if any."""
    code = fate.exit_code
    line, number = (stopped.raw, stopped.number) if stopped else (None, None)
    if code in _TERMINATED or (code in _KILLED and stopped):
        return Diagnosis(Cause.UNKNOWN, line, number, advice=platform.TERMINATED, confidence="guess")
    if code in _KILLED:
        return Diagnosis(Cause.HOST_OOM, advice=platform.KILLED, confidence="guess")
    if code is not None and code < 0 and code not in _ENDED_WELL:
        return Diagnosis(Cause.ENGINE_DIED, advice=f"Ended by signal {-code}.", confidence="likely")
    return Diagnosis(Cause.UNKNOWN, advice=_STILL_STARTING if fate.running else "", confidence="guess")


def _with_share(advice: str, start: StartSigns) -> str:
    """Advice in which the setting is named that decides how large this server's KV cache is."""
    return platform.advise(advice, fixed_cache=start.fixed_cache)
