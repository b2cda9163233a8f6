"""A turn of a stage is watched from its beginning to its end, and nothing before or after it counts."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tests.host.driver import Driver
from tests.present import present
from tuner.host.gpu import counts_energy
from tuner.host.limits import HostConfig
from tuner.host.watch import watching

MIB = 1 << 20
BURN = "while True: pass"
SHORT = HostConfig(max_other_cpu=0.05, max_steal=1.0)


@pytest.fixture
def nvidia(monkeypatch):
    fake = Driver()
    fake.running[0] = {os.getpid(): 100 * MIB, 1: 50 * MIB}
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_each_turn_has_a_state_of_its_own():
    with watching((), (), HostConfig()) as host:
        for seconds in (0.05, 0.6):
            with host.turn():
                time.sleep(seconds)
    short, long = host.states
    assert short.seconds < long.seconds
    assert long.cores == os.cpu_count()
    assert long.load_average is not None
    assert short.other_cpu_cores is None
    assert long.other_cpu_cores is not None


def test_a_stranger_on_the_cores_disturbs_a_turn_and_the_server_itself_does_not():
    # a shell that ends leaves its child to init: it is no descendant of ours any more
    shell = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{BURN}" >/dev/null 2>&1 & echo $!'], capture_output=True, check=True
    )
    stranger = int(shell.stdout)
    try:
        with watching((), (), SHORT) as theirs, watching((stranger,), (), SHORT) as ours, theirs.turn(), ours.turn():
            time.sleep(1.5)
    finally:
        os.kill(stranger, 9)
    assert "other processes used" in present(theirs.disturbed())
    assert present(theirs.states[-1].other_cpu_cores) - present(ours.states[-1].other_cpu_cores) > 0.2


def test_what_another_process_did_on_the_gpu_before_a_turn_is_not_the_turns(nvidia):
    nvidia.used[0] = {1: 80}
    with watching((), (0,), HostConfig()) as host, host.turn():
        time.sleep(0.2)
        nvidia.used[0] = {}
    assert host.states[-1].gpus[0].other_utilization == 0
    assert host.states[-1].gpus[0].other_memory_mib == 50


def test_another_process_on_the_gpu_disturbs_a_turn(nvidia):
    with watching((), (0,), HostConfig(max_steal=1, max_other_cpu=1)) as host, host.turn():
        nvidia.used[0] = {1: 40}
        time.sleep(0.1)
    assert host.disturbed() == "other processes used GPU 0 for 40% of the time"


def test_a_turn_that_fails_leaves_no_thread_and_no_state(nvidia):
    def fail():
        with watching((), (0,), HostConfig()) as host, host.turn():
            raise RuntimeError(str(len(host.states)))

    with pytest.raises(RuntimeError, match="0"):
        fail()
    assert "host" not in [thread.name for thread in threading.enumerate()]
    assert nvidia.opened == 0


def test_watching_costs_nearly_nothing():
    began = time.process_time()
    with watching((), (), HostConfig()) as host:
        for _ in range(10):
            with host.turn():
                pass
    assert (time.process_time() - began) / 10 < 0.1


def test_the_energy_of_a_turn_is_what_the_counters_grew_by(nvidia):
    with watching((), (0, 1), HostConfig()) as host, host.turn():
        time.sleep(0.2)
        nvidia.energy_mj = {0: 5_012_500, 1: 7_000_250}
    assert [gpu.energy_j for gpu in host.states[0].gpus] == [12.5, 0.25]


def test_without_a_counter_there_is_no_energy(nvidia):
    nvidia.unsupported = {"nvmlDeviceGetTotalEnergyConsumption"}
    with watching((), (0,), HostConfig()) as host, host.turn():
        time.sleep(0.2)
    assert host.states[0].gpus[0].energy_j is None
    assert not counts_energy((0,))


def test_every_gpu_has_to_count_its_energy(nvidia):
    assert counts_energy((0, 1))
    assert not counts_energy((0, 7))
    assert not counts_energy(())
