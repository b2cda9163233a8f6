"""One run of a study: the command, the machine and the versions, so that a year later one still knows.

A study may be stopped and resumed, elsewhere too; each run adds a line to ``runs.jsonl``.
"""

import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from tuner import __version__
from tuner.host import nvidia as driver
from tuner.reading import bytes_of
from tuner.records.folder import StudyFolder
from tuner.schema import Schema
from tuner.secrets import redacted

_LIBRARIES = ("optuna", "aiohttp", "uvloop", "torch")
"""What has a hand in the numbers: search and load."""


class Machine(Schema):
    """The host that a study ran on."""

    system: str
    cpu: str
    cores: int
    memory_gib: float | None
    gpus: tuple[str, ...] = ()
    """Name, memory and driver of each, as nvidia-smi says them; empty where there is none."""

    @classmethod
    def this(cls) -> "Machine":
        """The machine that this process runs on."""
        return cls(
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=_memory_gib(),
            gpus=driver.descriptions(),
        )


class StudyRun(Schema):
    """When a study was begun or resumed, how, where and with which versions."""

    started_at: str
    """Wall clock, ISO 8601 in UTC."""
    command: str | None
    """What was typed, secrets masked; null where tuner was not started from a command line."""
    machine: Machine
    versions: dict[str, str]

    @classmethod
    def now(cls, command: Sequence[str]) -> "StudyRun":
        """The run that begins now."""
        return cls(
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=redacted(shlex.join(command)) if command else None,
            machine=Machine.this(),
            versions={"tuner": __version__, "Python": platform.python_version()} | dict(_libraries()),
        )


def append(folder: StudyFolder, run: StudyRun) -> None:
    """Add a run to those of a study."""
    folder.runs.touch(mode=0o600)
    with folder.runs.open("a", encoding="utf-8") as file:
        file.write(run.model_dump_json() + "\n")


def runs_of(folder: StudyFolder) -> list[StudyRun]:
    """A study's runs, oldest first; a line that was cut off by a crash is left out."""
    return [*_runs(folder.earlier_runs), *_runs(folder.runs)]


def _runs(path: Path) -> Iterator[StudyRun]:
    for line in bytes_of(path).decode("utf-8", "replace").splitlines() if path.is_file() else ():
        with suppress(ValidationError):
            yield StudyRun.model_validate_json(line)


def _libraries() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    with suppress(OSError, ValueError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None
