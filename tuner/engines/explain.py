"""What an engine's log says, whichever engine wrote it: ``tuner explain``.

A log is read once, line by line, in memory that does not grow with it.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import BinaryIO

from tuner.engines import registry
from tuner.engines.base import Degradation
from tuner.engines.causes import Cause, Diagnosis, Fate
from tuner.engines.kind import EngineLog
from tuner.engines.log.lines import parse_line
from tuner.engines.log.shapes import IdleShapes, shapes
from tuner.errors import ConfigError
from tuner.lines import Lines, cut_among

_SHARE = 0.02
_TELLING, _TELLING_CHARACTERS = 20_000, 4 << 20
"""So many lines tell who wrote a log, however long it is; and fewer where they are long."""
_PIECE = 1 << 20
_UNSIFTED = 10
"""So many pieces are read whole after one most of whose lines may say something."""


def lines_of(file: BinaryIO) -> Iterator[str]:
    """The lines of a log, as ``tuner.lines`` cuts them: of a file, a pipe or a terminal.

    Raises:
        ConfigError: It is a device, which may have no end.
    """
    _check_end(file)
    lines = Lines()
    while piece := file.read(_PIECE):
        yield from lines.feed(piece)
    yield from lines.rest()


def _check_end(file: BinaryIO) -> None:
    try:
        state = os.fstat(file.fileno())
    except OSError:  # in memory
        return
    device = stat.S_ISCHR(state.st_mode) or stat.S_ISBLK(state.st_mode)
    if device and not file.isatty() and state.st_rdev != os.stat(os.devnull).st_rdev:
        raise ConfigError(
            f"{file.name} is a device, and no log", place="LOG", fix="name the file that the engine wrote"
        )


def explain(
    log: Iterable[str], exit_code: int | None = None, oom_killed: bool = False, running: bool = False
) -> Diagnosis:
    """The diagnosis of a log by the engine that wrote it.

    Args:
        log: Its lines, without line ends.
        exit_code: The server's exit status, where it is known.
        oom_killed: Whether the kernel or the container engine reported an out-of-memory kill.
        running: Whether the server still runs.

    Returns:
        The engine's diagnosis; ``DEGRADED`` where nothing failed and the engine mentions a severe degradation.
    """
    fate = Fate(running, exit_code, oom_killed)
    lines = iter(log)
    head = list(_head(lines))
    reading = _Explaining(_engine_of(head))
    for some in _batches(chain(head, lines)):
        reading.read_all(some)
    return reading.diagnosis(fate)


def _head(lines: Iterator[str]) -> Iterator[str]:
    characters = 0
    for count, line in enumerate(lines, start=1):
        yield line
        characters += len(line)
        if count == _TELLING or characters > _TELLING_CHARACTERS:
            return


def _batches(lines: Iterator[str]) -> Iterator[Sequence[str]]:
    """All lines, about a megabyte of them at a time."""
    batch: list[str] = []
    characters = 0
    for line in lines:
        batch.append(line)
        characters += len(line) + 1
        if characters > _PIECE:
            yield batch
            batch, characters = [], 0
    yield batch


def _engine_of(head: Sequence[str]) -> EngineLog:
    """Whose words enough of the lines are; vLLM's logs mention others' only in passing."""
    lines = [line.text for raw in head for line in parse_line(raw)]
    for log in registry.logs():
        if sum(1 for line in lines if log.wrote.find(line)) > _SHARE * len(lines):
            return log
    return registry.ENGINES[registry.DEFAULT].log


class _Explaining:
    """One log on its way."""

    def __init__(self, engine: EngineLog) -> None:
        self._reader = engine.reader()
        self._degradations = engine.degradations()
        self._announces = engine.announces
        self._sieve = engine.sieve() if engine.sieve else None
        self._unsifted = 0
        self._announced = False
        self._idle = IdleShapes()
        self._cut = 0

    def read_all(self, lines: Sequence[str]) -> None:
        """Take the next lines, those that can say nothing in one go."""
        begin, places = 0, self._telling(lines)
        for place, shape in zip(places, shapes(lines, places), strict=True):
            if shape not in self._idle:
                self._skip(lines[begin:place])
                self._read(lines[place], shape)
                begin = place + 1
        self._skip(lines[begin:])
        self._cut += cut_among(lines)

    def _telling(self, lines: Sequence[str]) -> Sequence[int]:
        """The places of the lines to read; all of them for a while, where the sieve has let most through."""
        if self._sieve is None or self._unsifted:
            self._unsifted = max(self._unsifted - 1, 0)
            return range(len(lines))
        places = self._sieve.among(lines)
        if len(places) > len(lines) / 2:
            self._unsifted = _UNSIFTED
        return places

    def _skip(self, lines: Sequence[str]) -> None:
        self._reader.skip(lines)
        self._degradations.skip(lines)

    def _read(self, line: str, shape: bytes) -> None:
        self._reader.read(line)
        self._degradations.read(line)
        self._announced = self._announced or self._announces.of(line)
        if self._reader.idle and self._degradations.idle and (self._announced or not self._announces.of(line)):
            self._idle.add(shape, self._reader.turns)
        else:
            self._idle.valid_at(self._reader.turns)

    def diagnosis(self, fate: Fate) -> Diagnosis:
        """The engine's, or degraded: by a severe degradation, or by any where the log is about nothing else."""
        diagnosis = replace(self._reader.diagnose(fate), cut=self._cut)
        undecided = diagnosis.cause is Cause.UNKNOWN and diagnosis.line is None and not fate.running
        if not undecided and diagnosis.cause is not Cause.HEALTHY:
            return diagnosis
        is_excerpt = undecided and not self._announced
        named = (each for each in self._degradations.found if each.severe or is_excerpt)
        first = next(named, None)
        return _degraded(diagnosis, first) if first else diagnosis


def _degraded(diagnosis: Diagnosis, degradation: Degradation) -> Diagnosis:
    return replace(
        diagnosis,
        cause=Cause.DEGRADED,
        line=degradation.line,
        line_number=degradation.line_number,
        advice=f"It runs, but with {degradation.name}: slower than it could. Drop the setting that the line names.",
        confidence="certain" if diagnosis.cause is Cause.HEALTHY else "likely",
    )
