"""A server in a container of its own, made for one trial and removed after it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from docker import DockerClient
from docker.models.containers import Container

from tuner.errors import EngineUnavailable
from tuner.host.leases import gpu_lease
from tuner.host.watchdog import Watchdog, watchdog
from tuner.launchers.base import LaunchSpec, Life, Server
from tuner.launchers.docker.containers import Contents, create, end, host_pids, published_port, stop
from tuner.launchers.docker.daemon import RESTART_S, connected, translated
from tuner.launchers.docker.follower import Follower
from tuner.launchers.log import ServerLog, begin_log

_NOTHING: Mapping[str, str] = MappingProxyType({})
_POLL_S = 0.1


@dataclass(frozen=True)
class ContainerServer:
    """A server in a running container."""

    url: str
    log: ServerLog
    follower: Follower
    headers: Mapping[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] | None = None

    def life(self) -> Life:
        """Whether it lives, from what the follower has seen; the exit status of a signal is 128 and its number.

        Raises:
            EngineUnavailable: The Docker engine went away.
        """
        return self.follower.life()


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ran to its end in a container.

    Attributes:
        exit_code: Its exit status.
        lines: What it said, on both of its streams.
    """

    exit_code: int | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class DockerLauncher:
    """Starts servers as containers; ``{host}`` is every interface inside, ``{port}`` is published on 127.0.0.1 only.

    Attributes:
        contents: What the containers are made of.
        hidden: Secrets to cut out of their output.
    """

    contents: Contents
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """See ``Launcher.launch``."""
        begin_log(spec.log_path)
        holder = f"{spec.name} (process {os.getpid()})"
        launch_id = spec.new_id()
        with ExitStack() as held:
            locks = [lock for gpu in spec.gpus for lock in held.enter_context(gpu_lease(gpu, holder))]
            client = held.enter_context(connected(patience_s=RESTART_S))
            dog = held.enter_context(watchdog(("-m", "tuner.launchers.docker.containers", launch_id), locks))
            with _removed(client, launch_id, dog):
                container = create(client, self.contents, spec, launch_id)
                url = _started(container)
                with self._followed(container, spec) as follower:
                    yield ContainerServer(url, ServerLog(spec.log_path), follower, pids=host_pids(container))

    def run(
        self,
        name: str,
        argv: tuple[str, ...],
        env: Mapping[str, str] = _NOTHING,
        on_line: Callable[[str], object] = lambda line: None,
        *,
        gpus: tuple[int, ...] = (),
    ) -> "Ended":
        """Run a command in a container of the same making to its end, and give back what it said.

        Args:
            name: Names the container.
            argv: The command.
            env: Variables for this command only.
            on_line: Told of each line as it comes.
            gpus: The GPUs that it may see.

        Raises:
            InfrastructureError: The engine cannot run it, or goes away.
        """
        with TemporaryDirectory(prefix="tuner-run-") as folder:
            spec = LaunchSpec(f"tuner/{name}", argv, Path(folder) / "output.log", env, gpus)
            with self.launch(spec) as server:
                while (life := server.life()).running:
                    for line in server.log.read_new():
                        on_line(line)
                    time.sleep(_POLL_S)
                server.log.finish()
            return Ended(life.exit_code, tuple(server.log.lines))

    @contextmanager
    def _followed(self, container: Container, spec: LaunchSpec) -> Iterator[Follower]:
        """The follower, until the container was stopped and all of its output is written."""
        follower = Follower(str(container.id), spec.log_path, self.hidden)
        grace_s = spec.stop_grace_s
        try:
            yield follower
        except BaseException as error:
            grace_s = spec.grace_s(error)
            raise
        finally:
            with suppress(EngineUnavailable):  # what it would have said is said by the follower, or by the removal
                stop(container, grace_s)
            follower.join()


def _started(container: Container) -> str:
    """Start it; returns its base URL.

    Raises:
        InfrastructureError: The engine cannot start it.
    """
    with translated("starting the container"):
        container.start()
    # port 0 where nobody can answer: it has ended already, and its log says why
    return f"http://127.0.0.1:{published_port(container) or 0}"


@contextmanager
def _removed(client: DockerClient, launch_id: str, dog: Watchdog) -> Iterator[None]:
    """After the block nothing of the launch is left; an engine that went away leaves that to the watchdog."""
    cut_off = False
    try:
        yield
    except KeyboardInterrupt:
        cut_off = True  # what the engine was asked for then may yet become a container: the watchdog looks twice
        raise
    finally:
        try:
            end(client, launch_id)
            if not cut_off:
                dog.dismiss()
        except EngineUnavailable:
            pass  # leaving the watchdog's block waits until it has done it
