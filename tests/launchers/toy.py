"""A launcher in one module: a bare subprocess."""

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tuner.launchers.base import LaunchSpec, Life
from tuner.launchers.config import LauncherConfig, Progress
from tuner.launchers.log import ServerLog, begin_log

if TYPE_CHECKING:
    from tuner.config import Config


@dataclass
class ToyServer:
    """A server in a subprocess."""

    url: str
    log: ServerLog
    process: "subprocess.Popen[bytes]"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.process.pid,)

    def life(self) -> Life:
        status = self.process.poll()
        return Life(running=status is None, exit_code=status)


class ToyLauncher:
    """Starts servers as children of tuner."""

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[ToyServer]:
        begin_log(spec.log_path)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        argv = [word.replace("{host}", "127.0.0.1").replace("{port}", str(port)) for word in spec.argv]
        env = spec.seeing(spec.env, str(spec.folder)) if spec.folder else dict(spec.env)
        with (
            spec.log_path.open("ab") as log,
            subprocess.Popen(argv, stdout=log, stderr=log, env=env) as process,
        ):
            try:
                yield ToyServer(f"http://127.0.0.1:{port}", ServerLog(spec.log_path), process)
            finally:
                process.kill()


class ToyLauncherConfig(LauncherConfig):
    """Its section of a configuration."""

    kind: Literal["toy"]

    @contextmanager
    def prepare(self, config: "Config", progress: Progress) -> Iterator[ToyLauncher]:
        progress("nothing to prepare")
        yield ToyLauncher()
