"""One try of one fault: folders of its own, a study of two trials in it, and what must hold after the fault."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from tests.fast import FAST
from tuner.host.leases import SCOPE
from tuner.launchers.process.traces import LAUNCH_MARK, Marked, marked

REPOSITORY = Path(__file__).parents[2]
STUDY_S = 240.0
"""How long a study of two trials may take on a busy machine; a few seconds on a free one."""
GONE_S = 20.0
"""How soon after a kill nothing may be left."""


class NotTried(Exception):
    """This machine cannot have this fault; the text says what it lacks."""


def expect(holds: object, otherwise: str) -> None:
    """Fail the try with a sentence."""
    if not holds:
        raise AssertionError(otherwise)


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit status and all that it printed."""

    code: int
    text: str

    def said(self, *words: str) -> "Ended":
        """It ended in words for a person, these among them."""
        expect("Traceback (most recent call last)" not in self.text, f"a traceback: {self.text[-1500:]}")
        for word in words:
            expect(word in self.text, f"{word!r} was not said: {self.text[-800:]}")
        return self

    def well(self) -> "Ended":
        expect(self.code == 0, f"exit status {self.code}: {self.text[-800:]}")
        return self.said()


@dataclass
class World:
    """Where one try happens.

    Attributes:
        folder: Its own folder; nothing of the try is anywhere else.
        chance: Decides when, and what.
        overrides: For each `tuner study start`.
        also: Environment variables for each command.
    """

    folder: Path
    chance: random.Random
    overrides: tuple[str, ...] = tuple(FAST)
    also: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"fault-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        for path in (self.studies, self.state, self.tmp):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def studies(self) -> Path:
        return self.folder / "studies"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def study(self) -> Path:
        return self.studies / self.name

    @cached_property
    def env(self) -> dict[str, str]:
        own = {"TUNER_STATE_DIR": str(self.state), SCOPE: self.name, "TMPDIR": str(self.tmp)}
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), **own, **self.also}

    def begin(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """A tuner command under way; what it prints is kept."""
        with (self.folder / "output").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tuner", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.env,
                cwd=self.folder,
            )

    def end(self, command: "subprocess.Popen[bytes]", within_s: float = STUDY_S) -> Ended:
        """Wait for its end; one that does not end is killed, and that is a failure."""
        try:
            code = command.wait(within_s)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise AssertionError(f"no end within {within_s:.0f} s: {self._output()[-800:]}") from None
        return Ended(code, self._output())

    def _output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def tuner(self, *arguments: str, within_s: float = 120.0) -> Ended:
        return self.end(self.begin(*arguments), within_s)

    def start(self) -> "subprocess.Popen[bytes]":
        """`tuner study start`, under way."""
        names = (f"study.name={self.name}", f"study.folder={self.studies}", "budget.trials=2", "--yes")
        return self.begin("study", "start", *self.overrides, *names)

    def records(self) -> dict[str, bytes]:
        """Every finished trial's record."""
        return {str(path): path.read_bytes() for path in self.study.glob("trials/*/record.json")}

    def launched(self, within_s: float = 60.0) -> list[Path]:
        """The traces of the launches that are under way, as soon as there are any."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if found := list(self.state.glob("launches/*.json")):
                return found
            time.sleep(0.02)
        return []

    def servers(self) -> list[Marked]:
        """The processes of this study's launches."""
        return [one for one in marked() if one.environ[LAUNCH_MARK].startswith(self.name)]

    def nothing_runs(self) -> None:
        deadline = time.monotonic() + GONE_S
        while left := self.servers():
            expect(time.monotonic() < deadline, f"still running: processes {[one.pid for one in left]}")
            time.sleep(0.1)

    def nothing_is_left(self) -> None:
        """No process, no trace, no temporary file, no draft, and `tuner clean` agrees."""
        self.nothing_runs()
        left = [*self.state.glob("launches/*"), *self.state.glob("locks/port-*"), *self.tmp.glob("tuner-*")]
        left += [path for path in self.studies.rglob("*.tmp")]
        expect(not left, f"left behind: {[str(path.relative_to(self.folder)) for path in left]}")
        self.tuner("clean", "--dry-run").well().said("nothing was left behind")

    def resumes(self) -> None:
        """The same command completes the study, and no finished trial is lost."""
        before = self.records()
        self.end(self.start()).well()
        after = self.records()
        expect(before.items() <= after.items(), "a finished trial was lost or changed")
        expect(len(after) >= 2, f"{len(after)} trials instead of 2")
        self.nothing_is_left()
