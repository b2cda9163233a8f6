"""The Docker engine: reaching it, and saying in our words what it says in its own.

Every call into the SDK runs inside ``translated``, which turns what it raises into the error that names the cause and
the fix. The shapes are those of Docker 20.10 to 28 (tests/launchers/test_docker_errors.py); what is not known by its
shape keeps Docker's own words.
"""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import urllib3
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound

from tuner.engines.causes import Cause
from tuner.errors import EngineUnavailable, ImageMissing, InfrastructureError, PortTaken

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_TIMEOUT_S = 60
_LOOK_EVERY_S = 0.5
RESTART_S = 60.0
"""How long an engine that is restarted in the middle of a study may take."""


class NameTaken(InfrastructureError):
    """A container or volume of that name exists."""


class PullFailed(ImageMissing):
    """The image could not be fetched."""


class NoNvidiaRuntime(EngineUnavailable):
    """The engine cannot give a container its GPUs."""


def engine_url() -> str:
    """Where the engine listens: as ``DOCKER_HOST`` says, else the docker command's own context."""
    if given := os.environ.get("DOCKER_HOST"):
        return given
    from docker import ContextAPI

    context = ContextAPI.get_current_context()
    return (context.Host if context else None) or DEFAULT_SOCKET


def seems_there() -> bool:
    """Whether an engine may answer, without asking it: its socket exists."""
    url = engine_url()
    return not url.startswith("unix://") or Path(url.removeprefix("unix://")).exists()


def accepts(url: str) -> bool:
    """Whether somebody listens there; yes, where that cannot be told without asking."""
    try:
        _knock(url)
    except TimeoutError:
        return True  # it is busy
    except OSError:
        return False
    return True


def _knock(url: str) -> None:
    """Make sure that somebody listens, before the SDK tries, which leaves its socket open where nobody does."""
    _dialled(url).close()


