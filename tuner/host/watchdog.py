"""A dead man's switch: a child that does an task when the process that started it is gone.

The child waits for the end of its standard input. Whoever has cleaned up by itself says so first; a process that was
killed cannot, and the kernel closes its end. The task is a command line, so that the waiting child needs nothing but
Python itself. What the task says goes to ``watchdog.log`` in tuner's state folder.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tuner.host.leases import state_dir

_DISMISSED = b"dismissed\n"


@dataclass
class Watchdog:
    """A waiting child."""

    _child: "subprocess.Popen[bytes]"

    def dismiss(self) -> None:
        """There is nothing left for it to do."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed it
            self._child.stdin.write(_DISMISSED)
            self._child.stdin.flush()


@contextmanager
def watchdog(task: Sequence[str], locks: Sequence[int] = (), patience_s: float = 120.0) -> Iterator[Watchdog]:
    """While the block runs, a child waits that does the task should this process die.

    A block that is left without ``dismiss`` has not cleaned up: the child does its task then as well.

    Args:
        task: Arguments for Python: ``("-m", "tuner.site.gpus", "…")``.
        locks: File descriptors that the child keeps open until its task is done.
        patience_s: How long to wait for an task when the block was left without ``dismiss``.
    """
    state_dir().mkdir(parents=True, exist_ok=True)
    with (state_dir() / "watchdog.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tuner.host.watchdog", *task],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=locks,
            start_new_session=True,  # whoever stops tuner's group must not stop its cleaner
        )
    try:
        yield Watchdog(child)
    finally:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience_s)


def main() -> None:
    """Wait; then do the task, unless dismissed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if _DISMISSED.strip() not in sys.stdin.buffer.read():
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
