"""The process between tuner and a server: starts it, reports its end, and ends it when tuner is gone.

``python -m tuner.launchers.guard`` reads one JSON line (an ``Errand``) from its standard input and then waits for the
end of that input. tuner closes it to say "stop"; the kernel closes it when tuner is killed. So both ways lead through
the same teardown: SIGTERM to the server, a grace period, SIGKILL to whatever is left of it. What the guard has to say
(the server's process id, its exit status) it writes as JSON lines to its standard output.

It adopts the server's orphans (PR_SET_CHILD_SUBREAPER, Linux), so that a worker that outlives its parent is found.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tuner.launchers.redacting import RedactedLog
from tuner.launchers.traces import LaunchTrace, kill_survivors

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Errand:
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


def main() -> None:
    """Run one errand."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever stops tuner's group must not stop its cleaner
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    errand = Errand(**json.loads(sys.stdin.buffer.readline()))
    try:
        log = RedactedLog(Path(errand.log_path), errand.hidden)
    except OSError as error:
        _say(error=f"{error.strerror}: {errand.log_path}")
        return
    with log:
        _run(errand, log)


def _run(errand: Errand, log: RedactedLog) -> None:
    try:
        server = _start(errand, log)
    except OSError as error:
        _say(error=f"{error.strerror}: {errand.argv[0]}")
        return
    trace = LaunchTrace.of(errand.launch_id, server.pid)
    trace.write()
    _say(pid=server.pid)
    _watch(server, log)
    _end(server, trace, errand.grace_s)
    log.settle()
    _say(exit=server.poll())


def _start(errand: Errand, log: RedactedLog) -> "subprocess.Popen[bytes]":
    with log.inlet() as inlet:
        return subprocess.Popen(
            errand.argv,
            env=errand.env,
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


def _watch(server: "subprocess.Popen[bytes]", log: RedactedLog) -> None:
    """Until tuner closes our input; the server's end is reported on the way, and its workers may outlive it."""
    reported = False
    while not select.select([sys.stdin], [], [], _POLL_S)[0]:
        if not reported and server.poll() is not None:
            log.settle()
            _say(exit=server.returncode)
            reported = True


def _end(server: "subprocess.Popen[bytes]", trace: LaunchTrace, grace_s: float) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    if kill_survivors(trace, ancestor=os.getpid()):
        trace.erase()


def _say(**facts: str | int | None) -> None:
    with suppress(OSError):  # tuner is gone; the teardown goes on
        os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    main()
