"""A server as a process on this host, in a session of its own, with a guard beside it."""

import json
import os
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tuner.errors import EngineUnavailable
from tuner.launchers.base import LaunchSpec, Life, Server
from tuner.launchers.guard import Errand
from tuner.launchers.leases import gpu_lease, port_lease
from tuner.launchers.log import ServerLog
from tuner.launchers.traces import LAUNCH_MARK, end_orphans
from tuner.secrets import Secrets, is_secret

_START_TIMEOUT_S = 30.0


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
        """Whether it lives, from what the guard has reported."""
        while self._life.running and (fact := _next_fact(self._guard, timeout_s=0)) is not None:
            if "exit" in fact:
                self._life = Life(running=False, exit_code=fact["exit"])
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
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        holder = f"{spec.name} (process {os.getpid()})"
        with ExitStack() as held:
            locks = [held.enter_context(gpu_lease(gpu, holder)) for gpu in spec.gpus]
            port, port_lock = held.enter_context(port_lease(holder))
            launch_id = f"{spec.name.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
            errand = _errand(spec, launch_id, port, self._environment, self.secrets.hidden)
            guard = held.enter_context(_guarded(errand, [*locks, port_lock]))
            yield ProcessServer(f"http://127.0.0.1:{port}", ServerLog(spec.log_path), {}, guard)

    @property
    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not is_secret(name)}
        return {**ours, **self.secrets.named(self.reach)}


def _errand(
    spec: LaunchSpec, launch_id: str, port: int, environment: dict[str, str], hidden: tuple[str, ...]
) -> Errand:
    argv = [part.replace("{host}", "127.0.0.1").replace("{port}", str(port)) for part in spec.argv]
    env = {**environment, **spec.env, LAUNCH_MARK: launch_id}
    if spec.gpus:
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}
    return Errand(launch_id, argv, env, str(Path(spec.log_path).resolve()), spec.stop_grace_s, list(hidden))


@contextmanager
def _guarded(errand: Errand, locks: list[int]) -> "Iterator[subprocess.Popen[bytes]]":
    """The guard, with the server started; leaving the block ends both, however it is left.

    The guard inherits the locks, so that a GPU is free only when nothing runs on it any more.
    """
    guard = subprocess.Popen(
        [sys.executable, "-m", "tuner.launchers.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=locks,
        start_new_session=True,
    )
    try:
        _send(guard, errand)
        fact = _next_fact(guard, _START_TIMEOUT_S)
        if fact is None or "error" in fact:
            reason = fact["error"] if fact else "its guard did not start"
            fix = "check engine.executable, or activate the environment it is installed in"
            raise EngineUnavailable(f"the server could not be started: {reason}", fix=fix)
        yield guard
    finally:
        _dismiss(guard, errand)


def _send(guard: "subprocess.Popen[bytes]", errand: Errand) -> None:
    assert guard.stdin is not None
    guard.stdin.write(json.dumps(asdict(errand)).encode() + b"\n")
    guard.stdin.flush()


def _dismiss(guard: "subprocess.Popen[bytes]", errand: Errand) -> None:
    """Closing its input tells the guard to end the server; a guard that was killed is stood in for."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    guard.stdin.close()
    try:
        guard.wait(errand.grace_s + 30)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    finally:
        guard.stdout.close()
        end_orphans(only=errand.launch_id)


def _next_fact(guard: "subprocess.Popen[bytes] | None", timeout_s: float) -> dict[str, int] | None:
    """The next line that the guard has written, or ``None`` when none comes in time; its own end counts as none."""
    if guard is None or guard.stdout is None or not select.select([guard.stdout], [], [], timeout_s)[0]:
        return None
    line = guard.stdout.readline()
    if not line:
        return {"exit": -9} if guard.poll() is not None else None
    fact: dict[str, int] = json.loads(line)
    return fact
