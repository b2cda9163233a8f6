"""A server that runs already: measured, never started, stopped or changed."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import httpx

from tuner.errors import EngineUnavailable
from tuner.launchers.base import LaunchSpec, Life, Server
from tuner.launchers.config import Check, ExistingServer, LauncherConfig, Progress
from tuner.launchers.log import ServerLog, begin_log
from tuner.secrets import Secrets, hide

if TYPE_CHECKING:
    from tuner.config import Config

_LONGEST_PAGE = 1 << 16
"""So much of its answer is read, so that its connection can be used again; what floods us is cut off."""
_ASK_EVERY_S = 0.5
"""A server that is being measured has other things to do than to say twenty times a second that it lives."""


class AttachLauncherConfig(LauncherConfig):
    """The server runs already, and its settings are not ours to change: only the baseline can be measured."""

    kind: Literal["attach"]
    url: str
    token_env: str | None = None
    """Name of the environment variable that holds the bearer token."""

    starts_servers: ClassVar[bool] = False

    @contextmanager
    def prepare(self, config: "Config", progress: Progress) -> "Iterator[AttachLauncher]":
        """See ``LauncherConfig.prepare``."""
        yield self._launcher(config.secrets.file)

    @property
    def where(self) -> str:
        """Its URL."""
        return self.url

    def running(self, secrets: Path) -> ExistingServer:
        """See ``LauncherConfig.running``."""
        return ExistingServer(self.url.rstrip("/"), self._launcher(secrets).headers)

    def checks(self) -> Mapping[str, Check]:
        """See ``LauncherConfig.checks``."""
        return {"engine": self._asked_later}

    def _asked_later(self, config: "Config") -> Iterator[str]:
        yield f"whether {self.url} answers is asked at the start"

    def _launcher(self, secrets: Path) -> "AttachLauncher":
        return AttachLauncher(self.url, self.token_env, secrets)


@dataclass
class AttachedServer:
    """Somebody else's server; its log is out of reach, so that only its answers say whether it lives."""

    url: str
    headers: Mapping[str, str]
    log: ServerLog
    _http: httpx.Client
    _life: Life = field(default_factory=lambda: Life(running=True))
    _asked_s: float = float("-inf")

    @property
    def pids(self) -> None:
        """Not known: it may run on another machine."""
        return None

    def life(self) -> Life:
        """Running as long as the connection is accepted; asked at most every half second."""
        if time.monotonic() - self._asked_s >= _ASK_EVERY_S:
            self._life = Life(running=self._accepts())
            self._asked_s = time.monotonic()
        return self._life

    def _accepts(self) -> bool:
        read = 0
        try:
            with self._http.stream("GET", f"{self.url}/health") as reply:
                for piece in reply.iter_raw():
                    read += len(piece)
                    if read > _LONGEST_PAGE:
                        break
        except httpx.ConnectError:
            return False
        except httpx.HTTPError:
            pass  # slow or odd, but there
        return True


@dataclass(frozen=True)
class AttachLauncher:
    """Yields the server at a URL.

    Attributes:
        url: Its base URL.
        token_env: Name of the variable that holds the bearer token, if it wants one.
        secrets_file: Where that variable stands, if not in the environment.
    """

    url: str
    token_env: str | None = None
    secrets_file: Path = Path(".env")

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """The server as it stands; ``spec`` only says where the log is, which stays empty."""
        begin_log(spec.log_path)
        with httpx.Client(headers=self.headers, timeout=5) as http:
            server = AttachedServer(self.url.rstrip("/"), self.headers, ServerLog(spec.log_path), http)
            if not server.life().running:
                raise EngineUnavailable(
                    f"nothing answers at {server.url}", fix="start the server, or correct launcher.url"
                )
            yield server

    @property
    def headers(self) -> dict[str, str]:
        """The bearer token as a header, if one is wanted.

        Raises:
            EngineUnavailable: The variable that should hold it is not set.
        """
        if self.token_env is None:
            return {}
        token = Secrets.of(self.secrets_file).get(self.token_env)
        if not token:
            fix = f"put it in {self.secrets_file} or export it; or name no variable, if the server wants no token"
            raise EngineUnavailable(f"the environment variable {self.token_env} is not set", fix=fix)
        hide([token])
        return {"Authorization": f"Bearer {token}"}
