"""What only the process launcher promises: guards, locks, and what happens after kill -9."""

import json
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from tuner.errors import EngineUnavailable, GpuBusy
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process import ProcessLauncher
from tuner.launchers.traces import alive, end_orphans
from tuner.testing.launcher import ECHO_SERVER, answer, kill, until

DEAF_SERVER = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ECHO_SERVER

TUNER_PROGRAM = """
import sys, time
from pathlib import Path
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process import ProcessLauncher
argv = (sys.executable, "-c", sys.argv[2], "{host}", "{port}")
with ProcessLauncher().launch(LaunchSpec("victim/0000", argv, Path(sys.argv[1]), gpus=(0,))) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def victim(tmp_path, state_dir):
    """A tuner in a process of its own with a server up; yields it, and what its guard and server are."""
    tuner = subprocess.Popen(
        [sys.executable, "-c", TUNER_PROGRAM, str(tmp_path / "server.log"), ECHO_SERVER], stdout=subprocess.PIPE
    )
    tuner.stdout.readline()
    until(lambda: list((state_dir / "launches").glob("*.json")))
    (trace,) = (state_dir / "launches").glob("*.json")
    facts = json.loads(trace.read_text())
    yield tuner, facts["guard"], facts["session"]
    tuner.stdout.close()
    kill(tuner.pid, facts["guard"], facts["session"])
    tuner.wait()


def spec(tmp_path, program=ECHO_SERVER, **more):
    return LaunchSpec("test/0000", (sys.executable, "-c", program, "{host}", "{port}"), tmp_path / "s.log", **more)


def test_the_guard_ends_the_server_within_5_s_of_a_kill_9(victim, state_dir):
    tuner, guard, server = victim
    killed = time.monotonic()
    tuner.kill()
    until(lambda: not alive(server), 5)
    assert time.monotonic() - killed < 5
    until(lambda: not alive(guard), 5)
    assert not list((state_dir / "launches").glob("*"))


def test_when_both_die_the_next_command_ends_the_orphan(victim, state_dir):
    tuner, guard, server = victim
    kill(guard, tuner.pid)
    assert alive(server)
    assert len(end_orphans()) == 1
    assert not alive(server)
    assert not list((state_dir / "launches").glob("*"))


def test_a_launch_whose_guard_lives_is_no_orphan(victim):
    _, _, server = victim
    assert end_orphans() == []
    assert alive(server)


def test_a_gpu_stays_taken_until_nothing_runs_on_it(victim, tmp_path):
    tuner, guard, _ = victim
    with pytest.raises(GpuBusy, match="victim/0000"), ProcessLauncher().launch(spec(tmp_path, gpus=(0,))):
        pass
    tuner.kill()
    until(lambda: not alive(guard), 5)
    with ProcessLauncher().launch(spec(tmp_path, gpus=(0,))) as server:
        assert answer(server)


def test_a_guard_that_was_killed_is_stood_in_for(tmp_path, state_dir):
    with ProcessLauncher().launch(spec(tmp_path)) as server:
        answer(server)
        (trace,) = (state_dir / "launches").glob("*.json")
        facts = json.loads(trace.read_text())
        kill(facts["guard"])
        until(lambda: not server.life().running)
    assert not alive(facts["session"])


def test_a_server_deaf_to_sigterm_is_killed_after_its_grace(tmp_path):
    started = time.monotonic()
    with ProcessLauncher().launch(spec(tmp_path, DEAF_SERVER, stop_grace_s=0.3)) as server:
        answer(server)
    assert time.monotonic() - started < 10
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_the_server_sees_its_gpus_in_pci_order_and_no_others(tmp_path):
    program = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'], flush=True)"
    with ProcessLauncher().launch(spec(tmp_path, program, gpus=(0, 2))) as server:
        until(lambda: not server.life().running)
        assert server.log.finish() == ["0,2 PCI_BUS_ID"]


def test_an_executable_that_is_not_there_is_named(tmp_path):
    missing = LaunchSpec("test/0000", ("no-such-vllm", "serve"), tmp_path / "s.log")
    with pytest.raises(EngineUnavailable, match="no-such-vllm"), ProcessLauncher().launch(missing):
        pass


def test_the_environment_of_a_launch_is_in_no_process_list(tmp_path):
    with ProcessLauncher().launch(spec(tmp_path, env={"VLLM_API_KEY": "hush-hush"})) as server:
        answer(server)
        lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not any("hush-hush" in line for line in lines)


LEAKY = "import os; print('raw', os.environ['HF_TOKEN'], 'planted-in-file-0002', flush=True);" + ECHO_SERVER
LEAKY_TUNER = TUNER_PROGRAM.replace(
    "ProcessLauncher()", "ProcessLauncher(Secrets({'A_TOKEN': 'planted-in-file-0002'}), ('HF_TOKEN',))"
).replace("import sys, time", "import sys, time\nfrom tuner.secrets import Secrets")


def test_a_secret_is_never_in_the_log_also_after_a_kill_9_of_tuner(tmp_path):
    log = tmp_path / "server.log"
    program = LEAKY_TUNER.replace("Secrets({", "Secrets({'HF_TOKEN': 'planted-outside-0001', ")
    tuner = subprocess.Popen([sys.executable, "-c", program, str(log), LEAKY], stdout=subprocess.PIPE)
    with tuner:
        tuner.stdout.readline()
        until(lambda: log.exists() and "raw" in log.read_text())
        tuner.kill()
    assert log.read_text().startswith("raw *** ***\n")
    assert log.stat().st_mode & 0o077 == 0


def test_the_last_words_of_a_server_are_in_the_log_when_its_end_is_known(tmp_path):
    last = spec(tmp_path, "import sys; sys.stdout.write('x\\n' * 20000 + 'last words'); sys.exit(3)")
    with ProcessLauncher().launch(last) as server:
        until(lambda: not server.life().running)
        assert server.log.finish()[-1] == "last words"
        assert server.life().exit_code == 3
