"""What to run next: the deployment, what is known to work, what a failure suggests, what the search asks for.

All of it follows from the records alone, so a resumed study continues as if it had never stopped.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, log1p

from pydantic import JsonValue

from tuner import words
from tuner.config import Config
from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.registry import kind_of
from tuner.errors import InfeasibleConfig
from tuner.foresight.preflight import Ground, Preflight
from tuner.records.idle import Idle, idle_parameters, ran
from tuner.records.outcome import Outcome
from tuner.records.readings import LIKELY, Readings
from tuner.records.record import ProofTerms, Role, TrialRecord
from tuner.search.base import CANNOT_RUN, Expectation, Observation, Search, anything
from tuner.search.registry import make_search
from tuner.search.source import Source
from tuner.search.surrogate import Roofline
from tuner.space import Candidate, SearchSpace
from tuner.study.live import Asking, Screener, screened
from tuner.trial.assignment import Screening

_BOUNDED = "output_tokens_per_s"
"""The goal that the memory's bandwidth bounds."""
_REFUSALS = 8
"""So many proposals in a row that are ruled out before launch, and the search must say one that is not."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to run next, why, and what is known of it beforehand.

    Attributes:
        role: Why.
        candidate: What.
        ask_s: How long the search thought about it.
        forecast: What it is predicted to take of the GPUs.
        ceilings: What it allows at most.
        refusal: Why it is not to be launched at all.
        proof: Of which proof it is a relaunch.
        screening: What is measured in its running server besides.
        expected: What the search expects of it.
    """

    role: Role
    candidate: Candidate
    ask_s: float = 0.0
    forecast: Forecast | None = None
    ceilings: Ceilings | None = None
    refusal: InfeasibleConfig | None = None
    proof: ProofTerms | None = None
    screening: Screening | None = None
    expected: Expectation | None = None


class Proposer:
    """Proposes trials of one study.

    Args:
        config: The study.
        ground: What is known before any trial; ``None`` for a server that is not ours to launch.
        say: Told what a person should know.
        sources: Earlier studies that the search begins with.
    """

    def __init__(
        self, config: Config, ground: Ground | None, say: Callable[[str], None], sources: Sequence[Source] = ()
    ) -> None:
        self._config = config
        self._space = config.space
        self._ground = ground
        self._say = say
        self._search = search_of(config, sources, self._allowed if _BOUNDED in config.objective.goals else None)
        self._screener = Screener(config, self._search, self._tell)
        self._deployed = config.space.deployed(config.model.settings)
        self._told: set[str] = set()
        self._known: Preflight | None = None
        self._allowances: dict[str, float | None] = {}

    def next(self, outcome: Outcome) -> Proposal | None:
        """The next trial; ``None`` when the space holds no other."""
        known = self.known(outcome)
        tried = self._deployed.digest in {record.digest for record in outcome.searched}
        if not tried or (self._config.objective.needs_baseline and outcome.baseline is None):
            # trial 0 runs already, whatever a prediction says of it
            return self.foreseen(Proposal(Role.BASELINE, self._deployed), known)
        candidates = (*self._known_good(outcome), *self._repairs(outcome, known), *self._control(outcome))
        proposal = next(iter(candidates), None) or self._asked(outcome, known)
        return proposal and self._checked(proposal, known)

    def known(self, outcome: Outcome) -> Preflight | None:
        """What the records so far teach."""
        if self._ground is None:
            return None
        self._known = (self._known or Preflight(self._ground, ())).after(outcome.records)
        return self._known

    def foreseen(self, proposal: Proposal, known: Preflight | None) -> Proposal:
        """The proposal with its forecast."""
        if known is None:
            return proposal
        candidate = proposal.candidate
        return replace(proposal, forecast=known.forecast(candidate), ceilings=known.ceilings(candidate))

    def _allowed(self, candidate: Candidate) -> float | None:
        """The throughput that the memory's bandwidth allows a configuration, as far as it is known."""
        if candidate.digest not in self._allowances:
            ceilings = self._known.ceilings(candidate) if self._known else None
            self._allowances[candidate.digest] = ceilings.running_tokens_per_s if ceilings else None
        return self._allowances[candidate.digest]

    def _checked(self, proposal: Proposal, known: Preflight | None) -> Proposal:
        refusal = known.check(proposal.candidate) if known else None
        return replace(self.foreseen(proposal, known), refusal=refusal)

    def _known_good(self, outcome: Outcome) -> Iterator[Proposal]:
        tried = {record.digest for record in outcome.searched}
        for values in self._config.model.known_good:
            candidate = self._plain(self._space.candidate({**self._deployed.params, **values}))
            if candidate.digest not in tried:
                yield Proposal(Role.KNOWN_GOOD, candidate)

    def _control(self, outcome: Outcome) -> Iterator[Proposal]:
        """The deployed configuration again, so that noise and drift are known: after every so many launches."""
        every, launched = self._config.study.control_every, outcome.launched
        last = max((n for n, record in enumerate(launched) if record.digest == self._deployed.digest), default=None)
        if every and last is not None and len(launched) - 1 - last >= every:
            yield Proposal(Role.CONTROL, self._deployed)

    def _repairs(self, outcome: Outcome, known: Preflight | None) -> Iterator[Proposal]:
        """What the last launch's failure suggests; a repair that fails as well is not repaired again."""
        last = outcome.launched[-1] if outcome.launched else None
        if known is None or last is None or last.failure is None or last.role is Role.REPAIR:
            return
        lesson = known.lesson(outcome.records.index(last))
        if lesson is None:
            return
        self._tell(f"trial {last.number}: {lesson.sentence}")
        tried = {record.digest for record in outcome.searched}
        if lesson.again and known.fits(Candidate(last.params)):
            yield Proposal(Role.REPAIR, Candidate(last.params))
        for candidate in lesson.repairs:
            if candidate.digest not in tried and known.check(candidate) is None:
                yield Proposal(Role.REPAIR, candidate)

    def _asked(self, outcome: Outcome, known: Preflight | None) -> Proposal | None:
        asked_ns = time.perf_counter_ns()
        settled = {idle.name: self._deployed.params.get(idle.name) for idle in self._idle(outcome.searched)}
        seen = observations(outcome.teaching, self._space, outcome.all_readings)
        launchable = _refused_in_a_row(outcome.searched) >= _REFUSALS
        admits = _admits(known, launchable, self._search.doubts) if known else anything
        tried = {record.digest for record in outcome.searched}

        def new(candidate: Candidate) -> bool:
            return self._plain(candidate).digest not in tried and admits(candidate)

        candidate, screening = self._screener.planned(Asking(seen, settled, new), outcome, known)
        if candidate is None:
            self._tell("the space holds no other configuration: the search ends here")
            return None
        if self._gains_too_little(seen, candidate, screening, settled):
            return None
        asked_s = (time.perf_counter_ns() - asked_ns) / 1e9
        expected = self._search.expectation(seen, candidate)
        return Proposal(Role.SEARCH, self._plain(candidate), asked_s, screening=screening, expected=expected)

    def _gains_too_little(
        self,
        seen: Sequence[Observation],
        candidate: Candidate,
        screening: Screening | None,
        settled: Mapping[str, JsonValue],
    ) -> bool:
        """Whether another launch is not worth its time by what is known."""
        live = [each.candidate for each in screening.screens] if screening else []
        gain = self._search.expected_gain(seen, [candidate, *live], settled)
        if gain is None or gain >= log1p(self._config.budget.min_gain):
            return False
        expected, least = words.percent(expm1(gain)), words.percent(self._config.budget.min_gain)
        why = f"another launch is expected to gain {expected}, less than budget.min_gain ({least})"
        self._tell(f"{why}: the search ends here")
        return True

    def _plain(self, candidate: Candidate) -> Candidate:
        """Without settings that say what the engine does anyway: they are no changes, and worth no launch."""
        return self._space.plain(candidate, self._space.set_by(self._config.model.settings))

    def _idle(self, searched: Sequence[TrialRecord]) -> tuple[Idle, ...]:
        """Parameters that do nothing here; each is told of once."""
        idle = idle_parameters(searched, self._space)
        for each in idle:
            self._tell(f"{each.sentence}: it stays as deployed from here on")
        return idle

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)


