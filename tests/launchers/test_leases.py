"""Locks that die with their holder, and of which no more are left than are held."""

import fcntl
import os
import subprocess
import sys

import pytest

from tuner.errors import GpuBusy
from tuner.host import leases
from tuner.host.leases import gpu_lease, lease, port_lease, reserved


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


def test_a_lock_file_that_was_swept_away_meanwhile_is_no_lock(state_dir, monkeypatch):
    held = lease("port-1", "one")
    lock = fcntl.flock

    def sweeping(descriptor, how):
        lock(descriptor, how)
        (state_dir / "locks" / "port-1.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", sweeping)
    with pytest.raises(leases._Busy), held:
        pass


def test_what_cannot_be_swept_away_harms_nobody(state_dir):
    (state_dir / "locks" / "port-1.lock").mkdir(parents=True)
    with port_lease("one"):
        pass
    assert files(state_dir) == ["port-1.lock"]


def test_who_holds_a_gpu_is_said(state_dir):
    with gpu_lease(0, "study one"), pytest.raises(GpuBusy, match="GPU 0 is held by study one"), gpu_lease(0, "two"):
        pass
    with reserved((0, 1), "study one"), pytest.raises(GpuBusy, match="GPU 1 is held by study one"), reserved((1,), "b"):
        pass
    with gpu_lease(0, "three"):
        pass


def test_a_gpu_is_held_against_a_user_with_another_state_folder_until_its_holders_child_has_ended(
    state_dir, monkeypatch, tmp_path
):
    with gpu_lease(0, "mine") as descriptors:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=descriptors)
        monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path / "another user's"))
        with pytest.raises(GpuBusy, match=rf"GPU 0 is held by process {os.getpid()} of user"), gpu_lease(0, "theirs"):
            pass
        with gpu_lease(1, "theirs"):
            pass
    with pytest.raises(GpuBusy), gpu_lease(0, "theirs"):
        pass
    child.communicate(b"\n")
    with gpu_lease(0, "theirs"):
        pass
