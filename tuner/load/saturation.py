"""The highest rate of requests that a server sustains: open loops, one after the other, until it is known.

A rate is sustained if enough of its requests keep what is promised of each, and if the server keeps up: after the last
sending it needs no longer for what is left than it needed for single requests at the beginning. The search begins with
what the concurrent stage answered, goes up or down until it has one rate of each kind, and halves what is between them.
What to send next follows from what was sent, so that records alone tell how a search went.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt

from tuner.load.arrivals import schedule
from tuner.load.goodput import good
from tuner.load.intervals import Interval
from tuner.load.prompts import TokenCalibration
from tuner.load.records import StageResult, Window
from tuner.load.requests import mixed, stage
from tuner.load.shapes import Arrivals
from tuner.load.stage import Stage
from tuner.load.workload import Workload

_STAGE = "saturation_"
_STEP = 1.5
"""By which factor the search goes up or down while it has rates of one kind only."""
_LEAST = 0.1
"""Share of the first rate below which none is tried: what is promised is then kept at no rate."""
_DIGITS = 4
_FIRST = 0.25
"""Share of a stage's requests that are its beginning."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """Between which rates the highest is that is sustained; ``None`` where none of the kind was sent.

    Attributes:
        low: The highest that was sustained below all that were not, in requests a second of the engine's own.
        high: The lowest that was not.
        n: Requests that were sent at the lower one.
    """

    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def interval(self) -> Interval | None:
        """Where the highest rate is, once the search is over: from 0 where none was sustained; ``None`` if all were."""
        return None if self.high is None else Interval(self.low or 0.0, self.high, self.n)


def is_of_search(result: StageResult) -> bool:
    """Whether a stage is of such a search; failures are no reason to reject the measurement then."""
    return result.stage.startswith(_STAGE)


def bracket(results: Sequence[StageResult], workload: Workload, scale: float) -> Bracket:
    """What the stages of a search say; others are passed over.

    Args:
        results: The stages.
        workload: Whose they are.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    tried = {_rate(each): each for each in results if is_of_search(each) and not each.superseded}
    held = {rate: sustained(each, workload, scale) for rate, each in tried.items()}
    high = min((rate for rate, each in held.items() if not each), default=None)
    low = max((rate for rate, each in held.items() if each and (high is None or rate < high)), default=None)
    return Bracket(low, high, len(tried[low].records) if low is not None else 0)


def _rate(result: StageResult) -> float:
    return float(result.stage.removeprefix(_STAGE).partition(",")[0])


def sustained(result: StageResult, workload: Workload, scale: float) -> bool:
    """Whether the server sustained the rate of a stage."""
    if result.aborted or not result.records:
        return False
    window = result.window or Window(0.0, result.wall_ms)
    sent = [record for record in result.records if window.holds(record.started_ms)] or list(result.records)
    share = sum(good(record, workload, scale) for record in sent) / len(sent)
    return share >= workload.saturation.share and _keeps_up(result, workload)


def _keeps_up(result: StageResult, workload: Workload) -> bool:
    """A backlog that grew by half of the tolerance takes as much longer to be answered as the stage was sent."""
    first = result.records[: max(1, ceil(_FIRST * len(result.records)))]
    usual_ms = max(record.duration_ms for record in first)
    last_ms = max(record.started_ms for record in result.records)
    ended_ms = max(record.started_ms + record.duration_ms for record in result.records)
    return ended_ms - last_ms <= usual_ms + workload.saturation.tolerance / 2 * last_ms


def next_rate(results: Sequence[StageResult], workload: Workload, begin: float | None, scale: float) -> float | None:
    """The rate to send next, in requests a second of the engine's own; ``None`` when the search is over.

    Args:
        results: What was sent so far.
        workload: Whose search it is.
        begin: The rate to begin with where the workload names none.
        scale: Seconds of a simulated engine that pass in one second of wall time.
    """
    settings, known = workload.saturation, bracket(results, workload, scale)
    if sum(map(is_of_search, results)) >= settings.most_stages:
        return None
    rate = settings.begin_rate or begin
    if known.low is not None and known.high is not None:
        rate = None if known.high / known.low <= 1 + settings.tolerance else sqrt(known.low * known.high)
    elif known.low is not None:
        rate = known.low * _STEP
    elif known.high is not None:
        first = _rate(next(filter(is_of_search, results)))
        rate = known.high / _STEP if known.high > first * _LEAST else None
    return float(f"{rate:.{_DIGITS}g}") if rate else None


def rate_stage(
    workload: Workload, rate: float, *, seed: str, calibration: TokenCalibration, clock_scale: float, held_out: bool
) -> Stage:
    """An open loop of one rate; arguments as ``plan`` has them. All rates have the same lengths and gaps, scaled."""
    settings, name = workload.saturation, f"{_STAGE}{rate:g}"
    count = max(workload.requests, ceil(rate * settings.seconds))
    shape = f"{workload.name}/{'held out' if held_out else 'tuning'}/saturation"
    made = mixed(workload, count, seed=f"{seed}/{name}", shape=shape, calibration=calibration, held_out=held_out)
    burstiness = workload.arrivals.burstiness if workload.arrivals else 1.0
    arrivals = Arrivals(kind=settings.kind, rate=rate, burstiness=burstiness)
    due_s = schedule(arrivals, rate, count, f"{shape}/arrivals")
    return replace(
        stage(workload, name, made, max_failures=workload.max_failed_share * count),
        due_ms=tuple(round(each * 1000 / clock_scale, 3) for each in due_s),
    )
