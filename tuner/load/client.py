"""The load worker's owner: starts it early, tells it what to send, and ends it the moment that something is wrong."""

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from tuner.errors import MeasurementError
from tuner.load.progress import Progress, answered_of
from tuner.load.records import StageResult, decode_result, encode
from tuner.load.scrape import Scraper
from tuner.load.stage import Stage, WorkerCommand
from tuner.load.target import Target
from tuner.secrets import of_headers, redact

_WATCH_EVERY_MS = 40
_READ_BYTES = 1 << 20
_TEXT_LIMIT = 2000
_TURNS = 3
"""How often a stage is sent until nothing disturbs it. A kernel that was compiled is there the next time."""


def _unwatched() -> None:
    """Nothing to look after while a stage runs."""


def undisturbed() -> str | None:
    """Nobody knows of anything."""
    return None


class LoadClient:
    """A load worker process, kept over stages and servers, and gone when the block is left.

    Example::

        with LoadClient() as client:  # the worker imports its libraries while the server starts
            result = client.run(stage, Target(server.url, server.headers, "glm"), watch=readiness.check)

    Attributes:
        on_progress: Told about twice a second how far a stage has come; ``None`` if nobody wants to know.
    """

    def __init__(self) -> None:
        self.on_progress: Callable[[Progress], None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        self._worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._stderr.close()

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._process.pid if self._process else None

    def run(self, stage: Stage, target: Target, watch: Callable[[], None] = _unwatched) -> StageResult:
        """Send a stage and wait for its end.

        Args:
            stage: What to send.
            target: Where to.
            watch: Called at least every 50 ms until the stage is over. Whatever it raises kills the worker, which
                closes all streams, and is passed on.

        Raises:
            MeasurementError: The worker died.
        """
        job = WorkerCommand(
            stage, target.url, dict(target.headers), target.model, self.on_progress is not None, target.counts
        )
        try:
            return self._answer(self._worker(), job, watch)
        except BaseException:  # KeyboardInterrupt too: no stream may outlive its stage
            self.kill()
            raise

    def run_all(
        self,
        stages: Iterable[Stage],
        target: Target,
        watch: Callable[[], None] = _unwatched,
        disturbed: Callable[[], str | None] = undisturbed,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> tuple[StageResult, ...]:
        """Run stages in order; the first one that had to be aborted is the last: nothing after it can be used.

        Args:
            stages: What to send.
            target: Where to.
            watch: As ``run`` has it.
            disturbed: Asked once a stage is over what has disturbed its numbers since it was last asked. If something
                has, the stage is sent again with fresh prompts, up to two times, and only the last turn counts.
            around: Entered once for each turn, and left when its last request is answered.
        """
        results: list[StageResult] = []
        for stage in stages:
            results += self._until_clean(stage, target, watch, disturbed, around)
            if results[-1].aborted:
                break
        return tuple(results)

    def _until_clean(
        self,
        stage: Stage,
        target: Target,
        watch: Callable[[], None],
        disturbed: Callable[[], str | None],
        around: Callable[[], AbstractContextManager[object]],
    ) -> list[StageResult]:
        turns: list[StageResult] = []
        for turn in range(_TURNS):
            disturbed()  # what came before is not this turn's
            with around():
                result = self._counted(stage.afresh(turn), target, watch)
            turns.append(replace(result, disturbed=disturbed()))
            if turns[-1].disturbed is None or result.aborted:
                break
        *earlier, last = turns
        return [*(result.set_aside(turn) for turn, result in enumerate(earlier, 1)), last]

    def _counted(self, stage: Stage, target: Target, watch: Callable[[], None]) -> StageResult:
        """A stage, with what the server counted meanwhile where the stage lasts."""
        if stage.rule is None and not stage.due_ms:
            return self.run(stage, target, watch)
        with Scraper(target) as scraper:
            result = self.run(stage, target, watch)
            return replace(result, engine=scraper.counters(result))

    def kill(self) -> None:
        """End the worker and its streams now; the next ``run`` starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            _close(pipe)

    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._stderr.seek(0)  # the worker writes on from here: what its predecessor said is not its own
            self._stderr.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuner.load.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to handle
            )
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], job: WorkerCommand, watch: Callable[[], None]) -> StageResult:
        hidden = of_headers(job.headers)
        try:
            _tell(process, job)
            return decode_result(self._result_line(process, job.stage, watch))
        except (EOFError, BrokenPipeError):
            said = redact(self._stderr_tail(), hidden)
            raise MeasurementError(f"the load worker died with exit code {process.wait()}: {said}") from None
        except ValidationError as error:
            said = redact(str(error), hidden)[:_TEXT_LIMIT]
            raise MeasurementError(f"the server's answers cannot be read: {said}") from None

    def _result_line(self, process: subprocess.Popen[bytes], stage: Stage, watch: Callable[[], None]) -> bytes:
        """The first line that is no news of the stage's progress; the listener hears of those."""
        start_s = time.monotonic()
        for line in self._lines(process, watch):
            if (answered := answered_of(line)) is None:
                return line
            if self.on_progress:
                self.on_progress(Progress(stage, answered, time.monotonic() - start_s))
        raise EOFError

    def _lines(self, process: subprocess.Popen[bytes], watch: Callable[[], None]) -> Iterator[bytes]:
        """What the worker writes, line by line; ends with its output."""
        assert process.stdout is not None
        fd = process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLHUP)
        parts: list[bytes] = []
        while True:
            watch()
            if not poll.poll(_WATCH_EVERY_MS):
                continue
            if not (read := os.read(fd, _READ_BYTES)):
                return
            for part in read.splitlines(keepends=True):
                parts.append(part)
                if part.endswith(b"\n"):
                    yield b"".join(parts)
                    parts = []

    def _stderr_tail(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-_TEXT_LIMIT:].decode("utf-8", "replace").strip()


def _tell(process: subprocess.Popen[bytes], job: WorkerCommand) -> None:
    assert process.stdin is not None
    process.stdin.write(encode(job).encode() + b"\n")
    process.stdin.flush()


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):  # what was not flushed has nobody to go to
        pipe.close()
