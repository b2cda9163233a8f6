"""Follows a running server: a stretch of time after another, each held against the proof."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import httpx

from tuner.errors import EngineUnavailable, TunerError
from tuner.fetch import fetch
from tuner.host.gpu import Read
from tuner.launchers.attach import AttachLauncher
from tuner.schema import Schema
from tuner.watch.evidence import SlownessEvidence
from tuner.watch.holding import Judgement, ProofFigures, WatchState
from tuner.watch.probing import ProbeResult
from tuner.watch.stretch import Scrape, Stretch, restarted, stretch_of

_WITHIN_S = 10.0
_LONGEST_PAUSE_S = 5.0
_READINGS = 10
"""Of the page within a stretch, for the means of its gauges."""
_IN_A_ROW = 3
"""Stretches that say the same before it is concluded that the proof holds, or that the traffic is another."""


class WatchLine(Schema):
    """What is told of a stretch."""

    at: str
    """Its end, in UTC."""
    stretch: Stretch | None = None
    """Null where the server did not answer, or was started anew."""
    probe: ProbeResult | None = None
    """Null where none was asked for."""
    judgement: Judgement | None = None
    note: str | None = None
    """Why there are no numbers."""
    conclusion: str | None = None
    """What follows from the last ones that said anything; told once."""


@dataclass
class Watcher:
    """Watches one server, which is never changed, for as long as it is asked to.

    Attributes:
        server: The server.
        figures: What was proven of it.
        read_gpus: The GPUs that it serves on; none where they cannot be seen from here.
        every_s: Length of a stretch in seconds.
        probe: Probes it after each stretch, if that was asked for.
        concluded: What the last conclusion was; ``None`` before the first.
    """

    server: AttachLauncher
    figures: ProofFigures
    read_gpus: Read
    every_s: float
    probe: Callable[[], ProbeResult] | None = None
    concluded: WatchState | None = None
    _states: list[WatchState] = field(default_factory=list)
    _evidence: SlownessEvidence = field(default_factory=SlownessEvidence)

    def lines(self, seconds: float | None) -> Iterator[WatchLine]:
        """One for each stretch.

        Args:
            seconds: For how long; ``None`` for ever.

        Raises:
            EngineUnavailable: Nothing answers at the beginning.
            TunerError: It answers, but not with such a page.
        """
        until_s = None if seconds is None else time.monotonic() + seconds
        scrapes: list[Scrape | None] = [self._first()]
        while until_s is None or time.monotonic() < until_s:
            scrapes = [scrapes[-1], *self._scrapes(until_s)]
            probe = self.probe() if self.probe and scrapes[-1] else None
            yield self._line(scrapes, probe)
            if probe:  # its own requests are nobody's traffic
                scrapes = [self._scrape()]

    def _first(self) -> Scrape:
        found = self._scrape()
        if found is None:
            raise EngineUnavailable(f"nothing answers at {self.server.url}/metrics", fix="check the URL")
        if found.ttft is None and found.itl is None:
            fix = "vLLM and SGLang keep them (not with --disable-log-stats); for others: tuner profile verify"
            raise TunerError(f"{self.server.url}/metrics has no histograms of latencies", fix=fix)
        return found

    def _scrapes(self, until_s: float | None) -> Iterator[Scrape | None]:
        """The readings of a stretch, the last one at its end."""
        pause_s = min(self.every_s / _READINGS, _LONGEST_PAUSE_S)
        end_s = min(time.monotonic() + self.every_s, until_s or float("inf"))
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(pause_s, left_s))
            yield self._scrape()

    def _scrape(self) -> Scrape | None:
        """The page as it is now; ``None`` where nothing answers."""
        page = f"{self.server.url}/metrics"
        try:
            answer = fetch(page, self.server.headers, within_s=_WITHIN_S)
        except httpx.HTTPError:
            return None
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:  # as a proxy says it of a server that is down
            return None
        if answer.status != httpx.codes.OK:
            fix = "SGLang needs --enable-metrics, and a gateway may hide the page: give the engine's own URL"
            raise TunerError(f"{page} answers HTTP {answer.status}", fix=fix)
        try:
            return Scrape.of(answer.text, time.perf_counter_ns(), self.read_gpus(None))
        except (ValueError, IndexError) as error:
            raise TunerError(f"{page} cannot be read: {error}") from error

    def _line(self, scrapes: Sequence[Scrape | None], probe: ProbeResult | None) -> WatchLine:
        at, there = datetime.now(UTC).isoformat(timespec="seconds"), [each for each in scrapes if each]
        if not scrapes[-1] or len(there) < 2:
            return WatchLine(at=at, note=f"nothing answers at {self.server.url}" if not scrapes[-1] else "it is back")
        if any(restarted(before, after) for before, after in pairwise(there)):
            return WatchLine(at=at, note="it was started anew")
        stretch = stretch_of(there)
        judgement = self.figures.judge(stretch, probe)
        conclusion = self._conclusion(judgement)
        return WatchLine(at=at, stretch=stretch, probe=probe, judgement=judgement, conclusion=conclusion)

    def _conclusion(self, judgement: Judgement) -> str | None:
        """What to do about it, once enough stretches in a row have said the same and it has not been told yet."""
        state = judgement.state
        if state is WatchState.IDLE:
            return None
        self._states = [*self._states, state][-_IN_A_ROW:]
        if state is not WatchState.OTHER_TRAFFIC:
            self._evidence.take(judgement.slower_by)
        if not self._agreed(state) or state is self.concluded:
            return None
        self.concluded = state
        return {
            WatchState.HOLDS: "it does what was proven: tuning again would not pay",
            WatchState.OTHER_TRAFFIC: (
                "this is not the traffic of the proof, and tuning for it may pay: "
                f"tuner workload learn {self.server.url}, then a study with that workload"
            ),
            WatchState.SLOWER: (
                "the proof does not hold any more: tuner profile verify measures it and names what changed; "
                "tuning again pays if nothing did"
            ),
        }[state]

    def _agreed(self, state: WatchState) -> bool:
        """Whether enough of them say so; against the server it takes more than a few in a row."""
        if state is WatchState.SLOWER:
            return self._evidence.enough
        return len(self._states) == _IN_A_ROW and len(set(self._states)) == 1
