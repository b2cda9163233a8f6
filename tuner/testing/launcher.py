"""What every launcher must do, as tests to inherit.

Subclass ``LauncherContract`` in your own tests and override its fixtures; pytest then runs the whole contract against
your launcher, as ``tests/launchers`` does for tuner's own.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tuner.errors import MeasurementError, OutOfMemory, TrialError
from tuner.host import cpu
from tuner.host.processes import alive
from tuner.launchers.base import Launcher, LaunchSpec, Server

ECHO_SERVER = """
import http.server, os, signal, sys
print("echo server starting", flush=True)
if "--die" in sys.argv:
    print("dying as told", file=sys.stderr); sys.exit(3)
if "--orphan" in sys.argv and os.fork() == 0:
    os.setsid(); os.environ.clear()
    import time; time.sleep(600)
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(" ".join(sys.argv).encode())
    def log_message(self, *args): pass
host, port = sys.argv[1], int(sys.argv[2])
print("echo server ready", flush=True)
http.server.HTTPServer((host, port), Handler).serve_forever()
"""
"""A server for contracts: answers any GET with its own arguments; ``--die``, ``--orphan``, ``--deaf`` as they say."""


class LauncherContract:
    """The contract of ``tuner.launchers.base.Launcher``."""

    starts_servers = True
    """Whether the launcher starts servers itself; one that attaches to a running server does not."""

    @pytest.fixture
    def launcher(self) -> Launcher:
        """The launcher under test."""
        raise NotImplementedError("override the fixture `launcher`")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> Callable[..., LaunchSpec]:
        """Makes specs that launch the echo server, with more arguments if given."""
        raise NotImplementedError("override the fixture `spec`")

    @pytest.fixture
    def footprint(self) -> Callable[[], object]:
        """Takes stock of what a launch could leave behind (processes, containers, locks); equal means the same."""
        raise NotImplementedError("override the fixture `footprint`")

    def test_yields_a_server_that_comes_to_answer(self, launcher: Launcher, spec: Callable[..., LaunchSpec]) -> None:
        """The URL is usable as it stands, and the life says running."""
        with launcher.launch(spec()) as server:
            assert answer(server)
            assert server.life().running
            assert not server.url.endswith("/")

    def test_leaves_nothing_behind(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec], footprint: Callable[[], object]
    ) -> None:
        """After the block the machine is as it was before."""
        before = footprint()
        with launcher.launch(spec()) as server:
            answer(server)
        assert footprint() == before

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_leaves_nothing_behind_after_an_exception(
        self,
        launcher: Launcher,
        spec: Callable[..., LaunchSpec],
        footprint: Callable[[], object],
        error: type[BaseException],
    ) -> None:
        """An exception in the block passes through, and the teardown happens all the same."""

        def fail() -> None:
            with launcher.launch(spec()) as server:
                answer(server)
                raise error

        before = footprint()
        with pytest.raises(error):
            fail()
        assert footprint() == before

    def test_two_servers_at_once_have_urls_of_their_own(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec]
    ) -> None:
        """Two launches never share a port."""
        self._must_start_servers()
        with launcher.launch(spec()) as one, launcher.launch(spec()) as other:
            assert one.url != other.url
            assert answer(one)
            assert answer(other)

    def test_the_log_is_followed_live(self, launcher: Launcher, spec: Callable[..., LaunchSpec]) -> None:
        """A line is readable while the server runs, once, and is in the file that the spec names."""
        self._must_start_servers()
        wanted = spec()
        with launcher.launch(wanted) as server:
            answer(server)
            until(lambda: server.log.read_new() is not None and "echo server ready" in server.log.lines)
            assert "echo server starting" in wanted.log_path.read_text()
            assert server.log.read_new() == []

    def test_a_death_is_seen_with_its_exit_code(self, launcher: Launcher, spec: Callable[..., LaunchSpec]) -> None:
        """A server that ends by itself is not running, and its exit status is known."""
        self._must_start_servers()
        with launcher.launch(spec("--die")) as server:
            until(lambda: not server.life().running)
            assert server.life().exit_code == 3
            server.log.finish()
            assert "dying as told" in server.log.lines

    def test_the_processes_that_it_names_are_the_servers(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec]
    ) -> None:
        """What the server uses is not taken for the work of others, where its processes can be known."""
        self._must_start_servers()
        with launcher.launch(spec()) as server:
            answer(server)
            if server.pids is None:
                pytest.skip("the process ids of this container engine are not this host's")
            commands = [_command(pid) for pid in cpu.family(cpu.processes(), server.pids)]
        assert any("echo server ready" in command for command in commands)

    def test_a_folder_is_seen_by_the_server_and_its_modules_can_be_imported(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec], tmp_path: Path
    ) -> None:
        """Also where the configuration has a ``PYTHONPATH`` of its own."""
        self._must_start_servers()
        wanted, folder = spec(), tmp_path / "shared"
        folder.mkdir()
        (folder / "shared_by_tuner.py").write_text('import os\nprint("found in", os.environ["FOLDER"], flush=True)\n')
        argv = tuple(word.replace(ECHO_SERVER, f"import shared_by_tuner{ECHO_SERVER}") for word in wanted.argv)
        env = {**wanted.env, "FOLDER": "{folder}", "PYTHONPATH": "/also"}
        with launcher.launch(replace(wanted, argv=argv, env=env, folder=folder)) as server:
            answer(server)
            until(lambda: server.log.read_new() is not None and "echo server ready" in server.log.lines)
        (found,) = [line for line in server.log.lines if line.startswith("found in")]
        assert "{" not in found

    def test_workers_that_left_the_session_are_ended_too(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec], footprint: Callable[[], object]
    ) -> None:
        """A child with a session of its own and no environment does not outlive the block."""
        self._must_start_servers()
        before = footprint()
        with launcher.launch(spec("--orphan")) as server:
            answer(server)
        assert footprint() == before

    def test_a_launch_has_a_log_of_its_own(self, launcher: Launcher, spec: Callable[..., LaunchSpec]) -> None:
        """What an earlier launch has written to the same file is not read as this one's, and is kept."""
        self._must_start_servers()
        wanted = spec()
        with launcher.launch(replace(wanted, argv=(*wanted.argv, "--die"))) as dead:
            until(lambda: not dead.life().running)
        with launcher.launch(wanted) as server:
            answer(server)
            server.log.read_new()
            assert "dying as told" not in server.log.lines
        assert "dying as told" in wanted.log_path.with_suffix(f".1{wanted.log_path.suffix}").read_text()

    @pytest.mark.parametrize(("error", "waits"), [(OutOfMemory, False), (MeasurementError, True)])
    def test_a_server_that_is_known_to_be_dead_is_not_waited_for(
        self, launcher: Launcher, spec: Callable[..., LaunchSpec], error: type[TrialError], waits: bool
    ) -> None:
        """After a diagnosed failure the grace period is short; one without a measurement gets all of it."""
        self._must_start_servers()
        wanted, begun = replace(spec("--deaf"), stop_grace_s=6), 0.0

        def fail() -> None:
            nonlocal begun
            with launcher.launch(wanted) as server:
                answer(server)
                begun = time.monotonic()
                raise error("decided")

        with pytest.raises(error):
            fail()
        assert (time.monotonic() - begun >= 6) is waits

    def _must_start_servers(self) -> None:
        if not self.starts_servers:
            pytest.skip("this launcher attaches to a server that runs already: it starts none")


def answer(server: Server, timeout_s: float = 15.0) -> str:
    """What the server answers, waiting until it does."""
    until(lambda: _get(server) is not None, timeout_s)
    return _get(server) or ""


def until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    """Wait for a condition, and fail when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s")
        time.sleep(0.02)


def kill(*pids: int) -> None:
    """Kill processes, and wait until each has ended: until the kernel has had time for it, it holds what it held."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _get(server: Server) -> str | None:
    try:
        return httpx.get(server.url, headers=dict(server.headers), timeout=2).text
    except httpx.HTTPError:
        return None
