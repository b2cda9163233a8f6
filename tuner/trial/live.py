"""Settings that are changed in a running server."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tuner.engines.live import Live, Setting
from tuner.errors import MeasurementError
from tuner.fetch import fetch
from tuner.load.counters import parse
from tuner.trial.readiness import Probe, Watch

_WITHIN_S = 30.0
"""How long a server may take to be idle, and to put a change in force."""
_POLL_S = 0.02


class NotInForce(MeasurementError):
    """The server did not put a setting in force."""


@dataclass
class LiveServer:
    """Changes the settings of one running server.

    Attributes:
        live: How that is done.
        folder: The folder that the server sees.
        watch: Looks after the server.
        probe: Asks it for an answer.
        changes: How many changes have been asked for.
    """

    live: Live
    folder: Path
    watch: Watch
    probe: Probe
    changes: int = field(default=0, init=False)

    def change(self, setting: Setting) -> None:
        """Put a setting in force in an idle server, in each of its engines.

        Raises:
            NotInForce: It refuses, or does not confirm it in time.
            TrialError: It ended.
        """
        self._wait(lambda: not self._busy(), "it was not idle")
        self.changes += 1
        self.live.ask(self.folder, self.changes, setting)
        self._wait(self._confirmed, "not every engine has confirmed it")

    def _confirmed(self) -> bool:
        """An idle engine looks at its settings with the next request: each of them gets one."""
        engines = max(1, self.live.status(self.watch.server.log.lines).engines)
        with ThreadPoolExecutor(engines) as pool:
            list(pool.map(lambda _: self.probe.answer(), range(engines)))
        self.watch.catch_up()
        status = self.live.status(self.watch.server.log.lines, self.changes)
        if status.refused:
            raise NotInForce(f"the server refuses it: {status.refused}")
        if not status.engines:
            raise NotInForce("the server has no settings that can be changed")
        return status.confirmed >= status.engines

    def _busy(self) -> bool:
        """Whether requests are under way; a server that does not tell has answered all of ours."""
        try:
            page = parse(fetch(f"{self.probe.url}/metrics", self.probe.headers, within_s=_WITHIN_S).text, 0)
        except httpx.HTTPError:
            return False
        return bool(page.running or page.waiting)

    def _wait(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _WITHIN_S
        while not done():
            self.watch.check()
            if time.monotonic() > deadline:
                raise NotInForce(f"{otherwise} after {_WITHIN_S:.0f} s")
            time.sleep(_POLL_S)
