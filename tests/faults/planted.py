"""Secrets planted where people have them: whatever tuner does with them, their value stands in none of its files.

A place counts as survived if the study refuses it in words that do not show it, or if neither what is printed nor what
is written holds the value. The server prints its environment and its command line, as some do.
"""

import random
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.world import World, expect


@dataclass(frozen=True)
class Place:
    """Where a secret is.

    Attributes:
        name: For people.
        overrides: On the command line of the study; ``{}`` stands for the secret.
        environ: Environment variables.
        dotenv: Lines of ``.env``.
    """

    name: str
    overrides: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()
    dotenv: tuple[str, ...] = ()


def _variable(name: str, value: str = "{}") -> Place:
    return Place(f"${name}", environ=((name, value),))


PLACES = (
    _variable("OPENAI_KEY"),
    _variable("DATABASE_URL", "postgresql://me:{}@db.example/app"),
    _variable("DEPLOY_SSH_KEY"),
    _variable("ALERT_WEBHOOK", "https://hooks.example/{}"),
    Place("HF_TOKEN in .env, for the trial", ("secrets.trial=[HF_TOKEN]",), dotenv=("HF_TOKEN={}",)),
    Place("a password in model.env", ("+model.env.MY_PASSWORD={}",)),
    Place("oc.env in model.env", ("+model.env.GREETING='${{oc.env:MY_TOKEN}}'",), (("MY_TOKEN", "{}"),)),
    Place("a URL in engine.launch_env", ("+engine.launch_env.UPSTREAM='http://me:{}@up.example:1'",)),
    Place("model.args.api_key", ("+model.args.api_key={}",)),
    Place("a flag for launches only", ("+engine.launch_args.api_key={}",)),
    Place("a password in the storage's URL", ("storage.url='postgresql+psycopg://me:{}@127.0.0.1:9/x'",)),
    Place("an Authorization header in model.env", ("+model.env.EXTRA_HEADERS='Authorization: Bearer {}'",)),
)


def planted(place: Place) -> Callable[[Path, random.Random], None]:
    """The try of one place."""

    def attempt(folder: Path, chance: random.Random) -> None:
        secret = "s3cr3t" + "".join(chance.choices(string.ascii_letters + string.digits, k=26))
        world = World(folder, chance, also={name: value.format(secret) for name, value in place.environ})
        (folder / ".env").write_text("".join(line.format(secret) + "\n" for line in place.dotenv))
        speaker = _speaker(folder)
        more = (f"engine.executable=[{speaker}]", *(one.format(secret) for one in place.overrides))
        world.overrides = (*world.overrides, *more)
        ended = world.end(world.start()).said()
        expect(ended.code in (0, 1, 2), f"exit status {ended.code}")
        expect(secret not in ended.text, f"printed: {_around(ended.text, secret)}")
        written = [path for path in world.studies.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        written += [path for path in world.state.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        expect(not written, f"in {', '.join(str(path.relative_to(folder)) for path in written)}")
        world.nothing_runs()

    return attempt


def _speaker(folder: Path) -> Path:
    """The simulated engine behind a program that prints all that it was given."""
    path = folder / "speaker"
    path.write_text(f'#!/bin/sh\nenv\necho "$@"\nexec {sys.executable} -m tuner.sim serve "$@"\n')
    path.chmod(0o755)
    return path


def _around(text: str, secret: str) -> str:
    return text.partition(secret)[0][-60:].replace("\n", " ") + "***"
