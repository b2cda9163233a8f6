"""Which launches of a study measure other settings in their running server, and what comes of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tuner.config import Config
from tuner.engines.live import Live, NoLive
from tuner.engines.registry import kind_of
from tuner.errors import LiveBroke
from tuner.foresight.preflight import Preflight
from tuner.records.idle import ran
from tuner.records.outcome import Outcome
from tuner.records.readings import Readings, error, numbers
from tuner.records.record import Screened, TrialRecord
from tuner.search.base import Admits, LiveIn, Observation, Search
from tuner.space import Candidate, SearchSpace
from tuner.trial.assignment import Screen, Screening


@dataclass(frozen=True, slots=True)
class Asking:
    """What a search is asked with; see ``Search.propose``."""

    seen: Sequence[Observation]
    settled: Mapping[str, JsonValue]
    admits: Admits


@dataclass(frozen=True, slots=True)
class Screener:
    """Asks the search for launches, and for what is worth screening in them.

    Attributes:
        config: The study.
        search: Its search.
        tell: Told, once each, what a person should know.
    """

    config: Config
    search: Search
    tell: Callable[[str], None]

    def planned(
        self, asking: Asking, outcome: Outcome, known: Preflight | None
    ) -> tuple[Candidate | None, Screening | None]:
        """The next launch with what it screens; without that where nothing can be screened."""
        live = self._live(outcome, known)
        if isinstance(live, NoLive):
            self.tell(f"no settings are measured in running servers: {live.reason}")
        if isinstance(live, NoLive | None):
            return self.search.propose(asking.seen, asking.settled, asking.admits), None
        found = self.search.plan(
            self._names(live),
            self.config.search.live_settings,
            asking.seen,
            asking.settled,
            asking.admits,
            lambda candidate: known is not None and known.check(candidate) is None and known.fits(candidate),
        )
        if found is None:
            return None, None
        screens = tuple(self._screen(live, candidate) for candidate in found.screened)
        return found.candidate, Screening(live, screens) if screens else None

    def _screen(self, live: Live, candidate: Candidate) -> Screen:
        space = self.config.space
        args = space.settings(candidate).args
        plain = space.plain(candidate, space.set_by(self.config.model.settings))
        return Screen(plain, {name: args[name] for name in live.settings if args.get(name) is not None})

    def _names(self, live: Live) -> list[str]:
        """The space's parameters that a running server can change."""
        return [name for name in self.config.space.params if self.config.space.target(name) in _flags(live)]

    def _live(self, outcome: Outcome, known: Preflight | None) -> Live | NoLive | None:
        """How settings are changed; why they cannot be; ``None`` where nobody expects it."""
        config = self.config
        if config.search.live == "off" or not config.launcher.starts_servers:
            return None
        if broke := _broke(outcome.records):
            return NoLive(broke)
        live = kind_of(config.engine).live(_version(outcome, known), config.model.args)
        if isinstance(live, NoLive):
            return live
        if not self._names(live):
            return None
        if refused := known and known.ground.foresight.refused_flag(live.args):
            return NoLive(refused.message)
        if not self.search.screens:
            return NoLive("only search=auto, with one goal, knows what such a reading is worth")
        return live


def _flags(live: Live) -> set[tuple[str, str]]:
    return {("flag", name) for name in live.settings}


def _version(outcome: Outcome, known: Preflight | None) -> str | None:
    if known:
        return known.version
    return next((r.facts.engine_version for r in outcome.records if r.facts and r.facts.engine_version), None)


def _broke(records: Sequence[TrialRecord]) -> str:
    """Why an earlier server could not do it."""
    for record in records:
        if record.failure and record.failure.cause == LiveBroke.CAUSE:
            return f"the server of trial {record.number} ended of it ({record.failure.message})"
        if record.unscreened and not record.screened:
            return f"in trial {record.number} {record.unscreened}"
    return ""


def screened(records: Sequence[TrialRecord], space: SearchSpace, readings: Readings) -> Iterator[Observation]:
    """What was screened, for the search; what has to be launched before it is believed is left out."""
    for record, each in ((one, each) for one in records for each in one.screened):
        read = numbers(each.measurement)
        if not each.doubt and space.holds(each.params) and all(name in read for name in readings.objective.goals):
            yield Observation(
                _as_ran(record, each, space),
                tuple(read[name] for name in readings.objective.goals),
                0.0 if each.verdict.feasible else 0.5,
                asked=each.digest,
                margins=readings.excesses(each.measurement),
                error=error(each.measurement, next(iter(readings.objective.goals))),
                screened=True,
                server=LiveIn(ran(record, space), record.digest),
            )


def _as_ran(record: TrialRecord, screened: Screened, space: SearchSpace) -> Candidate:
    """A screened setting by what really ran in the server."""
    changed = {name: value for name, value in screened.params.items() if value != record.params.get(name)}
    return Candidate({**ran(record, space).params, **changed})
