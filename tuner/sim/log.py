"""Log lines as vLLM writes them: process prefix, level, time, source; progress bars with carriage returns."""

import os
import time
from dataclasses import dataclass

STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class Process:
    """Who writes: ``(EngineCore pid=12)``; no prefix when ``name`` is empty."""

    name: str
    pid: int

    @property
    def prefix(self) -> str:
        """What stands before each of its lines."""
        return f"({self.name} pid={self.pid}) " if self.name else ""


def line(process: Process, level: str, source: str, text: str) -> None:
    """One record of vLLM's logger; every line of ``text`` gets the whole head."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    head = f"{process.prefix}{level} {stamp} [{source}] "
    _write(STDOUT, "".join(f"{head}{part}\n" for part in text.split("\n")))


def raw(process: Process, text: str, stream: int = STDERR) -> None:
    """Lines that do not come from the logger: tracebacks, uvicorn."""
    _write(stream, "".join(f"{process.prefix}{part}\n" for part in text.split("\n")))


def bar(process: Process, label: str, done: int, total: int, elapsed_s: float) -> None:
    """One step of a tqdm progress bar; the first carries the prefix, the last ends the line."""
    share = done / total
    filled = int(share * 10)
    rate = f"{done / elapsed_s:5.2f}it/s" if done and elapsed_s > 0 else "?it/s"
    left = _clock(elapsed_s / share - elapsed_s) if done else "?"
    blocks = "█" * filled + " " * (10 - filled)
    text = f"{label}: {share:4.0%}|{blocks}| {done}/{total} [{_clock(elapsed_s)}<{left}, {rate}]"
    _write(STDERR, (process.prefix if done == 0 else "\r") + text + ("\n" if done == total else ""))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _write(stream: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(stream, data) :]
