"""From the line that decides to the verdict: every failure's log, written by a real process while it is watched."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.engines.test_fixtures import DATA, LOUD, TABLE
from tuner.engines.vllm.engine import VllmEngine
from tuner.errors import TrialError
from tuner.launchers.base import Life
from tuner.launchers.log import ServerLog
from tuner.trial.readiness import Stopwatch, Watch

ENGINE = VllmEngine(("vllm", "serve"), "a/model")
WRITE = 'cat "$1"; date +%s%N > "$2"; cat "$3"; exit 1'


@dataclass
class Writer:
    """A server that does nothing but write its log and die."""

    process: subprocess.Popen[bytes]
    log: ServerLog
    url: str = "http://127.0.0.1:1"
    headers: dict[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] | None = None

    def life(self):
        status = self.process.poll()
        return Life(status is None, status)


@dataclass(frozen=True)
class Verdict:
    """What the watch said of a log, and how long after the deciding line had been begun."""

    file: str
    cause: str
    seconds: float

    @property
    def row(self):
        expected = TABLE[self.file]
        return (
            f"{self.file:58} {expected['cause']:26} {self.cause:26} {self.seconds:6.2f} s  {expected['line'][-60:]}\n"
        )


def watched(file, folder):
    """The verdict on one log; the moment counts at which all lines before the deciding one had been written."""
    folder.mkdir()
    before, after = _split((DATA / file).read_bytes(), TABLE[file]["line"].encode())
    names = [folder / name for name in ("before", "begun", "after")]
    names[0].write_bytes(before)
    names[2].write_bytes(after)
    with (folder / "server.log").open("wb") as out:
        process = subprocess.Popen(["sh", "-c", WRITE, "sh", *map(str, names)], stdout=out, stderr=out)
    watch = Watch(Writer(process, ServerLog(folder / "server.log")), ENGINE, Stopwatch(lambda phase: None))
    try:
        while True:
            watch.check()
            time.sleep(0.1)
    except TrialError as error:
        process.wait()
        return Verdict(file, error.cause, (time.time_ns() - int(names[1].read_text())) / 1e9)


def _split(log, deciding):
    lines = log.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if deciding in line)
    return b"".join(lines[:at]), b"".join(lines[at:])


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda file: watched(file, folder / file), LOUD))
    sys.stdout.writelines(verdict.row for verdict in found)
    return found


def test_the_verdict_falls_within_a_second_of_the_line(verdicts):
    assert max(verdict.seconds for verdict in verdicts) < 1


def test_what_is_said_at_once_is_what_is_said_with_the_whole_log_at_hand(verdicts):
    assert {v.file: v.cause for v in verdicts} == {v.file: TABLE[v.file]["cause"] for v in verdicts}
