"""Measuring servers that run already, with a study's own workload and a study's own record."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tuner.bench.view import ProgressListener
from tuner.composing import load
from tuner.config import Config
from tuner.errors import ConfigError, EngineUnavailable
from tuner.fetch import fetch
from tuner.launchers.attach import AttachLauncher
from tuner.records.folder import StudyFolder, TrialFolder
from tuner.records.record import Role, TrialRecord
from tuner.space import Candidate
from tuner.study.assembly import workbench
from tuner.trial.assignment import Assignment
from tuner.trial.run import run_trial
from tuner.trial.workbench import Workbench


@dataclass(frozen=True, slots=True)
class SavedMeasurement:
    """One measurement, as it is on disk.

    Attributes:
        folder: Where it is: record, requests, and the configuration that it was made with.
        record: The record.
        config: That configuration; ``None`` where an earlier version did not keep it.
    """

    folder: TrialFolder
    record: TrialRecord
    config: Config | None


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server, ready to be measured as often as wanted.

    Attributes:
        config: The URL, the workload and the objective.
        parts: What sends the load.
        follower: Who watches.
    """

    config: Config
    parts: Workbench
    follower: ProgressListener

    @property
    def url(self) -> str:
        """The server's base URL."""
        return str(self.config.launcher.where)

    def measure(self, role: Role = Role.BASELINE) -> SavedMeasurement:
        """Measure it once, on fresh prompts; whoever calls this holds the folder's lock."""
        folder = StudyFolder(self.config.study.path)
        number = folder.next_number("trials")
        place = folder.trial(number)
        folder.write(place.config, self.config.to_yaml())
        assignment = _assignment(self.config, number, role)
        return SavedMeasurement(place, run_trial(assignment, self.parts, place, self.follower.phase), self.config)


def bench(
    url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None, follower: ProgressListener
) -> SavedMeasurement:
    """Measure the server at a URL once; it is kept in ``studies/bench/trials``.

    Args:
        url: Its base URL.
        overrides: As for a study: ``workload=quick``, ``study.folder=…``.
        config_dir: A folder with groups of the user's own.
        token_env: Name of the environment variable that holds the bearer token, if it wants one.
        follower: Told of each phase and of each stage's progress.

    Raises:
        ConfigError: An override is wrong.
        EngineUnavailable: Nothing answers at the URL.
    """
    config = asked(url, overrides, config_dir, token_env)
    with StudyFolder(config.study.path).locked(), attached(config, follower) as server:
        return server.measure()


def asked(url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None) -> Config:
    """The configuration of a measurement of a running server; the server is asked for its model.

    Raises:
        ConfigError: An override is wrong, or the URL is none.
        EngineUnavailable: Nothing answers there.
    """
    url = base(url)
    model = served_model(AttachLauncher(url, token_env))
    said = {"launcher.url": url, "launcher.token_env": token_env, "model.id": model}
    return load(["experiment=bench", *overrides], config_dir, said)


@contextmanager
def attached(config: Config, follower: ProgressListener) -> Iterator[RunningServer]:
    """The server that a configuration names."""
    with workbench(config) as (parts, _):
        parts.client.on_progress = follower.progress
        yield RunningServer(config, parts, follower)


def is_url(text: str) -> bool:
    """Whether a word on the command line is a URL; everything else is a path."""
    return text.startswith(("http://", "https://"))


def base(url: str) -> str:
    """The server's base URL, of what people have at hand: an OpenAI client's ends in ``/v1``."""
    if not is_url(url):
        raise ConfigError(f"{url} is not a URL", place="URL", fix=f"say http://{url}")
    if "@" in url.removeprefix("http://").removeprefix("https://").partition("/")[0]:
        fix = "leave it out, and say --token-env NAME"
        raise ConfigError("a password is not written into configurations", place="URL", fix=fix)
    return url.rstrip("/").removesuffix("/v1")


def _assignment(config: Config, number: int, role: Role) -> Assignment:
    # not the study's seed: the server may still have the prompts of an earlier measurement in its prefix cache
    seed = secrets.randbits(31)
    return Assignment(config.study.name, number, role, Candidate({}), config.model.settings, seed)


def served_model(launcher: AttachLauncher) -> str:
    """The first model that the server lists by a name."""
    try:
        reply = fetch(f"{launcher.url.rstrip('/')}/v1/models", launcher.headers, within_s=10)
        named = [model["id"] for model in reply.json()["data"] if isinstance(model["id"], str) and model["id"].strip()]
        return named[0]
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"nothing answers at {launcher.url}: {error}", fix="check the URL") from error
    except (ValueError, LookupError, TypeError) as error:
        fix = "check the URL, and say --token-env NAME if the server wants a token"
        raise EngineUnavailable(f"{launcher.url} lists no model (HTTP {reply.status})", fix=fix) from error
