"""A study on disk: its folder with one record a trial.

Everything measured is in ``trials/NNNN/record.json`` before Optuna is told of it, so that a kill -9 at any moment
loses no finished trial: what Optuna has not heard is told to it when the study is resumed.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from tuner import __version__
from tuner.errors import ConfigError, InfrastructureError
from tuner.host.files import write_whole
from tuner.load.records import StageResult, dump_records
from tuner.reading import bytes_of
from tuner.records.record import TrialRecord
from tuner.schema import Schema, config_error
from tuner.secrets import redacted_file


@dataclass(slots=True)
class _Memory:
    """The records of a study, read once while it is locked: nobody else writes them then.

    Attributes:
        locked: Whether this process has locked the study.
        records: By kind (``trials``, ``confirm``) and file, as the disk has them: without secrets.
    """

    locked: bool = False
    records: dict[str, dict[Path, TrialRecord]] = field(default_factory=dict)

    def of(self, folder: Path, kind: str) -> list[TrialRecord]:
        """The records of a kind, by number."""
        records = self.records.get(kind)
        if records is None:
            read = ((path, _read(path)) for path in sorted(folder.glob(f"{kind}/*/record.json")))
            records = {path: record for path, record in read if isinstance(record, TrialRecord)}
        if self.locked:
            self.records[kind] = records
        return list(records.values())

    def saved(self, path: Path) -> None:
        """A record has been written."""
        records = self.records.get(path.parent.parent.name)
        if records is not None and isinstance(record := _read(path), TrialRecord):
            records[path] = record

    @contextmanager
    def kept(self) -> Iterator[None]:
        """In this block the study is locked."""
        self.locked = True
        try:
            yield
        finally:
            self.locked = False
            self.records.clear()


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Where one trial's evidence is."""

    path: Path
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    @property
    def log(self) -> Path:
        """The server's whole output."""
        return self.path / "server.log"

    @property
    def requests(self) -> Path:
        """Every request's timestamps, one JSON line each; only a measured trial has it."""
        return self.path / "requests.jsonl"

    @property
    def config(self) -> Path:
        """What a measurement of a running server was made with; a study has one for all of its trials."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """The record; there once the trial is over."""
        return self.path / "record.json"

    def begin(self) -> None:
        """Another launch begins here: what a killed one had measured is not its own."""
        self.requests.unlink(missing_ok=True)

    def save_requests(self, results: Iterable[StageResult]) -> None:
        """Keep every request of the measurement."""
        _write(self.requests, "".join(dump_records(results)))

    def save(self, record: TrialRecord) -> None:
        """The record; from now on the trial is over."""
        _write(self.record, record.model_dump_json(indent=1) + "\n")
        self._memory.saved(self.record)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record that cannot be read: its trial counts as not run.

    Attributes:
        path: The file.
        reason: What is wrong with it.
        foreign: Whether it is sound, but of another version of tuner.
    """

    path: Path
    reason: str
    foreign: bool = False

    def __str__(self) -> str:
        return f"{self.path} cannot be read ({self.reason})"

    def set_aside(self) -> Path:
        """Rename it, so that its trial can be run again; returns where it is now."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        self.path.replace(aside)
        return aside


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """A study's folder: ``config.yaml``, ``trials/``, ``confirm/``, ``report.html``, ``profile.yaml``."""

    path: Path
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def profile(self) -> Path:
        """The winner, for the deployment."""
        return self.path / "profile.yaml"

    @property
    def compose(self) -> Path:
        """The same as a compose service, where it ran in containers."""
        return self.path / "compose.yaml"

    @property
    def image(self) -> Path:
        """Which image the study runs in, where it runs in containers."""
        return self.path / "image.json"

    @property
    def runs(self) -> Path:
        """With which command, where and with which versions the study was run: a line for each run."""
        return self.path / "runs.jsonl"

    @property
    def earlier_runs(self) -> Path:
        """The same, of runs with versions of tuner that gave it another name."""
        return self.path / "sittings.jsonl"

    @property
    def sources(self) -> Path:
        """What the earlier studies said that it began with."""
        return self.path / "sources.json"

    @property
    def exhausted(self) -> Path:
        """There once the search has said that the space holds no other configuration."""
        return self.path / ".exhausted"

    def trial(self, number: int) -> TrialFolder:
        """The folder of a trial."""
        return self._made("trials", f"{number:04d}")

    def confirmation(self, number: int) -> TrialFolder:
        """The folder of a relaunch at the end of the study."""
        return self._made("confirm", f"{number:04d}")

    def _made(self, kind: str, label: str) -> TrialFolder:
        path = self.path / kind / label
        for each in (self.path, path.parent, path):
            _made_private(each)
        return TrialFolder(path, self._memory)

    def forget(self) -> None:
        """Drop what was prepared for a study in which nothing has run."""
        for path in (self.config, self.exhausted, *self.path.glob("optuna.db*")):
            path.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Begin anew: what ran is kept in a folder next to it; returns that."""
        count = len(list(self.path.glob("aside-*")))
        aside = self.path / f"aside-{count + 1}"
        aside.mkdir(mode=0o700)
        for name in ("config.yaml", "image.json", "trials", "confirm"):
            if (self.path / name).exists():
                (self.path / name).rename(aside / name)
        self._memory.records.clear()
        self.forget()
        return aside

    def records(self) -> list[TrialRecord]:
        """All trials that are over, by number; ``damaged`` names those whose record cannot be read."""
        return self._memory.of(self.path, "trials")

    def confirmations(self) -> list[TrialRecord]:
        """The relaunches of baseline and best, in the order in which they ran."""
        return self._memory.of(self.path, "confirm")

    def damaged(self) -> list[Damaged]:
        """Records that cannot be read."""
        paths = (path for kind in ("trials", "confirm") for path in sorted(self.path.glob(f"{kind}/*/record.json")))
        return [record for record in map(_read, paths) if isinstance(record, Damaged)]

    def set_damaged_aside(self) -> tuple[str, ...]:
        """Make way for running trials again whose record is damaged; returns what a person should know of it.

        Raises:
            ConfigError: A record was written by another version of tuner, which can read it.
        """
        damaged = self.damaged()
        if foreign := [record for record in damaged if record.foreign]:
            fix = "resume with the version of tuner that wrote it, or move its folder away: the trial counts as not run"
            raise ConfigError(str(foreign[0]), fix=fix)
        return tuple(
            f"{record}: set aside as {record.set_aside().name}, its trial is not counted" for record in damaged
        )

    def next_number(self, kind: Literal["trials", "confirm"]) -> int:
        """The number of the next launch: after the last that has a record, damaged or not."""
        numbers = [int(path.parent.name) for path in self.path.glob(f"{kind}/[0-9]*/record.json*")]
        return max(numbers, default=-1) + 1

    def interrupted(self) -> list[int]:
        """Trials that were begun and have no record: tuner was killed in the middle of them, or still runs them."""
        begun = (path for path in sorted(self.path.glob("trials/[0-9]*")) if not any(path.glob("record.json*")))
        return [int(path.name) for path in begun]

    def write(self, path: Path, text: str) -> None:
        """Write one of the study's files, whole or not at all."""
        _made_private(self.path)
        _write(path, text)

    def holder(self) -> int | None:
        """The process that runs the study now, 0 where it has not said which it is; ``None`` if nobody does."""
        path = self.path / ".lock"
        if not path.is_file():
            return None
        with path.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                said = lock.read(20).strip()
                return int(said) if said.isdigit() else 0
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only tuner at work in this folder; a study that is refused before its first launch leaves nothing.

        Raises:
            InfrastructureError: Another one is.
        """
        _made_private(self.path)
        with (self.path / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = f"the study in {self.path} is being run by process {lock.read().strip()}"
                raise InfrastructureError(holder, fix="wait for it, or choose another study.name") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._sweep()
            try:
                with self._memory.kept():
                    yield
            except BaseException:
                self._discard_if_nothing_ran()
                raise

    def _discard_if_nothing_ran(self) -> None:
        if any(next(self.path.glob(kind), None) for kind in ("trials/*", "confirm/*", "aside-*")):
            return
        self.forget()
        for path in (self.image, self.runs, self.earlier_runs, self.sources, self.path / ".lock"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # what we did not put there stays
            self.path.rmdir()

    def _sweep(self) -> None:
        """Remove what a killed tuner had begun to write: nobody else is at work here."""
        for pattern in (".*.tmp", "trials/*/.*.tmp", "confirm/*/.*.tmp"):
            for draft in self.path.glob(pattern):
                with suppress(OSError):  # whoever writes there next says what is wrong with it
                    draft.unlink()
        for shared in self.path.glob("trials/*/live"):
            shutil.rmtree(shared, ignore_errors=True)


def studies(folder: Path) -> list[StudyFolder]:
    """All studies in a folder, by name."""
    return [StudyFolder(config.parent) for config in sorted(folder.glob("*/config.yaml"))]


def remove(study: StudyFolder) -> None:
    """Remove a study's folder.

    Raises:
        InfrastructureError: It is being run, or cannot be removed.
    """
    if (holder := study.holder()) is not None:
        fix = "end it first (Ctrl-C there), then run the same command again"
        raise InfrastructureError(f"the study in {study.path} is being run by process {holder}", fix=fix)
    try:
        shutil.rmtree(study.path)
    except OSError as error:
        fix = "see who owns it, then run the same command again"
        raise InfrastructureError(f"{error.filename or study.path}: {error.strerror}", fix=fix) from error


_Model = TypeVar("_Model", bound=Schema)


def read_json(path: Path, model: type[_Model]) -> _Model:
    """One of a study's JSON files.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return model.model_validate_json(bytes_of(path))
    except (OSError, ValidationError) as error:
        said = error.strerror if isinstance(error, OSError) else config_error(error).message
        fix = "restore it from a copy, or `tuner study rm` the study"
        raise ConfigError(f"{path} is damaged: {said}", fix=fix) from error


def _read(path: Path) -> TrialRecord | Damaged:
    try:
        raw = bytes_of(path)
        return TrialRecord.model_validate_json(raw)
    except OSError as error:
        return Damaged(path, error.strerror or "cannot be read")
    except ValidationError as error:
        return Damaged(path, config_error(error).message.partition("\n")[0][:200], _is_foreign(raw))


def _is_foreign(raw: bytes) -> bool:
    """Whether it is a whole record, of another version of tuner."""
    try:
        written_by = json.loads(raw).get("tuner_version")
    except (ValueError, AttributeError, RecursionError):
        return False
    return written_by not in (None, __version__)


def _made_private(path: Path) -> None:
    """A study's folder, which nobody but its owner may enter: logs, prompts and settings are theirs."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def _write(path: Path, text: str) -> None:
    """As ``write_whole``, without secrets.

    Raises:
        InfrastructureError: The disk is full, or the folder cannot be written to.
    """
    try:
        write_whole(path, redacted_file(text))
    except OSError as error:
        fix = "make room on that disk, or make the folder writable; then the same command resumes the study"
        raise InfrastructureError(f"{path} cannot be written: {error.strerror}", fix=fix) from error
