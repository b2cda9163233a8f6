"""A server as a process on this host, in a session of its own, with a guard next to it."""

import getpass
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, ClassVar, Literal

from tuner.errors import ConfigError, EngineUnavailable, InfrastructureError
from tuner.host.check_result import CheckResult, CheckState
from tuner.host.leases import gpu_lease, port_lease
from tuner.host.places import check_writable
from tuner.launchers.base import LaunchSpec, Life, Server
from tuner.launchers.config import Check, LauncherConfig, Progress
from tuner.launchers.log import ServerLog, begin_log
from tuner.launchers.process.guard import Report, Task
from tuner.launchers.process.traces import LAUNCH_MARK, end_orphans
from tuner.secrets import Secrets, is_secret

if TYPE_CHECKING:
    from tuner.config import Config

_START_TIMEOUT_S = 30.0


class ProcessLauncherConfig(LauncherConfig):
    """The server is a process on this host."""

    kind: Literal["process"]

    engine_here: ClassVar[bool] = True

    @contextmanager
    def prepare(self, config: "Config", progress: Progress) -> "Iterator[ProcessLauncher]":
        """See ``LauncherConfig.prepare``."""
        for check in self.checks().values():
            list(check(config))
        yield ProcessLauncher(config.secrets.known(), (*config.secrets.trial, *config.secrets.download))

    def checks(self) -> Mapping[str, Check]:
        """See ``LauncherConfig.checks``."""
        return {"engine": _check_engine, "model": _check_model, "temporary files": _check_temporary}

    def examine(self, config: "Config") -> Iterator[CheckResult]:
        """The engine's executable."""
        program = config.engine.executable[0]
        if program != "{python}":
            yield _program(program)


def _check_engine(config: "Config") -> Iterator[str]:
    check_executable(config.engine.executable[0])
    yield from ()


def _check_model(config: "Config") -> Iterator[str]:
    """A model that is named by a folder is there."""
    model = config.model.id
    if model.startswith(("/", "./", "../", "~")) and not Path(model).expanduser().exists():
        raise ConfigError(f"{model} is not there", place="model.id", fix="correct the path")
    yield from ()


def _check_temporary(config: "Config") -> Iterator[str]:
    """Each launch has a folder of its own in there, which must be there itself."""
    given = config.model.env.get("TMPDIR") or os.environ.get("TMPDIR")
    folder = Path(given or tempfile.gettempdir())
    fix = "set TMPDIR to a folder that can be written to"
    if not folder.is_dir():
        raise InfrastructureError(f"TMPDIR: {folder} is no folder", fix=fix)
    check_writable(folder, place="TMPDIR", fix=fix)
    yield from ()


def check_executable(name: str) -> None:
    """A program that is not there is no trial's fault.

    Raises:
        ConfigError: It is not there.
    """
    if which(name.replace("{python}", sys.executable)) is None:
        fix = "say where it is: engine.executable=[PATH/bin/vllm,serve]; for vLLM in a container: launcher=docker"
        raise ConfigError(f"{name} is not there, or cannot be run", place="engine.executable", fix=fix)


def _program(name: str) -> CheckResult:
    found = which(name)
    fix = "" if found else "activate the environment it is installed in, or set engine.executable"
    mark = CheckState.OK if found else CheckState.MISSING
    return CheckResult(name="engine", state=mark, text=found or f"there is no {name}", fix=fix)


class GuardDied(InfrastructureError):
    """The process between tuner and the server died, and with it whoever knew of the server."""


@dataclass
class ProcessServer:
    """A server that a guard has started."""

    url: str
    log: ServerLog
    headers: Mapping[str, str] = field(default_factory=dict)
    _guard: "subprocess.Popen[bytes] | None" = None
    _life: Life = field(default_factory=lambda: Life(running=True))

    @property
    def pids(self) -> tuple[int, ...] | None:
        """The guard, whose descendants all of the server's processes are, those that left its session included."""
        return (self._guard.pid,) if self._guard else None

    def life(self) -> Life:
        """Whether it lives, from what the guard has reported.

        Raises:
            GuardDied: Somebody killed the guard.
        """
        while self._life.running and self._guard and (report := next_report(self._guard, timeout_s=0)):
            if report.exit is not None:
                self._life = Life(running=False, exit_code=report.exit)
        return self._life


