"""The process between tuner and a server: starts it, reports its end, and ends it when tuner is gone.

``python -m tuner.launchers.process.guard`` reads one JSON line (a ``Task``) from its standard input and
then waits for the end of that input. tuner closes it to say "stop", and may write a last line before that: the grace
period in seconds.
The kernel closes it when tuner is killed. So both ways lead through the same teardown: SIGTERM to the server, a grace
period, SIGKILL to whatever is left of it. What the guard has to say it writes as JSON lines (``Report``) to its
standard output.

The launch is on record (``LaunchTrace``) before its server is started: a server whose guard was killed can be found. A
launch that cannot be recorded is not started.

It adopts the server's orphans (PR_SET_CHILD_SUBREAPER, Linux), so that a worker that outlives its parent is found.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tuner.host.owner import Owner
from tuner.launchers.process.strays import GUARD_MARK
from tuner.launchers.process.traces import LaunchTrace, kill_survivors, scratch_name
from tuner.launchers.redacting import RedactedLog

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """What the guard is to start.

    Attributes:
        launch_id: Names the launch in the environment of all its processes.
        argv: The server's command line.
        env: Its whole environment.
        log_path: Where its output goes.
        grace_s: How long it may take to end.
        hidden: Secrets to redact from its output.
    """

    launch_id: str
    argv: list[str]
    env: dict[str, str]
    log_path: str
    grace_s: float
    hidden: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """The launch's own folder for temporary files."""
        return Path(self.env.get("TMPDIR") or tempfile.gettempdir()).absolute() / scratch_name(self.launch_id)


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that the guard has to say.

    Attributes:
        pid: The server's process id: it has been started.
        exit: Its exit status, negative for a signal: it has ended.
        refused: Why it was not started, or was ended at once.
        missing: Whether that is because there is no such program.
    """

    pid: int | None = None
    exit: int | None = None
    refused: str = ""
    missing: bool = False


def main() -> None:
    """Run one task."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever stops tuner's group must not stop its cleaner
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    task = Task(**json.loads(sys.stdin.buffer.readline()))
    trace = LaunchTrace.announced(task.launch_id, task.scratch)
    try:
        trace.write()
        task.scratch.mkdir(mode=0o700)
        log = RedactedLog(Path(task.log_path), task.hidden)
        server = _start(task, log)
    except OSError as error:
        _erase(trace)
        _say(_refusal(error, task))
    else:
        with log:
            _look_after(server, trace, task, log)


def _refusal(error: OSError, task: Task) -> Report:
    if error.filename == task.argv[0]:
        return Report(refused=f"{error.strerror}: {task.argv[0]}", missing=True)
    return Report(refused=str(error))


def _start(task: Task, log: RedactedLog) -> "subprocess.Popen[bytes]":
    with log.inlet() as inlet:
        return subprocess.Popen(
            task.argv,
            env={**task.env, GUARD_MARK: str(Owner.me()), "TMPDIR": str(task.scratch)},
            stdin=subprocess.DEVNULL,
            stdout=inlet,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=_default_signals,
        )


def _default_signals() -> None:
    """The server must not inherit the guard's deafness."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _look_after(server: "subprocess.Popen[bytes]", trace: LaunchTrace, task: Task, log: RedactedLog) -> None:
    """Until tuner says stop, or is gone; however this is left, the server has been ended."""
    grace_s = task.grace_s
    try:
        trace = trace.led_by(server.pid)
        trace.write()
        _say(Report(pid=server.pid))
        grace_s = _watch(server, grace_s, log)
    except OSError as error:
        _say(Report(refused=str(error)))
    finally:
        _end(server, trace, grace_s, log)


def _watch(server: "subprocess.Popen[bytes]", grace_s: float, log: RedactedLog) -> float:
    """Until tuner closes our input; returns the grace period that it wants now.

    The server's end is reported on the way, and its workers may outlive it.
    """
    reported = False
    while not select.select([sys.stdin], [], [], _POLL_S)[0]:
        if not reported and server.poll() is not None:
            log.settle()
            _say(Report(exit=server.returncode))
            reported = True
    return float(sys.stdin.buffer.readline() or grace_s)


def _end(server: "subprocess.Popen[bytes]", trace: LaunchTrace, grace_s: float, log: RedactedLog) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    if kill_survivors(trace, ancestor=os.getpid()):
        _erase(trace)
    log.settle()
    _say(Report(exit=server.poll()))


def _erase(trace: LaunchTrace) -> None:
    with suppress(OSError):  # the disk is read-only by now; `tuner clean` finds that nothing of the launch is left
        trace.erase()


def _say(report: Report) -> None:
    with suppress(OSError):  # tuner is gone; the teardown continues
        os.write(1, json.dumps(asdict(report)).encode() + b"\n")


if __name__ == "__main__":
    main()
