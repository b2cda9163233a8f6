"""Settings that are changed in a running server and measured one after the other."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tuner.engines.live import Live, Setting
from tuner.errors import MeasurementError
from tuner.fetch import fetch
from tuner.load.counters import parse
from tuner.load.deciding import Deciding, stage_of
from tuner.load.naming import CONCURRENT
from tuner.load.plan import Plan
from tuner.load.stage import Stage
from tuner.load.workload import Workload
from tuner.space import Candidate
from tuner.trial.readiness import Probe, Watch

_WITHIN_S = 30.0
"""How long a server may take to be idle, and to put a change in force."""
_POLL_S = 0.02
_SETTLING = 16
"""Tokens that each stream asks for after a change and before the measurement; they are not counted."""


class NotInForce(MeasurementError):
    """The server did not put a setting in force."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A setting to be measured live.

    Attributes:
        candidate: The configuration that it stands for.
        setting: What is changed in the running server.
    """

    candidate: Candidate
    setting: Setting


@dataclass(frozen=True, slots=True)
class Screening:
    """What a launch measures in addition to its own configuration.

    Attributes:
        live: How settings are changed.
        screens: Which, in order.
    """

    live: Live
    screens: tuple[Screen, ...]


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


def brief(workload: Workload) -> Workload:
    """The traffic as a screened setting gets it: as long, and with as few requests as its metrics allow."""
    if not workload.min_duration_s:
        return workload  # its requests are all that makes it last
    alone = workload.single_user.model_copy(update={"requests": 1})
    return workload.model_copy(update={"requests": max(workload.rungs), "single_user": alone})


def loads(planned: Plan, deciding: Deciding) -> Iterator[Stage]:
    """The stages that decide."""
    needed = {stage_of(name) for name in deciding.names}
    return (stage for stage in planned.stages if stage.name in needed)


def settling(planned: Plan) -> Iterator[Stage]:
    """A short load that is not counted: the first after a change may be disturbed."""
    for stage in planned.stages:
        if stage.name == CONCURRENT:
            first = (
                replace(request, seed=f"{request.seed}/settling", output_tokens=min(request.output_tokens, _SETTLING))
                for request in stage.requests[: stage.streams]
            )
            yield replace(stage, requests=tuple(first), rule=None)
