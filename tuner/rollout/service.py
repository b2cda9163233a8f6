"""The service that runs, as a deployment that can be read, reached and compared."""

from dataclasses import dataclass, field
from pathlib import Path

from tuner.engines.registry import ENGINES
from tuner.errors import ConfigError
from tuner.importer import inspected
from tuner.importer.baseline import Served, served
from tuner.importer.understood import DEFAULT_PORT, Deployment, on_host, understand
from tuner.launchers.docker import composed, daemon
from tuner.launchers.docker.composed import Composed, RunningService
from tuner.rollout.project import ComposeProject
from tuner.secrets import hide, is_api_key, is_secret
from tuner.trial.readiness import Probe

_HOME = "/root"
"""Of the user that containers run as, unless their image says otherwise."""


@dataclass(frozen=True, slots=True)
class LiveService:
    """A running service.

    Attributes:
        container: Its container.
        deployment: What that runs.
    """

    container: Composed
    deployment: Deployment = field(repr=False)

    @property
    def project(self) -> ComposeProject:
        """Where it comes from."""
        of = self.container
        return ComposeProject(
            name=of.project, directory=of.directory, files=of.files, env_files=of.env_files, service=of.service
        )

    @property
    def served(self) -> Served:
        """Its model, flags and variables."""
        return served(self.deployment)

    @property
    def model(self) -> str:
        """The name that clients ask for."""
        return self._flag("--served-model-name") or self.served.model

    @property
    def url(self) -> str:
        """Where this host reaches it."""
        port = self._flag("--port") or ""
        return self.container.url(int(port) if port.isdigit() else DEFAULT_PORT)

    @property
    def answers(self) -> bool:
        """Whether it is healthy."""
        return Probe(self.url, self.model).healthy()

    @property
    def restarts(self) -> tuple[str, int]:
        """Its container, and how often its restart policy has started it again."""
        return self.container.id, int(self.container.attrs["RestartCount"])

    def launcher(self, *, whole_log: bool) -> RunningService:
        """What a measurement takes for its launcher."""
        return RunningService(self.container.id, self.url, self._headers, whole_log)

    @property
    def hub(self) -> Path | None:
        """Where its cache of models is on this host; ``None`` if no mount says."""
        env = self.deployment.env
        home = env.get("HF_HOME") or f"{env.get('HOME') or _HOME}/.cache/huggingface"
        return on_host(env.get("HF_HUB_CACHE") or f"{home}/hub", self.deployment.container.mounts)

    @property
    def _headers(self) -> dict[str, str]:
        """The bearer token that it wants, which its own container tells."""
        env, own = self.deployment.env, ENGINES[self.deployment.engine].conventions.variables
        keys = [value for name, value in env.items() if value and is_api_key(name) and name.startswith(own)]
        token = self._flag("--api-key") or next(iter(keys), None)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _flag(self, name: str) -> str | None:
        command = self.deployment.command
        flags = command.flags if command else ()
        return next((flag.values[0] for flag in reversed(flags) if flag.name == name and flag.values), None)


def running(service: str, file: Path, *, ended: bool = False) -> LiveService:
    """The service of this name that a compose file describes.

    Args:
        service: Its name.
        file: The compose file.
        ended: Whether one that has ended will do.

    Raises:
        ConfigError: It does not run, several of it do, or it is no engine.
        EngineUnavailable: No Docker engine answers.
    """
    if (one := found(service, file, ended=ended)) is not None:
        return one
    fix = f"`docker compose -f {file} up -d {service}` starts it"
    raise ConfigError(f"no container of {service} runs that was made from this file", place=str(file), fix=fix)


def found(service: str, file: Path, *, ended: bool = False) -> LiveService | None:
    """The same, or one that has ended if that is asked for; ``None`` if there is none."""
    with daemon.connected() as client:
        container = composed.find(client, service, file, ended=ended)
    if container is None:
        return None
    image_env = container.image_attrs["Config"].get("Env") or []
    seen = inspected.container(container.attrs, image_env)
    deployment = understand(seen, lambda word: container.name)
    if deployment is None or deployment.command is None:
        raise ConfigError(f"the container {container.name} runs no engine that tuner can read", place=str(file))
    hide(value for name, value in deployment.env.items() if value and is_secret(name))
    hide(value for flag in deployment.command.flags if is_secret(flag.name.lstrip("-")) for value in flag.values)
    return LiveService(container, deployment)
