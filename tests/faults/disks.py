"""Disks that are full or read-only: at the start, and from a random moment on."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.world import NotTried, World


def state_folder_full(folder: Path, chance: random.Random) -> None:
    _full(folder, chance, "state")


def study_folder_full(folder: Path, chance: random.Random) -> None:
    _full(folder, chance, "studies")


def temporary_folder_full(folder: Path, chance: random.Random) -> None:
    _full(folder, chance, "tmp")


def state_folder_read_only(folder: Path, chance: random.Random) -> None:
    _read_only(folder, chance, "state")


def study_folder_read_only(folder: Path, chance: random.Random) -> None:
    _read_only(folder, chance, "studies")


def _full(folder: Path, chance: random.Random, which: str) -> None:
    """Full before the start, or from a random moment on: it ends in words, and resumes when there is room."""
    with _disk(folder / which):
        world = World(folder, chance)
        at_once = chance.random() < 0.4
        if at_once:
            _fill(folder / which)
        command = world.start()
        if not at_once:
            time.sleep(chance.uniform(0.5, 6))
            _fill(folder / which)
        world.end(command).said()
        world.nothing_runs()
        (folder / which / "filler").unlink()
        world.tuner("clean").well()
        world.resumes()


def _read_only(folder: Path, chance: random.Random, which: str) -> None:
    with _disk(folder / which):
        world = World(folder, chance)
        _mount("-o", "remount,ro", str(folder / which))
        world.end(world.start()).said(which)
        world.nothing_runs()
        _mount("-o", "remount,rw", str(folder / which))
        world.resumes()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A small disk of its own."""
    if os.geteuid() != 0:
        raise NotTried("only root can mount a disk: sudo make faults")
    path.mkdir(parents=True)
    try:
        _mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path))
    except subprocess.CalledProcessError as error:
        raise NotTried(f"this machine mounts no disk: {error.stderr.decode().strip()}") from None
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _fill(path: Path) -> None:
    with (path / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