@dataclass(frozen=True)
class ProcessLauncher:
    """Starts servers as processes; ``{host}`` is the loopback interface, ``{port}`` a free port of it.

    A server inherits tuner's environment without what is secret in it.

    Attributes:
        secrets: Those that are known here; they are cut out of the server's output.
        reach: The variables of them that a server gets all the same.
    """

    secrets: Secrets = field(default_factory=Secrets)
    reach: tuple[str, ...] = ()

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """See ``Launcher.launch``."""
        begin_log(spec.log_path)
        holder = f"{spec.name} (process {os.getpid()})"
        with ExitStack() as held:
            locks = [lock for gpu in spec.gpus for lock in held.enter_context(gpu_lease(gpu, holder))]
            port, port_lock = held.enter_context(port_lease(holder))
            task = _task(spec, port, self._environment, self.secrets.hidden)
            guard = held.enter_context(_guarded(spec, task, [*locks, port_lock]))
            yield ProcessServer(f"http://127.0.0.1:{port}", ServerLog(spec.log_path), {}, guard)

    @property
    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not is_secret(name)}
        return {**ours, **self.secrets.named(self.reach)}


def _task(spec: LaunchSpec, port: int, environment: dict[str, str], hidden: tuple[str, ...]) -> Task:
    argv = [part.replace("{host}", "127.0.0.1").replace("{port}", str(port)) for part in spec.argv]
    launch_id = spec.new_id()
    env = {**_shared_caches(), **environment, **spec.env, LAUNCH_MARK: launch_id}
    if spec.folder:
        env = spec.seeing(env, str(spec.folder.resolve()))
    if spec.gpus:
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}
    return Task(launch_id, argv, env, str(Path(spec.log_path).resolve()), spec.stop_grace_s, list(hidden))


def _shared_caches() -> dict[str, str]:
    """Torch's compile cache stays where it would be without tuner: by default it is a temporary file, ours are not."""
    try:
        return {"TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")}
    except (OSError, KeyError):  # a user without a name
        return {}


@contextmanager
def _guarded(spec: LaunchSpec, task: Task, locks: list[int]) -> "Iterator[subprocess.Popen[bytes]]":
    """The guard, with the server started; leaving the block ends both, however it is left.

    The guard inherits the locks, so that a GPU is free only when nothing runs on it any more.
    """
    guard = subprocess.Popen(
        [sys.executable, "-m", "tuner.launchers.process.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # a line that has been read ahead is one that `select` does not see
        pass_fds=locks,
        start_new_session=True,
    )
    grace_s = spec.stop_grace_s
    try:
        _send(guard, json.dumps(asdict(task)))
        _check_started(next_report(guard, _START_TIMEOUT_S))
        yield guard
    except BaseException as error:
        grace_s = spec.grace_s(error)
        raise
    finally:
        _dismiss(guard, task.launch_id, grace_s)


def _check_started(report: Report | None) -> None:
    if report and report.missing:
        fix = "check engine.executable, or activate the environment it is installed in"
        raise EngineUnavailable(f"the server could not be started: {report.refused}", fix=fix)
    if report and report.refused:
        fix = "make room, or set TUNER_STATE_DIR and TMPDIR to folders that can be written to"
        raise InfrastructureError(f"no server was started, since nobody could find it again: {report.refused}", fix=fix)
    if report is None:
        fix = "see what keeps this machine busy"
        raise EngineUnavailable(f"the server's guard did not start it within {_START_TIMEOUT_S:.0f} s", fix=fix)


def _send(guard: "subprocess.Popen[bytes]", line: str) -> None:
    assert guard.stdin is not None
    left = memoryview(line.encode() + b"\n")
    with suppress(BrokenPipeError):  # it died; it is missed when it does not answer
        while left:
            left = left[os.write(guard.stdin.fileno(), left) :]


def _dismiss(guard: "subprocess.Popen[bytes]", launch_id: str, grace_s: float) -> None:
    """Closing its input tells the guard to end the server; a guard that was killed is stood in for."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    _send(guard, str(grace_s))
    guard.stdin.close()
    try:
        guard.wait(grace_s + 30)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    finally:
        guard.stdout.close()
        with suppress(OSError):  # its trace cannot be removed, which is no reason to lose what was measured
            end_orphans(only=launch_id)


def next_report(guard: "subprocess.Popen[bytes]", timeout_s: float) -> Report | None:
    """The next line that the guard has written, or ``None`` when none comes in time.

    Raises:
        GuardDied: It has ended, and will write no more.
    """
    assert guard.stdout is not None
    if not select.select([guard.stdout], [], [], timeout_s)[0]:
        return None
    if line := guard.stdout.readline():
        return Report(**json.loads(line))
    status = guard.wait(_START_TIMEOUT_S)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    fix = "the trial is tried again; if it happens again, find out who ends tuner's processes (the kernel's log: dmesg)"
    raise GuardDied(f"the guard of the server, process {guard.pid}, {how}; its server is ended with it", fix=fix)
