"""Who used the cores is known from /proc, whoever came and went in between."""

import os
import subprocess
import sys
import time

from tests.present import present
from tuner.host import cpu
from tuner.host.cpu import CpuReading, CpuTimes, Process, between, family

BURN = "import time\nend = time.monotonic() + float({seconds})\nwhile time.monotonic() < end: pass"


def burn(seconds):
    return subprocess.Popen([sys.executable, "-c", BURN.format(seconds=seconds)])


def reading(processes_s, ours_s, *, idle_s=0.0, steal_s=0.0, cores=2):
    return CpuReading(CpuTimes(cores, processes_s, 0.0, idle_s, steal_s), ours_s)


def test_what_others_used_is_what_all_used_without_ours():
    used = present(between(reading(100, 50), reading(112, 54, idle_s=7.5, steal_s=0.5)))
    assert used.other_cpu_cores == (12 - 4) / (20 / 2)
    assert used.cpu_busy_share == 12 / 20
    assert used.cpu_steal_share == 0.5 / 20


def test_without_all_of_our_processes_nothing_is_said_of_others():
    assert present(between(reading(100, None), reading(112, None, idle_s=8))).other_cpu_cores is None


def test_a_time_of_few_ticks_says_nothing_of_others():
    assert present(between(reading(100, 50), reading(100.3, 50, idle_s=0.3))).other_cpu_cores is None
    assert between(reading(100, 50), reading(100, 50)) is None


def test_a_family_is_its_roots_and_all_descendants():
    running = [Process(1, 0, 0), Process(2, 1, 0), Process(3, 2, 0), Process(4, 3, 0), Process(9, 1, 0)]
    assert family(running, [2]) == {2, 3, 4}
    assert family(running, [3, 9, 77]) == {3, 4, 9}
    assert family([Process(5, 5, 0)], [5]) == {5}


def test_our_own_work_and_that_of_our_children_is_not_taken_for_others():
    with burn(5) as child:
        running = {process.pid: process for process in cpu.processes()}
        assert {os.getpid(), child.pid} <= family(running.values(), [os.getpid()])
        first = present(cpu.read([os.getpid()]))
        time.sleep(1)
        last = present(cpu.read([os.getpid()]))
        child.kill()
    assert present(last.ours_s) - present(first.ours_s) > 0.1


def test_a_child_that_has_ended_still_counts_as_ours():
    first = present(cpu.read([os.getpid()]))
    burn(0.5).wait()
    assert present(present(cpu.read([os.getpid()])).ours_s) - present(first.ours_s) > 0.1


def test_the_work_of_a_process_that_is_not_ours_is_others():
    with burn(30) as stranger:
        first = present(cpu.read([]))
        time.sleep(2)
        used = present(between(first, present(cpu.read([]))))
        stranger.kill()
    assert present(used.other_cpu_cores) > 0.2
    assert 0 < used.cpu_busy_share <= 1


def test_a_system_without_proc_is_not_known(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "_PROC", tmp_path)
    assert cpu.read([os.getpid()]) is None
