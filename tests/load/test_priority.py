import os
import subprocess
import sys

import pytest

from tuner.load.priority import realtime

MAY = os.geteuid() == 0
UNPRIVILEGED = """
import os
from tuner.load.priority import realtime
os.setuid(65534)
with realtime():
    print(os.sched_getscheduler(0) == os.SCHED_OTHER)
"""


@pytest.mark.skipif(not MAY, reason="needs root: run the tests as root")
def test_real_time_priority_lasts_as_long_as_its_block():
    before = os.sched_getscheduler(0)
    with realtime():
        assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not MAY, reason="needs root to give root up: run the tests as root")
def test_without_the_right_to_it_the_block_runs_as_it_is():
    assert subprocess.check_output([sys.executable, "-c", UNPRIVILEGED], text=True) == "True\n"