def search_of(config: Config, sources: Sequence[Source], roofline: Roofline | None = None) -> Search:
    """The search of a study, which begins with these earlier ones, and with what the hardware allows of its goal."""
    directions, shares = list(config.objective.goals.values()), config.objective.shares
    hints, settings, seed = kind_of(config.engine).hints, config.model.settings, config.study.seed
    return make_search(config.search, config.space, directions, settings, seed, hints, shares, sources, roofline)


def observations(records: Sequence[TrialRecord], space: SearchSpace, readings: Readings) -> list[Observation]:
    """What the search learns from: every configuration with a verdict, measured or not, by what really ran in it.

    Several launches of one configuration count as one, by their mean; limits as the probability that they are kept. A
    trial with a choice that the space no longer holds teaches nothing of the choices that are left.
    """
    latest: dict[str, TrialRecord] = {}
    for record in (record for record in records if space.holds(record.params)):
        if record.measurement or record.digest not in latest:
            latest[record.digest] = record
    launched = [_observation(record, space, readings) for record in latest.values()]
    return [*screened(records, space, readings), *launched]


def _observation(record: TrialRecord, space: SearchSpace, readings: Readings) -> Observation:
    values = readings.values(record.digest) if record.measurement else None
    violation = LIKELY - readings.kept(record.digest) if values else CANNOT_RUN
    if values is None:
        return Observation(ran(record, space), None, violation, asked=record.digest)
    goal, limits = next(iter(readings.objective.goals)), readings.objective.limits
    return Observation(
        ran(record, space),
        values,
        violation,
        asked=record.digest,
        margins=readings.beyond(record.digest),
        launches=readings.launches(record.digest),
        noise=readings.scatter(goal).noise,
        margin_noise={name: noise for name in limits if (noise := readings.scatter(name).noise)},
    )


def _refused_in_a_row(searched: Sequence[TrialRecord]) -> int:
    launched = [index for index, record in enumerate(searched) if record.launched]
    return len(searched) - 1 - launched[-1] if launched else len(searched)


def _admits(known: Preflight, launchable: bool, put_off: int) -> Callable[[Candidate], bool]:
    """What the search may propose: rather not what is likely to fail, though that is within the prediction's margin.

    A search that insists is believed. What is ruled out passes as well, so that it is kept with its reason, unless the
    proposal must be ``launchable``.
    """
    doubts = iter(range(put_off))

    def admits(candidate: Candidate) -> bool:
        if known.check(candidate):
            return not launchable
        return known.fits(candidate) or next(doubts, None) is None

    return admits
