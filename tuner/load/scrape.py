"""Reads a server's ``/metrics`` while a stage runs, at a pace that costs the server at most one percent of its time."""

import threading
import time
from types import TracebackType
from typing import Self

import httpx

from tuner.fetch import fetch
from tuner.load.counters import EngineCounters, Page, parse, summary
from tuner.load.records import StageResult
from tuner.load.target import Target

_WITHIN_S = 2.0
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_SHARE = 0.01
_MOST_PAGES = 10_000


class Scraper:
    """Reads for as long as its block is open; a server without the page is asked once.

    Args:
        target: The server.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pages: list[Page] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        if self._read() is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive() and kind is None:
            self._thread.join(2 * _WITHIN_S)

    def counters(self, result: StageResult) -> EngineCounters | None:
        """What the server counted in the steady window of a stage that is over, or else in the whole of it."""
        self._stop.set()
        if not self._pages or result.started_ns is None:
            return None
        if self._thread.is_alive():
            self._thread.join(2 * _WITHIN_S)
        self._read()
        start_ms, end_ms = (result.window.start_ms, result.window.end_ms) if result.window else (0.0, result.wall_ms)
        ends = (result.started_ns + round(moment_ms * 1e6) for moment_ms in (start_ms, end_ms))
        return summary(self._pages, *ends)

    def _read_on(self) -> None:
        pause_s = _PAUSE_S
        while not self._stop.wait(pause_s) and len(self._pages) < _MOST_PAGES:
            took_s = self._read()
            pause_s = min(max(_PAUSE_S, (took_s or 0.0) / _SHARE), _LONGEST_PAUSE_S)

    def _read(self) -> float | None:
        """Keep another reading; returns how long it took, or ``None`` if there was none."""
        begun_ns = time.perf_counter_ns()
        try:
            answer = fetch(f"{self._target.url}/metrics", self._target.headers, within_s=_WITHIN_S)
        except httpx.HTTPError:
            return None
        if answer.status != 200:
            return None
        took_ns = time.perf_counter_ns() - begun_ns
        page = parse(answer.text, begun_ns + took_ns // 2)
        if page == Page(page.at_ns):  # a page, but of something else
            return None
        self._pages.append(page)
        return took_ns / 1e9
