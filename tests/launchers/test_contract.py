"""Every launcher passes the shipped contract."""

import os
import sys

import psutil
import pytest

from tuner.launchers.attach import AttachLauncher
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.testing.launcher import ECHO_SERVER, LauncherContract


def living_descendants():
    me = psutil.Process()
    return sorted(child.pid for child in me.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE)


class TestProcessLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self):
        return ProcessLauncher()

    @pytest.fixture
    def spec(self, tmp_path):
        def make(*arguments: str) -> LaunchSpec:
            argv = (sys.executable, "-c", ECHO_SERVER, "{host}", "{port}", *arguments)
            return LaunchSpec("contract/0000", argv, tmp_path / "logs" / f"{len(list(tmp_path.iterdir()))}.log")

        return make

    @pytest.fixture
    def footprint(self, state_dir):
        def take():
            launches = sorted(path.name for path in (state_dir / "launches").glob("*"))
            marked = [p.pid for p in psutil.process_iter() if "time.sleep(600)" in " ".join(_cmdline(p))]
            return living_descendants(), launches, marked

        return take


def _cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class TestAttachLauncher(LauncherContract):
    starts_servers = False

    @pytest.fixture
    def running(self, tmp_path):
        with ProcessLauncher().launch(
            LaunchSpec("attach/0000", (sys.executable, "-c", ECHO_SERVER, "{host}", "{port}"), tmp_path / "echo.log")
        ) as server:
            yield server

    @pytest.fixture
    def launcher(self, running):
        from tuner.testing.launcher import answer

        answer(running)
        return AttachLauncher(running.url)

    @pytest.fixture
    def spec(self, tmp_path):
        return lambda *arguments: LaunchSpec("attach/0001", (), tmp_path / "attached.log")

    @pytest.fixture
    def footprint(self, running):
        return lambda: (living_descendants(), running.life().running, os.getpid())