def _dialled(url: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(5)
        line.connect(url.removeprefix("unix://"))
    except OSError:
        line.close()
        raise
    return line


class Lifeline:
    """A connection that ends when the engine does; systemd may keep listening in place of one that is down.

    It asks for events of a kind that hardly ever comes, and reads only to see whether the end has come. An engine that
    does not answer that question (Podman's may not) ties us to nothing.

    Raises:
        EngineUnavailable: The engine cannot be reached.
    """

    _QUESTION = b"GET /events?filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D HTTP/1.1\r\nHost: docker\r\n\r\n"

    def __init__(self, url: str) -> None:
        with translated():
            self._line = _dialled(url)
            try:
                self._tied = self._accepted()
            except OSError:
                self._line.close()
                raise

    def _accepted(self) -> bool:
        self._line.settimeout(_TIMEOUT_S)
        self._line.sendall(self._QUESTION)
        answered = self._line.recv(64)
        self._line.setblocking(False)
        return b" 200 " in answered

    @property
    def cut(self) -> bool:
        """Whether the engine that it was tied to is gone."""
        try:
            while self._tied and self._line.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return self._tied

    def close(self) -> None:
        """Nobody needs to know any more."""
        self._line.close()


@contextmanager
def connected(url: str | None = None, patience_s: float = 0.0) -> Iterator[DockerClient]:
    """A client of the engine on this host.

    Args:
        url: Where it listens; by default where the environment says.
        patience_s: How long to wait for one that is down.

    Raises:
        EngineUnavailable: It cannot be reached, or is not on this host: its ports would not be ours.
    """
    url = url or engine_url()
    if not url.startswith("unix://"):
        fix = "unset DOCKER_HOST, or run tuner on that machine"
        raise EngineUnavailable(f"the Docker engine at {url} is not on this host", fix=fix)
    deadline = time.monotonic() + patience_s
    while not accepts(url) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    with translated():
        _knock(url)
        client = DockerClient(base_url=url, timeout=_TIMEOUT_S, version="auto")
    try:
        yield client
    finally:
        client.close()


@contextmanager
def translated(what: str = "") -> Iterator[None]:
    """What the SDK raises in this block becomes an error of ours.

    Args:
        what: What was being done, for messages: ``"starting the container"``.
    """
    try:
        yield
    except ImageNotFound as error:
        raise _image_missing(error) from error
    except APIError as error:
        raise refusal(str(error.explanation or error), what) from error
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise unreachable(error) from error


def unreachable(error: Exception) -> EngineUnavailable:
    """Why the engine does not answer."""
    said = repr(error)
    if "PermissionError" in said:
        fix = "add yourself to its group (`sudo usermod -aG docker $USER`, then log in again), or use rootless Docker"
        return EngineUnavailable(f"permission denied for the Docker engine at {engine_url()}", fix=fix)
    if "FileNotFoundError" in said or "ConnectionRefusedError" in said:
        fix = "start Docker (`sudo systemctl start docker`, or Docker Desktop), or correct DOCKER_HOST"
        return EngineUnavailable(f"no Docker engine answers at {engine_url()}", fix=fix)
    if "AF_UNIX path too long" in said:
        fix = "link to the socket from a shorter path, and name that in DOCKER_HOST"
        return EngineUnavailable(f"the path of the Docker engine's socket is too long: {engine_url()}", fix=fix)
    return EngineUnavailable(f"the Docker engine went away: {error}", fix="see `docker info` and the engine's own log")


def _image_missing(error: APIError) -> ImageMissing:
    return ImageMissing(
        f"the engine says: {error.explanation}", fix="pull or build it, or correct launcher.image and launcher.build"
    )


_REFUSALS: tuple[tuple[re.Pattern[str], type[InfrastructureError], str, str], ...] = (
    (
        re.compile(
            r"could not select device driver|unknown (?:or invalid )?runtime (?:name: |specified )nvidia"
            r"|nvidia-container-cli|nvidia-container-runtime|unresolvable CDI devices",
            re.I,
        ),
        NoNvidiaRuntime,
        "the Docker engine cannot give a container GPUs",
        "install nvidia-container-toolkit, `sudo nvidia-ctk runtime configure --runtime=docker`, restart Docker",
    ),
    (
        re.compile(r"port is already allocated|address already in use|ports are not available", re.I),
        PortTaken,
        "the port is taken",
        "end what listens there (`docker ps`, `ss -ltnp`), or set launcher.port=null for a free one",
    ),
    (
        re.compile(r"is already in use by container", re.I),
        NameTaken,
        "a container of that name exists",
        "`tuner clean` removes what interrupted runs left; `docker rm` removes the rest",
    ),
    (
        re.compile(r"no space left on device", re.I),
        InfrastructureError,
        "the Docker engine's disk is full",
        "`docker system df` says what holds it; `docker image prune` frees some",
    ),
    (
        re.compile(r"non-overlapping IPv4 address pool|predefined address pools have been", re.I),
        EngineUnavailable,
        "the Docker engine has no address range left for another network",
        "`docker network prune` removes unused ones, `tuner clean` tuner's; or set launcher.network=bridge",
    ),
    (
        re.compile(r"mounts? denied|bind source path does not exist|invalid mount config|error mounting", re.I),
        EngineUnavailable,
        "a mount cannot be made",
        "correct launcher.mounts",
    ),
)
_NOT_THERE = re.compile(r"exec: .*(?:executable file not found|no such file or directory)", re.I)
_CAUSES = {PortTaken: Cause.PORT_IN_USE, NoNvidiaRuntime: Cause.DRIVER}


def refusal(said: str, what: str) -> InfrastructureError:
    """What the engine's refusal means.

    Args:
        said: Its words.
        what: What was being done.
    """
    for pattern, kind, message, fix in _REFUSALS:
        if pattern.search(said):
            return kind(f"{message}: {said}", cause=_CAUSES.get(kind, Cause.UNKNOWN).value, fix=fix)
    if _NOT_THERE.search(said):
        return no_program(said)
    doing = f" while {what}" if what else ""
    return EngineUnavailable(f"the Docker engine refused{doing}: {said}", fix="see its message and the engine's log")


def no_program(said: str) -> EngineUnavailable:
    """The image does not have what is to be started."""
    fix = "correct engine.executable, or choose another launcher.image"
    return EngineUnavailable(f"the image does not have the program that is to be started: {said}", fix=fix)


def pull_failed(reference: str, said: str) -> PullFailed:
    """Why an image could not be pulled."""
    if re.search(r"manifest unknown|not found|does not exist|denied|unauthorized", said, re.I):
        fix = "correct launcher.image; for a private one `docker login` first"
        return PullFailed(f"there is no image {reference} to pull, or not for you: {said}", fix=fix)
    fix = "check the network and the registry, or load the image by hand and set launcher.pull=never"
    return PullFailed(f"{reference} could not be pulled: {said}", fix=fix)


def has_nvidia(client: DockerClient) -> bool:
    """Whether the engine knows the NVIDIA runtime, or devices by CDI."""
    with translated():
        info = client.info()
    listed = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    return "nvidia" in (info.get("Runtimes") or {}) or any("nvidia.com/gpu" in device for device in listed)


def is_wsl(client: DockerClient) -> bool:
    """Whether the engine runs on WSL2, whose GPU driver ignores device filters (nvidia-container-toolkit#21)."""
    with translated():
        return "microsoft" in str(client.info().get("KernelVersion", "")).lower()
