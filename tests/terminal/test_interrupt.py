"""An interrupt that comes where Python would only print it still ends the program."""

import signal
import subprocess
import sys

import pytest

_IN_A_FINALIZER = """
import signal, time, weakref
from tuner.terminal import interrupt

class Passing: pass

interrupt.listen()
passing = Passing()
noticed = weakref.ref(passing, lambda _: signal.raise_signal({number}))
try:
    del passing
    time.sleep(20)
    print("lost")
except KeyboardInterrupt:
    print("interrupted")
"""
_ANOTHER_ERROR = """
from tuner.terminal import interrupt

class Broken:
    def __del__(self): raise ValueError("of its own")

interrupt.listen()
Broken()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_inside_a_weak_references_callback_is_not_lost(number):
    done = _python(_IN_A_FINALIZER.format(number=int(number)))
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_any_other_error_in_a_finalizer_is_printed_as_ever():
    assert "ValueError: of its own" in _python(_ANOTHER_ERROR).stderr


def _python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
