"""Locks that die with their holder, and of which no more are left than are held."""

import subprocess
import sys

import pytest

from tuner.errors import GpuBusy
from tuner.launchers.leases import gpu_lease, port_lease, reserved


def files(state_dir):
    return sorted(path.name for path in (state_dir / "locks").glob("*.lock"))


def test_a_port_is_nobody_elses_while_it_is_held_and_leaves_no_file(state_dir):
    with port_lease("one") as (one, _), port_lease("two") as (two, _):
        assert one != two
        assert files(state_dir) == sorted([f"port-{one}.lock", f"port-{two}.lock"])
    assert files(state_dir) == []


def test_what_a_child_still_holds_is_not_swept_away(state_dir):
    with port_lease("parent") as (port, descriptor):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    assert files(state_dir) == [f"port-{port}.lock"]
    child.communicate(b"\n")
    with port_lease("next"):
        pass
    assert files(state_dir) == []


def test_who_holds_a_gpu_is_said(state_dir):
    with gpu_lease(0, "study one"), pytest.raises(GpuBusy, match="GPU 0 is held by study one"), gpu_lease(0, "two"):
        pass
    with reserved((0, 1), "study one"), pytest.raises(GpuBusy, match="GPU 1 is held by study one"), reserved((1,), "b"):
        pass
    with gpu_lease(0, "three"):
        pass
