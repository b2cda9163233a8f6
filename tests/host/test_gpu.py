"""A GPU's state comes from NVML, else from nvidia-smi; what is not known is None and never zero."""

import os
import sys

import pytest

from tests.host.driver import FUNCTIONS, Driver
from tests.present import present
from tuner.host import nvidia as driver
from tuner.host.gpu import merged, reading
from tuner.host.nvml import THROTTLE_REASONS, nvml
from tuner.host.state import GpuState

OURS, OTHER = 4242, 777
MIB = 1 << 20


@pytest.fixture
def nvidia(monkeypatch):
    fake = Driver()
    fake.running[0] = {OURS: 20_000 * MIB}
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def read(ours=frozenset({OURS}), gpus=(0,)):
    with nvml(gpus) as library:
        return present(library).read(ours)


def test_everything_the_driver_tells_is_read_with_its_units(nvidia):
    nvidia.reasons = 0x1 | 0x4 | 0x20
    (state,) = read()
    assert state == GpuState(
        index=0,
        sm_clock_mhz=2520,
        memory_clock_mhz=10501,
        temperature_c=61,
        power_w=287.5,
        throttle_reasons=("sw_power_cap", "sw_thermal_slowdown"),
        utilization=0.93,
        memory_used_mib=20_000,
        other_memory_mib=0,
        other_utilization=0,
        energy_j=5000,
    )
    assert nvidia.opened == 0


def test_what_others_hold_and_use_is_told_apart_from_ours(nvidia):
    nvidia.running[0][OTHER] = 512 * MIB
    nvidia.used[0] = {OURS: 70, OTHER: 22}
    (state,) = read()
    assert state.other_memory_mib == 512
    assert state.other_utilization == 0.22


@pytest.mark.parametrize("ours", [None, frozenset({1})], ids=["not known", "not listed"])
def test_where_our_server_is_not_among_the_processes_nothing_is_said_of_others(nvidia, ours):
    nvidia.used[0] = {OURS: 70}
    (state,) = read(ours)
    assert state.other_memory_mib is None
    assert state.other_utilization is None


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if "GetHandle" not in name and "Device" in name])
def test_what_a_driver_does_not_support_is_none(nvidia, function):
    complete, nvidia.unsupported = read()[0], {function}
    (state,) = read()
    assert state.index == 0
    if "Reasons" in function or "Graphics" in function:  # each has a second way, or is one of two lists
        assert state == complete
    else:
        assert state != complete
        assert None in (getattr(state, name) for name in GpuState.__slots__)


def test_memory_of_another_process_that_the_driver_keeps_to_itself_is_not_known(nvidia):
    nvidia.running[0][OTHER] = None
    assert read()[0].other_memory_mib is None


def test_a_gpu_that_is_not_there_is_left_out(nvidia):
    assert [state.index for state in read(gpus=(0, 7))] == [0]


def test_the_names_that_are_asked_for_are_those_of_the_library():
    library = pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    assert [name for name in FUNCTIONS if not hasattr(library, name)] == []
    for bit, name in THROTTLE_REASONS.items():
        assert getattr(library, "nvmlClocksEventReason" + name.title().replace("_", "")) == bit
    for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU", "NVML_ERROR_NOT_FOUND"):
        assert getattr(library, name) == getattr(Driver(), name)


SMI = """#!/bin/sh
case "$1" in
  --query-gpu*) echo "0, GPU-a, 2505, 10501, 63, 301.25, 0x0000000000000004, 97, 21000"
                echo "1, GPU-b, 210, [N/A], 40, [N/A], [N/A], 0, 12";;
  *) echo "GPU-a, 4242, 20000"; echo "GPU-a, 777, 900";;
esac
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("loaded", [False, None], ids=["no driver for NVML", "no library"])
def test_where_nvml_cannot_be_had_nvidia_smi_is_asked(smi, monkeypatch, loaded):
    fake = Driver()
    fake.loaded = loaded
    monkeypatch.setitem(sys.modules, "pynvml", fake if loaded is False else None)
    with reading((0, 1)) as (read_all, every_s):
        one, other = read_all(frozenset({OURS}))
    assert one == GpuState(0, 2505, 10501, 63, 301.25, ("sw_power_cap",), 0.97, 21000, 900, None)
    assert other == GpuState(1, 210, None, 40, None, None, 0, 12, None, None)
    assert every_s == 5


def test_without_any_driver_there_is_no_state(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.states((0,), frozenset()) == ()


def test_a_stage_keeps_means_of_rates_the_worst_of_heat_and_every_reason():
    one = GpuState(0, 2500, 10000, 60, 300, ("sw_power_cap",), 1.0, 100, None, 0.0)
    two = GpuState(0, 2400, None, 66, 280, (), 0.5, 300, 20, 0.3)
    assert merged([one, two]) == GpuState(0, 2450, 10000, 66, 290, ("sw_power_cap",), 0.75, 300, 20, 0.15)
    assert merged([GpuState(3)]) == GpuState(3)
