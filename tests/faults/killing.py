"""kill -9 at random moments: of tuner, its guard, its server, its container, its watchdog and the Docker engine."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.faults.world import NotTried, World, expect

_LATEST_S = 8.0
"""By then a study of two trials is over on a free machine."""


def tuner_killed(folder: Path, chance: random.Random) -> None:
    """Nothing outlives it, and the same command resumes."""
    world = World(folder, chance)
    _killed_in_mid_study(world, lambda command: [command.pid])
    world.nothing_runs()
    world.resumes()


def tuner_interrupted(folder: Path, chance: random.Random) -> None:
    """Ctrl-C: as above, in words, and by itself."""
    world = World(folder, chance)
    command = world.start()
    time.sleep(chance.uniform(0.5, _LATEST_S))
    command.send_signal(signal.SIGINT)
    ended = world.end(command, 60)
    if "Traceback" not in ended.text or world.study.exists():  # before its first line, Python itself is interrupted
        ended.said()
    world.nothing_runs()
    world.resumes()


def server_killed(folder: Path, chance: random.Random) -> None:
    """The study itself goes through."""
    world = World(folder, chance)
    command = world.start()
    _kill_one_of_the_launch(world, chance, "session")
    world.end(command).well()
    world.resumes()


def guard_killed(folder: Path, chance: random.Random) -> None:
    """The study itself goes through, and no record blames the memory of the host."""
    world = World(folder, chance)
    command = world.start()
    _kill_one_of_the_launch(world, chance, "guard")
    world.end(command).well()
    blamed = [path for path, record in world.records().items() if b"HostOutOfMemory" in record]
    expect(not blamed, f"the host's memory was blamed in {blamed}")
    world.resumes()


def tuner_and_guard_killed(folder: Path, chance: random.Random) -> None:
    """Nobody is left to clean up: `tuner clean` does, even without traces."""
    world = World(folder, chance)
    command = world.start()
    traces = world.launched()
    time.sleep(chance.uniform(0, 2))
    kill_9(*(json.loads(path.read_text())["guard"] for path in traces if path.exists()), command.pid)
    command.wait()
    if chance.random() < 0.5:
        for trace in world.state.glob("launches/*.json"):
            trace.unlink()
    world.tuner("clean").well()
    world.nothing_runs()
    world.resumes()


def container_of_killed_tuner(folder: Path, chance: random.Random) -> None:
    """The watchdog removes container and network."""
    with _containers(folder, chance) as world:
        _killed_in_mid_study(world, lambda command: [command.pid])
        _no_container(world)
        world.resumes()
        _no_container(world)


def container_killed(folder: Path, chance: random.Random) -> None:
    """The study itself goes through."""
    with _containers(folder, chance) as world:
        command = world.start()
        _kill_a_container(world, chance)
        world.end(command).well()
        world.resumes()
        _no_container(world)


def container_of_killed_tuner_and_watchdog(folder: Path, chance: random.Random) -> None:
    """Nobody is left to clean up: `tuner clean` does."""
    with _containers(folder, chance) as world:
        _killed_in_mid_study(
            world, lambda command: [*(child.pid for child in psutil.Process(command.pid).children()), command.pid]
        )
        world.tuner("clean").well()
        _no_container(world)
        world.resumes()


def engine_restarted(folder: Path, chance: random.Random) -> None:
    """The Docker engine is killed and started again under a running trial: the study itself goes through."""
    restart = os.environ.get("TUNER_TEST_DOCKER_RESTART")
    if not restart:
        raise NotTried("TUNER_TEST_DOCKER_RESTART='sudo systemctl restart docker'")
    with _containers(folder, chance) as world:
        command = world.start()
        _wait_for_a_container(world)
        time.sleep(chance.uniform(0, 3))
        subprocess.run(restart, shell=True, check=True, capture_output=True)
        world.end(command).well()
        world.resumes()
        _no_container(world)


def _killed_in_mid_study(world: World, victims: "Callable[[subprocess.Popen[bytes]], list[int]]") -> None:
    command = world.start()
    time.sleep(world.chance.uniform(0.5, _LATEST_S))
    if command.poll() is None:
        kill_9(*victims(command))
    command.wait()


def _kill_one_of_the_launch(world: World, chance: random.Random, who: str) -> None:
    world.launched()
    time.sleep(chance.uniform(0, 3))
    for path in world.launched(20)[:1]:
        with suppress(FileNotFoundError):
            kill_9(json.loads(path.read_text())[who])


def kill_9(*pids: int | None) -> None:
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def _containers(folder: Path, chance: random.Random) -> Iterator[World]:
    """A study of the simulated engine in containers; its image is there already."""
    base = os.environ.get("TUNER_TEST_DOCKER")
    if not base:
        raise NotTried("TUNER_TEST_DOCKER=python:3.11-slim")
    from tests.launchers.test_docker_study import FAST

    more = ("hardware.gpus=[]", "launcher.image=tuner-test/faults:1", "launcher.caches={vllm-sim: null}")
    cold = [one for one in FAST if not one.startswith(("launcher.caches", "study.name"))]
    _build("tuner-test/faults:1", base)
    world = World(folder, chance, (*cold, *more))
    yield world


def _build(name: str, base: str) -> None:
    from tuner.launchers.docker import images
    from tuner.launchers.docker.daemon import connected
    from tuner.launchers.docker.options import Build

    with connected() as client:
        images.build(client, name, Build(dockerfile="sim", args={"BASE": base}), lambda text: None)


def _found(world: World) -> list[str]:
    """Names of this study's containers and networks."""
    from tuner.launchers.docker import containers
    from tuner.launchers.docker.daemon import connected

    with connected(patience_s=60) as client:
        return [one.name for one in containers.ours(client) if one.study == world.name]


def _wait_for_a_container(world: World) -> None:
    deadline = time.monotonic() + 60
    while not _found(world) and time.monotonic() < deadline:
        time.sleep(0.1)


def _kill_a_container(world: World, chance: random.Random) -> None:
    import docker

    _wait_for_a_container(world)
    time.sleep(chance.uniform(0, 3))
    client = docker.from_env()
    for name in _found(world):
        with suppress(docker.errors.APIError):
            client.containers.get(name).kill()
    client.close()


def _no_container(world: World) -> None:
    deadline = time.monotonic() + 30
    while left := _found(world):
        expect(time.monotonic() < deadline, f"still there: {left}")
        time.sleep(0.2)
