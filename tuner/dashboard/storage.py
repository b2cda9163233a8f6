"""Where Optuna keeps the study, for its dashboard: SQLite in the study's folder, or at a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import ConfigError, InfrastructureError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


from tuner.records.folder import StudyFolder


def optuna_storage(folder: StudyFolder, url: str | None) -> "BaseStorage":
    """Optuna's storage: at the URL, or an SQLite file in the study's folder.

    SQLite is put into WAL mode, in which a dashboard that reads never blocks the study that writes.

    Raises:
        ConfigError: Nothing can be stored at the URL.
        InfrastructureError: The study's folder cannot be written to.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    if url is None:
        return _in_the_folder(folder.path / "optuna.db")
    if url.startswith("journal:"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    try:
        return RDBStorage(url)
    except (ImportError, SQLAlchemyError, RuntimeError) as error:
        # its own words, without the URL: a password may be in it
        said = str(error).partition("\n")[0]
        fix = "sqlite:///PATH, journal:PATH, or postgresql+psycopg://… with its driver installed"
        raise ConfigError(said, place="storage.url", fix=fix) from error


def check_storage(folder: StudyFolder, url: str | None) -> Iterator[str]:
    """Make sure that the study can be kept there, and change nothing; yields what only trying can tell.

    Raises:
        ConfigError: It is another program's, or its folder is not there.
        InfrastructureError: It is locked, or cannot be read.
    """
    path = folder.path / "optuna.db" if url is None else _path_in(url)
    if path is None:
        yield "storage.url is opened at the start"
    elif path.exists() and not (url or "").startswith("journal:"):
        _look_into(path)
    elif url is not None and not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not there", place="storage.url", fix="make that folder, or correct it")


def _path_in(url: str) -> Path | None:
    """The file that a storage's URL names; ``None`` if it names none."""
    kind, _, place = url.partition("?")[0].partition(":")
    if kind == "journal":
        return Path(place)
    return (
        Path(place.removeprefix("///")) if kind == "sqlite" and place.startswith("///") and place[3:4] != ":" else None
    )


def _look_into(path: Path) -> None:
    """Whether there is a database of Optuna's, or an empty one."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables:
                database.execute("SELECT study_id, study_name FROM studies LIMIT 1")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


@contextmanager
def storage_errors(folder: Path | None = None) -> Iterator[None]:
    """In this block a storage that refuses to keep something is this machine's fault.

    Args:
        folder: The study's, to be named.

    Raises:
        InfrastructureError: It did: a full disk, a database that went away.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        said = str(error.__cause__ or error).partition("\n")[0]
        fix = "make room, or bring the database back; then the same command resumes the study: nothing measured is lost"
        raise InfrastructureError(
            f"{f'{folder}: ' if folder else ''}the study's storage refuses: {said}", fix=fix
        ) from error


def _in_the_folder(path: Path) -> "BaseStorage":
    """SQLite in WAL mode.

    Raises:
        ConfigError: The file is no database of this Optuna.
        InfrastructureError: It is locked, or cannot be written.
    """
    import sqlite3
    from contextlib import closing

    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
        storage = RDBStorage(f"sqlite:///{path.resolve()}")
        storage.get_all_studies()  # tables of the same names may be another program's
        return storage
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ConfigError | InfrastructureError:
    told = error.__cause__ or error
    said = str(getattr(told, "orig", None) or told).partition("\n")[0]
    if "locked" in said:
        fix = "end what has it open (a dashboard, a database browser, a backup), then run the same command again"
        return InfrastructureError(f"{path} is locked by another process", fix=fix)
    if isinstance(error, OSError) or any(word in said for word in ("full", "disk I/O", "readonly", "unable to open")):
        fix = "make room on that disk and see that the folder can be written to, or choose another study.folder"
        return InfrastructureError(f"{path} cannot be written: {said}", fix=fix)
    fix = "remove it: it is made anew from the trials' records"
    return ConfigError(f"{path} is no database that this Optuna can use: {said}", fix=fix)
