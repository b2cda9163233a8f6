"""Ctrl-C and a polite kill end a command cleanly, at whatever moment they come."""

import signal
import sys
import threading
from types import FrameType

from tuner.host.interrupts import interrupt_main

_LATER_S = 0.01


def listen() -> None:
    """From now on SIGTERM and SIGHUP raise KeyboardInterrupt as SIGINT does, and none of the three can be lost.

    Python only prints what is raised inside a finalizer or a weak reference's callback, so that a Ctrl-C which arrives
    there would end nothing. Such an interrupt is sent again, until it arrives in code that can end.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    sys.unraisablehook = _noticed


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _noticed(lost: "sys.UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        again = threading.Timer(_LATER_S, interrupt_main)  # at once, it would end in this hook
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
