"""A service of a compose project that runs: which container it is, and its server while it is looked after.

Nothing here starts, stops or changes a container.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import ImageNotFound, NotFound
from docker.models.containers import Container

from tuner.errors import ConfigError, EngineUnavailable, ImageMissing, InfrastructureError
from tuner.launchers.base import LaunchSpec, Life, Server
from tuner.launchers.docker.containers import host_pids
from tuner.launchers.docker.daemon import connected, translated
from tuner.launchers.log import ServerLog, begin_log
from tuner.launchers.redacting import Redacting, opened

_LABEL = "com.docker.compose."
_LOOK_EVERY_S = 0.25
_CLOSING_S = 5.0
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Composed:
    """A running container of a compose service.

    Attributes:
        id: In Docker.
        name: The container's name.
        service: Its service.
        project: Its project.
        directory: The project's folder.
        files: The compose files that it was made from.
        env_files: What ``--env-file`` named then.
        image: The image, as it was named.
        image_id: What it is.
        attrs: All that ``docker inspect`` says; secrets are among it.
        image_attrs: The same of its image.
    """

    id: str
    name: str
    service: str
    project: str
    directory: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...]
    image: str
    image_id: str
    attrs: Mapping[str, Any] = field(repr=False)
    image_attrs: Mapping[str, Any] = field(repr=False)

    @property
    def env(self) -> dict[str, str]:
        """Its variables, those of its image included; secrets are among them."""
        return dict(one.partition("=")[::2] for one in self.attrs["Config"].get("Env") or [])

    def url(self, port: int) -> str:
        """Where this host reaches what listens on a port inside: as it is published, else at its own address."""
        network, state = self.attrs["NetworkSettings"], self.attrs["State"]
        if not state["Running"] or state["Restarting"]:
            return "http://127.0.0.1:0"  # nobody can answer: it has ended already, and its log says why
        if self.attrs["HostConfig"].get("NetworkMode") == "host":
            return f"http://127.0.0.1:{port}"
        for one in (network.get("Ports") or {}).get(f"{port}/tcp") or []:
            return f"http://{_address(one['HostIp'])}:{one['HostPort']}"
        for joined in (network.get("Networks") or {}).values():
            if joined.get("IPAddress"):
                return f"http://{joined['IPAddress']}:{port}"
        raise InfrastructureError(f"{self.name} cannot be reached from this host", fix="publish its port")


def _address(given: str) -> str:
    if given in _EVERY_ADDRESS:
        return "127.0.0.1"
    return f"[{given}]" if ":" in given else given


def find(client: DockerClient, service: str, file: Path, *, ended: bool = False) -> Composed | None:
    """The container of a service that a compose file describes; ``None`` if none of it runs.

    Args:
        client: The engine.
        service: The service.
        file: The compose file, one of several if need be.
        ended: Whether one that has ended is meant as well.

    Raises:
        ConfigError: There are several.
    """
    with translated():
        filters: dict[str, str | list[str] | bool] = {"label": f"{_LABEL}service={service}"}
        found = client.containers.list(all=ended, filters=filters, ignore_removed=True)
        mine = [one for one in found if file.resolve() in _files(one) and not _is_one_off(one)]
        if len(mine) > 1:
            names = ", ".join(sorted(str(one.name) for one in mine))
            fix = "end all but one: what is proven of one server is not proven of several"
            raise ConfigError(f"{len(mine)} containers of {service} run: {names}", place=str(file), fix=fix)
        return _composed(client, mine[0]) if mine else None


def _is_one_off(container: Container) -> bool:
    return container.labels.get(f"{_LABEL}oneoff") == "True"


def _files(container: Container) -> list[Path]:
    return [Path(one).resolve() for one in _paths(container, "project.config_files")]


def _paths(container: Container, label: str) -> tuple[Path, ...]:
    return tuple(Path(one) for one in container.labels.get(f"{_LABEL}{label}", "").split(",") if one)


def _composed(client: DockerClient, container: Container) -> Composed:
    labels, attrs = container.labels, container.attrs
    try:
        image = client.images.get(attrs["Image"]).attrs
    except ImageNotFound as error:
        fix = "pull or build it again, and deploy the service with it"
        raise ImageMissing(
            f"the image that {container.name} runs was removed: nothing could start it again", fix=fix
        ) from error
    return Composed(
        id=str(container.id),
        name=str(container.name),
        service=labels[f"{_LABEL}service"],
        project=labels[f"{_LABEL}project"],
        directory=Path(labels[f"{_LABEL}project.working_dir"]),
        files=_paths(container, "project.config_files"),
        env_files=_paths(container, "project.environment_file"),
        image=attrs["Config"]["Image"],
        image_id=attrs["Image"],
        attrs=attrs,
        image_attrs=image,
    )


def written_bytes(client: DockerClient, container: str) -> int:
    """What a container has written outside its volumes, and what goes with it."""
    with translated():
        listed = client.api.containers(all=True, size=True, filters={"id": container})
    return sum(one.get("SizeRw") or 0 for one in listed)


def image_id(client: DockerClient, reference: str) -> str | None:
    """What a reference stands for here; ``None`` if there is no such image."""
    with translated():
        try:
            return str(client.images.get(reference).id)
        except ImageNotFound:
            return None


def tag(client: DockerClient, image: str, reference: str) -> None:
    """Have a reference stand for an image again."""
    with translated(f"tagging {reference}"):
        client.images.get(image).tag(reference)


# its server, as a launcher yields one


@dataclass(frozen=True)
class RunningService:
    """A launcher that starts nothing: it yields the server in a container that somebody else runs.

    Attributes:
        container: The container's id.
        url: Where it is reached.
        headers: The bearer token, if it wants one.
        whole_log: Whether its log is read from the start; else what it says from now on.
    """

    container: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    whole_log: bool

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """See ``Launcher.launch``; the container is left as it is."""
        begin_log(spec.log_path)
        with connected() as client:
            with translated():
                container = client.containers.get(self.container)
            with _copied(container, spec.log_path, self.whole_log):
                log = ServerLog(spec.log_path)
                restarts = 0 if self.whole_log else container.attrs["RestartCount"]
                yield ServiceServer(self.url, self.headers, log, host_pids(container), container, restarts)


@dataclass
class ServiceServer:
    """A server in a container that has a restart policy of its own: one that was restarted has ended."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    log: ServerLog
    pids: tuple[int, ...] | None
    _container: Container = field(repr=False)
    _restarts: int
    _life: Life = field(default_factory=lambda: Life(running=True))
    _looked_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._begun: str = self._container.attrs["State"]["StartedAt"]

    def life(self) -> Life:
        """Whether it lives; Docker is asked four times a second at most."""
        if self._life.running and time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
            self._life = self._asked()
            self._looked_s = time.monotonic()
        return self._life

    def _asked(self) -> Life:
        with translated():
            try:
                self._container.reload()
            except NotFound:
                raise EngineUnavailable("the container was removed while it was measured") from None
        state, again = self._container.attrs["State"], self._container.attrs["RestartCount"] != self._restarts
        if state["Running"] and not again and not state["Restarting"] and state["StartedAt"] == self._begun:
            return Life(running=True)
        code = None if again and state["Running"] else state["ExitCode"]
        return Life(running=False, exit_code=code, oom_killed=bool(state["OOMKilled"]))


@contextmanager
def _copied(container: Container, path: Path, whole: bool) -> Iterator[None]:
    """While the block runs, what the container says is written to a file, secrets masked."""
    with translated():
        tail: Any = "all" if whole else 0
        stream = container.logs(stream=True, follow=True, stdout=True, stderr=True, tail=tail)
    copying = threading.Thread(target=_copy, args=(stream, path), name=f"log-{container.name}", daemon=True)
    copying.start()
    try:
        yield
    finally:
        stream.close()
        copying.join(_CLOSING_S)


def _copy(stream: Sequence[bytes], path: Path) -> None:
    cut = Redacting()
    with opened(path) as file:
        with suppress(OSError, ValueError):  # the stream is closed from outside
            for piece in stream:
                file.write(cut.feed(piece))
        file.write(cut.end())
