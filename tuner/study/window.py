"""How long one run of the command may last: so many minutes, or until a time of day at which all is as it was again."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from tuner.config import Budget, SiteConfig
from tuner.host.interrupts import interrupt_main
from tuner.records.outcome import Outcome
from tuner.records.record import Role, TrialRecord

_MARGIN = 1.5
"""What a service needs to come back may be half as much again as its slowest start so far."""


class WindowClosed(Exception):
    """A launch was still under way when the services had to be given back; it is tried again in the next run."""


@dataclass(frozen=True, slots=True)
class RunWindow:
    """One run's, from now on.

    Attributes:
        budget: What was asked for.
        site: What is given back at its end.
        began_s: When it began, on the monotonic clock.
        closes_s: When all is to be as it was, on the same clock; ``None`` if nobody asked.
    """

    budget: Budget
    site: SiteConfig
    began_s: float
    closes_s: float | None

    @classmethod
    def of(cls, budget: Budget, site: SiteConfig, now: datetime | None = None) -> Self:
        """The window of a run that begins now."""
        began_s, at = time.monotonic(), now or datetime.now().astimezone()
        left = _seconds_until(budget.until, at) if budget.until else None
        return cls(budget, site, began_s, None if left is None else began_s + left)

    def too_short(self, outcome: Outcome, longer_s: float = 0.0) -> str | None:
        """Why no other launch as long as the slowest would end in time; ``None`` if it would.

        Screening is left out of it, which a launch can do without. Of minutes the first launch is always begun, since
        nothing tells how long it takes.

        Args:
            outcome: What the study has found so far.
            longer_s: What the next launch takes beyond that of any other.
        """
        slowest_s = max((record.launch_s for record in _launched(outcome)), default=None)
        return self._missed_by(None if slowest_s is None else slowest_s + longer_s, outcome)

    def too_short_to_screen(self, outcome: Outcome) -> bool:
        """Whether a launch would end in time only without measuring settings in its server besides."""
        searched = (record.seconds for record in _launched(outcome) if record.role is not Role.SOAK)
        return self._missed_by(max(searched, default=None), outcome) is not None

    def _missed_by(self, slowest_s: float | None, outcome: Outcome) -> str | None:
        """Why a launch as long as this would not end in time."""
        now_s, minutes = time.monotonic(), self.budget.run_minutes
        if minutes is not None and slowest_s is not None and now_s + slowest_s > self.began_s + minutes * 60:
            return f"{minutes:g} minutes leave no time for another launch"
        closes_s = self._gives_back_s(outcome)
        if closes_s is not None and now_s + (slowest_s or 0.0) > closes_s:
            return f"until {self.budget.until} there is no time for another launch{self._and_back}"
        return None

    @contextmanager
    def launch(self, outcome: Outcome) -> Iterator[None]:
        """A launch that takes longer than any before is ended as Ctrl-C would end it, once its time is over.

        Raises:
            WindowClosed: It was.
        """
        closes_s = self._gives_back_s(outcome)
        if closes_s is None:
            yield
            return
        over = threading.Event()
        timer = threading.Timer(max(0.0, closes_s - time.monotonic()), _interrupt, [over])
        timer.daemon = True
        timer.start()
        try:
            yield
        except KeyboardInterrupt:
            if over.is_set():
                raise WindowClosed from None
            raise
        finally:
            timer.cancel()

    def _gives_back_s(self, outcome: Outcome) -> float | None:
        """When the last launch has to be over."""
        return None if self.closes_s is None else self.closes_s - self._back_s(outcome)

    def _back_s(self, outcome: Outcome) -> float:
        """How long the services take to serve again: somewhat more than any start here, or all that they may."""
        if not self.site.stop:
            return 0.0
        starts = [r.measurement.startup_s for r in _launched(outcome) if r.measurement and r.measurement.startup_s]
        return max(starts) * _MARGIN if starts else self.site.health_timeout_s

    @property
    def _and_back(self) -> str:
        return f", with {', '.join(self.site.stop)} serving again by then" if self.site.stop else ""


def _launched(outcome: Outcome) -> list[TrialRecord]:
    return [record for record in (*outcome.records, *outcome.relaunches) if record.launched]


def _interrupt(over: threading.Event) -> None:
    over.set()
    interrupt_main()


def _seconds_until(clock: str, now: datetime) -> float:
    """Seconds until it is this time of day next, in the zone of ``now``."""
    hour, minute = map(int, clock.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((at if at > now else at + timedelta(days=1)) - now).total_seconds()
