"""``docker compose`` for one service of a project: what it makes of the files, and its container brought up."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from tuner.errors import EngineUnavailable, InfrastructureError
from tuner.launchers.docker.daemon import engine_url, refusal
from tuner.schema import Schema
from tuner.secrets import redacted

_QUESTION_S = 60.0
_UP_S = 900.0
"""A container that is stopped may have a long grace period of its own."""
_LAST_LINES = 5


class Described(Schema):
    """What Compose makes of the files for one service; secrets are among it."""

    image: str
    entrypoint: list[str] | None = Field(repr=False)
    command: list[str] | None = Field(repr=False)
    environment: dict[str, str] = Field(repr=False)


class ComposeProject(Schema):
    """Where a service comes from, as its running container was made."""

    name: str
    directory: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    service: str

    def described(self) -> Described:
        """The service, as the files describe it now.

        Raises:
            InfrastructureError: Compose is not installed, or does not take the files.
        """
        said = self._run(["config", "--format", "json"], _QUESTION_S)
        try:
            one = json.loads(said)["services"][self.service]
        except (ValueError, LookupError) as error:
            raise InfrastructureError(f"docker compose shows no service {self.service}") from error
        given: Mapping[str, str | None] = one.get("environment") or {}
        return Described(
            image=one.get("image") or f"{self.name}-{self.service}",
            entrypoint=_words(one.get("entrypoint")),
            command=_words(one.get("command")),
            environment={name: _plain(value) for name, value in given.items() if value is not None},
        )

    def up(self, lock: int, *, anew: bool = False) -> None:
        """Have the container be what the files say; nothing happens to it if it is, and nothing to any other service.

        Nothing is pulled or built: an image that is another one than the canary saw would be another deployment.

        Args:
            lock: A file descriptor that Compose keeps open until it is done, also when tuner is killed.
            anew: Whether it is made anew also where Compose sees no change.

        Raises:
            InfrastructureError: It cannot be brought up.
        """
        forced = ["--force-recreate"] if anew else []
        self._run(["up", "-d", *forced, "--no-deps", "--no-build", "--pull", "never", self.service], _UP_S, lock)

    def _run(self, words: list[str], within_s: float, *locks: int) -> str:
        command = ["docker", "compose", "--ansi", "never", "-p", self.name, "--project-directory", str(self.directory)]
        for option, paths in (("-f", self.files), ("--env-file", self.env_files)):
            command += [word for path in paths for word in (option, str(path))]
        return _said(
            [*command, "--profile", "*", *words] if words[0] == "config" else [*command, *words], within_s, locks
        )


def _said(command: list[str], within_s: float, locks: tuple[int, ...]) -> str:
    env = {**os.environ, "DOCKER_HOST": engine_url()}
    try:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=locks,
            start_new_session=True,  # a Ctrl-C is ours to answer: half of it would be left otherwise
        )
    except OSError as error:
        fix = "install Docker's command line with its compose plugin (docker-compose-plugin)"
        raise EngineUnavailable(f"docker cannot be started: {error.strerror}", fix=fix) from error
    with process:
        said, complaint = _ended(process, within_s)
    if process.returncode:
        raise _failed(complaint)
    return said


def _ended(process: "subprocess.Popen[str]", within_s: float) -> tuple[str, str]:
    """What it said; an interrupt, or a limit that has passed, ends it and its plugin before anything else is done."""
    try:
        return process.communicate(timeout=within_s)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise EngineUnavailable(f"docker compose is not done after {within_s:.0f} s") from error
        raise


def _failed(stderr: str) -> InfrastructureError:
    said = redacted(" ".join(stderr.strip().splitlines()[-_LAST_LINES:])) or "no word"
    if "not a docker command" in said or "unknown shorthand flag" in said:
        fix = "install its compose plugin: apt-get install docker-compose-plugin"
        return EngineUnavailable("docker has no `compose` command", fix=fix)
    return refusal(said, "deploying with docker compose")


def _words(given: Any) -> list[str] | None:
    return None if given is None else [_plain(word) for word in given]


def _plain(text: str) -> str:
    """Compose writes each dollar sign twice, so that its output can be read by it again."""
    return text.replace("$$", "$")
