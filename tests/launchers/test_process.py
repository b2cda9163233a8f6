"""What only the process launcher promises: guards, locks, and what happens after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil
import pytest

from tests.present import present
from tuner.errors import EngineUnavailable, GpuBusy, InfrastructureError
from tuner.host.processes import alive
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.guard import Task
from tuner.launchers.process.launcher import GuardDied, ProcessLauncher, next_report
from tuner.launchers.process.strays import strays
from tuner.launchers.process.traces import LAUNCH_MARK, LaunchTrace, end_orphans, marked
from tuner.site.clean import left_overs
from tuner.testing.launcher import ECHO_SERVER, answer, kill, until

DEAF_SERVER = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ECHO_SERVER

TUNER_PROGRAM = """
import sys, time
from pathlib import Path
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
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
    url = present(tuner.stdout).readline().decode().strip()
    until(lambda: _answers(url))  # one that still has something to print would die of its guard's end
    (trace,) = (state_dir / "launches").glob("*.json")
    facts = json.loads(trace.read_text())
    yield tuner, facts["guard"], facts["session"]
    present(tuner.stdout).close()
    kill(tuner.pid, facts["guard"], facts["session"])
    tuner.wait()


def _answers(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


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


def test_a_guard_that_was_killed_says_so_and_is_stood_in_for(tmp_path, state_dir):
    with ProcessLauncher().launch(spec(tmp_path)) as server:
        answer(server)
        (trace,) = (state_dir / "launches").glob("*.json")
        facts = json.loads(trace.read_text())
        kill(facts["guard"])
        with pytest.raises(GuardDied, match=r"process \d+, was killed by signal 9"):
            until(lambda: not server.life().running, 10)  # its last thread may be a moment behind
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
        present(tuner.stdout).readline()
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


def launches(state_dir):
    return sorted(path.name for path in (state_dir / "launches").glob("*"))


def test_a_server_that_cannot_be_recorded_is_not_started(tmp_path, state_dir):
    (state_dir / "launches").parent.mkdir()
    (state_dir / "launches").write_text("a file where a folder should be")
    refused = pytest.raises(InfrastructureError, match=r"(?s)nobody could find it again.*launches.*TUNER_STATE_DIR")
    with refused, ProcessLauncher().launch(spec(tmp_path)):
        pass
    assert (tmp_path / "s.log").read_text() == ""
    assert strays() == []


def test_a_server_whose_trace_cannot_be_completed_is_ended(tmp_path, state_dir):
    """Announced, but not completed: between the two the guard waits for somebody to read its log, which is a pipe."""
    os.mkfifo(tmp_path / "s.log")
    argv = [sys.executable, "-c", ECHO_SERVER, "127.0.0.1", "0"]
    env = {**os.environ, LAUNCH_MARK: "test-0000-12345678"}
    task = Task("test-0000-12345678", argv, env, str(tmp_path / "s.log"), grace_s=1.0)
    command = [sys.executable, "-m", "tuner.launchers.process.guard"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:
        present(guard.stdin).write(json.dumps(asdict(task)).encode() + b"\n")
        present(guard.stdin).flush()
        until(lambda: launches(state_dir) == ["test-0000-12345678.json"])
        (state_dir / "launches").rename(state_dir / "gone")
        (state_dir / "launches").write_text("a file where a folder should be")
        with (tmp_path / "s.log").open("rb"):
            said = [json.loads(line) for line in present(guard.stdout)]
    assert "launches" in said[0]["refused"]
    assert said[1]["exit"] is not None
    assert [one for one in marked() if one.environ[LAUNCH_MARK] == "test-0000-12345678"] == []


def test_a_study_name_of_240_letters_launches_like_any_other(tmp_path, state_dir):
    long = LaunchSpec("n" * 240 + "/trials/0000", spec(tmp_path).argv, tmp_path / "s.log")
    with ProcessLauncher().launch(long) as server:
        assert answer(server)
        (name,) = launches(state_dir)
        assert "trials-0000" in name
    assert launches(state_dir) == []


def test_clean_finds_a_server_whose_guard_and_trace_are_gone_by_its_environment(victim, state_dir):
    tuner, guard, server = victim
    assert left_overs() == []
    (trace,) = (state_dir / "launches").glob("*.json")
    scratch = Path(json.loads(trace.read_text())["scratch"])
    trace.unlink()
    assert left_overs() == [], "its guard lives"
    os.kill(tuner.pid, signal.SIGSTOP)  # between the two kills it would end the server itself
    kill(guard, tuner.pid)
    (left,) = left_overs()
    assert f"process {server}" in str(left)
    left.remove()
    assert not alive(server)
    assert not scratch.exists()
    assert left_overs() == []


def wait_for_the_end(server):
    until(lambda: not server.life().running)


def test_a_launch_has_its_own_log_and_the_earlier_ones_are_kept(tmp_path):
    for word in ("first", "second", "third"):
        with ProcessLauncher().launch(spec(tmp_path, f"print({word!r}, flush=True)")) as server:
            wait_for_the_end(server)
            assert server.log.finish() == [word]
    kept = {path.name: path.read_text().strip() for path in tmp_path.glob("s*.log")}
    assert kept == {"s.1.log": "first", "s.2.log": "second", "s.log": "third"}


def test_temporary_files_of_a_launch_go_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    program = "import tempfile; print(tempfile.mkstemp()[1], tempfile.mkdtemp(), flush=True); input()"
    with ProcessLauncher().launch(spec(tmp_path, program)) as server:
        until(lambda: not server.life().running)
        assert len(list((tmp_path / "tmp").glob("tuner-*/*"))) == 2
    assert list((tmp_path / "tmp").iterdir()) == []


def test_temporary_files_go_also_when_tuner_and_guard_were_killed(victim, tmp_path, state_dir):
    tuner, guard, _ = victim
    (trace,) = (state_dir / "launches").glob("*.json")
    scratch = Path(json.loads(trace.read_text())["scratch"])
    assert scratch.is_dir()
    kill(guard, tuner.pid)
    end_orphans()
    assert not scratch.exists()


def test_a_report_that_comes_together_with_another_is_not_missed(tmp_path):
    """A program that ends at once: what the guard says of its start and of its end may arrive in one piece."""
    with ProcessLauncher().launch(spec(tmp_path, "")) as server:
        time.sleep(0.3)
        until(lambda: not server.life().running, 2)
    guard = subprocess.Popen(
        [sys.executable, "-c", 'print(\'{"pid": 1}\\n{"exit": 3}\', flush=True); input()'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    with guard:
        assert present(next_report(guard, 10)).pid == 1
        assert present(next_report(guard, 10)).exit == 3
        present(guard.stdin).write(b"\n")


DAMAGED = (
    b"",
    b"\xff\xfe\x00",
    b"[1, 2]",
    b'{"launch_id": 5}',
    b'{"launch_id": "x", "session": "a", "created": "b", "booted": 1, "guard": "d", "guard_created": 2}',
    b'{"launch_id": "../x", "session": null, "created": 1, "booted": 1, "guard": 0, "guard_created": 1}',
)


def test_a_damaged_trace_keeps_nothing_from_being_found_and_names_no_file_of_others(victim, state_dir):
    tuner, guard, _ = victim
    folder, precious = state_dir / "launches", state_dir / "precious"
    precious.mkdir()
    for number, content in enumerate(DAMAGED):
        (folder / f"0{number}.json").write_bytes(content)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    theirs = LaunchTrace("a", None, 1.0, psutil.boot_time(), 2**22 + 1, 1.0, str(precious))
    (folder / "a.json").write_text(json.dumps(asdict(theirs)))
    kill(guard, tuner.pid)
    assert len(end_orphans()) == 2
    assert left_overs() == []
    assert precious.is_dir()
