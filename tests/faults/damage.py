"""Damaged files: every command still says in words what is wrong, and the other studies are as they were."""

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.faults.killing import kill_9
from tests.faults.world import World, expect

HEALTHY = "healthy"


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _binary(content: bytes) -> bytes:
    return bytes(range(256)) * 16


def _empty(content: bytes) -> bytes:
    return b""


def _nul(content: bytes) -> bytes:
    return content[:10] + b"\0" * 10 + content[10:]


HOW: dict[str, Callable[[bytes], bytes]] = {
    "truncated": _truncated,
    "binary": _binary,
    "empty": _empty,
    "NUL": _nul,
}


def record(folder: Path, chance: random.Random) -> None:
    _damaged(folder, chance, "trials/0001/record.json")


def configuration(folder: Path, chance: random.Random) -> None:
    _damaged(folder, chance, "config.yaml")


def database(folder: Path, chance: random.Random) -> None:
    _damaged(folder, chance, "optuna.db")


def log_and_requests(folder: Path, chance: random.Random) -> None:
    _damaged(folder, chance, chance.choice(("trials/0000/server.log", "trials/0000/requests.jsonl", ".lock")))


def runs(folder: Path, chance: random.Random) -> None:
    _damaged(folder, chance, "runs.jsonl")


def trace(folder: Path, chance: random.Random) -> None:
    """A launch's trace that cannot be read hides nothing: its server is found by its environment."""
    world = World(folder, chance)
    command = world.start()
    for path in world.launched():
        path.write_bytes(chance.choice(list(HOW.values()))(path.read_bytes()))
    servers = world.servers()
    for one in servers[:1]:
        guard = int(one.environ["TUNER_GUARD"].split("/")[2])
        kill_9(guard, command.pid)
    command.kill()
    command.wait()
    world.tuner("clean").well()
    world.nothing_runs()


@cache
def prepared() -> World:
    """A finished study and a healthy one in the same folder, made once and put back before each try."""
    folder = Path(tempfile.mkdtemp(prefix="faults-damage-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = World(folder, random.Random(0))
    for one in (world, World(folder, random.Random(0), name=HEALTHY)):
        one.end(one.start()).well()
    shutil.copytree(world.studies, folder / "as made")
    return world


def _damaged(folder: Path, chance: random.Random, name: str) -> None:
    world = prepared()
    shutil.rmtree(world.studies)
    shutil.copytree(world.folder / "as made", world.studies)
    victim = world.study / name
    how = chance.choice(list(HOW))
    victim.write_bytes(HOW[how](victim.read_bytes()))
    at = ("--folder", str(world.studies))
    listed = world.tuner("study", "list", *at).said()
    expect(HEALTHY in listed.text, f"{how} {name}: the healthy study is not listed: {listed.text[-500:]}")
    world.tuner("study", "status", HEALTHY, *at).well()
    for command in ("status", "report"):
        world.tuner("study", command, world.name, *at).said()
    ended = world.end(world.start())
    ended.said(*([] if ended.code == 0 else [victim.name]))
    world.nothing_runs()
