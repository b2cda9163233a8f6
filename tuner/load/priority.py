"""The right to be woken at once, where the system grants it.

On a machine whose cores are all busy with the server, an ordinary process that waits for a chunk may be left waiting:
next to vLLM on two CPU cores a sleeper of 10 ms was woken up to 1.6 s late, with real-time priority never by 1 ms. The
load worker needs a few percent of a core, so this takes nothing from the server.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_LOWEST = 1


@contextmanager
def realtime() -> Iterator[None]:
    """Run the block under ``SCHED_RR``, if this thread may; otherwise as it is. Needs root or ``CAP_SYS_NICE``."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_LOWEST))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
