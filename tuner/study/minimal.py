"""A winner without passengers: what each of its changes earns, and the fewest of them that are worth a proof.

Every change goes back to the deployed value unless its interval excludes less than ``study.min_effect``. More are kept
only where those that are left need them: for the space's rules, for memory, for a limit, or because more than a tenth
of the gain is expected to be lost with all that would go back. Where no change is resolved by itself, the fewest are
kept that together are, as long as what goes back is not expected to earn that much; else the whole winner is proven.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import expm1, log1p, sqrt
from statistics import fmean, median

from pydantic import JsonValue

from tuner.engines.registry import kind_of
from tuner.foresight.preflight import Preflight
from tuner.records.idle import ran
from tuner.records.outcome import Outcome
from tuner.records.readings import Readings, error
from tuner.records.record import ProofTerms, TrialRecord
from tuner.schema import Schema
from tuner.search.base import Admits, Observation, anything
from tuner.search.effects import Difference, Effects
from tuner.space import Candidate
from tuner.study.parts import Parts
from tuner.study.proposals import observations

FEWEST = 4
"""Of fewer measured configurations nothing is said."""


class Earned(Schema):
    """By which share something makes a goal better; negative where it is worse."""

    gain: float
    low: float
    high: float
    """The interval: the truth is below it with a probability of 5 %, and above it with the same."""


class SettingEffect(Schema):
    """What one changed setting of a winner earns: the winner against the winner with the deployed value of it."""

    name: str
    deployed: JsonValue
    value: JsonValue
    goals: dict[str, Earned]
    resolved: bool
    """Whether the interval of a goal excludes less than ``study.min_effect``."""
    kept: bool
    """Whether it is in the configuration that is proven."""


class WinnerEffects(Schema):
    """What the changes of a winner earn, by all launches of the search and what was screened in their servers."""

    trial: int
    settings: tuple[SettingEffect, ...]
    min_effect: float
    """``study.min_effect``."""
    resolves: float
    """From which reading on this study's noise lets an effect be told from less than that."""
    returned: dict[str, Earned] | None
    """What those that went back earn together; null if none did."""
    screened: int = 0
    """So many settings that were measured in running servers were taken into account."""

    @property
    def kept(self) -> list[SettingEffect]:
        """The changes that are in the configuration that is proven, what earns most first."""
        return [each for each in self._by_gain if each.kept]

    @property
    def went_back(self) -> list[SettingEffect]:
        """The changes that went back to the deployed values."""
        return [each for each in self._by_gain if not each.kept]

    @property
    def _by_gain(self) -> list[SettingEffect]:
        return sorted(self.settings, key=lambda each: -max(earned.gain for earned in each.goals.values()))


def effects_of(outcome: Outcome) -> WinnerEffects | None:
    """What the changes of a study's winner earn; ``None`` where there is no winner, or too little was measured."""
    if not outcome.improved or outcome.best is None:
        return None
    winner = _Winner(outcome, outcome.best)
    return winner.effects(outcome.reduced) if winner.told else None


def without_passengers(outcome: Outcome, terms: ProofTerms, admitted: Admits, say: Callable[[str], None]) -> ProofTerms:
    """The terms of a proof of what is worth proving of a trial; the same terms where that is all of it.

    Args:
        outcome: The study.
        terms: Of a proof of a trial's whole configuration.
        admitted: Whether a configuration is expected to run.
        say: Told what became of the trial's changes.
    """
    trial = next(record for record in outcome.searched if record.digest == terms.candidate and record.measurement)
    tried = {proof.terms.candidate for proof in outcome.proofs}
    winner = _Winner(outcome, trial)
    if any(proof.terms.winner == terms.candidate for proof in outcome.proofs) or not winner.told:
        return terms
    if not (kept := winner.kept(admitted)):
        say(f"no change of trial {trial.number} could be told from nothing: all of them are proven together")
        return terms
    candidate = outcome.partly(trial, kept)
    if candidate.digest in tried or set(kept) == set(winner.changed):
        return terms
    back = ", ".join(name for name in winner.changed if name not in kept)
    part = f"{len(kept)} of its {len(winner.changed)} changes ({', '.join(kept)})"
    say(f"trial {trial.number} is proven with {part}; not shown to be worth a change: {back}")
    return terms.model_copy(update={"candidate": candidate.digest, "winner": trial.digest, "kept": tuple(kept)})


def launchable(known: Preflight | None) -> Admits:
    """Which configurations are expected to run, by what is known of launches."""
    if known is None:
        return anything
    return lambda candidate: known.check(candidate) is None and known.fits(candidate)


@dataclass(frozen=True)
class _Winner:
    """A trial that is to be proven, and what launches say of its changes."""

    outcome: Outcome
    trial: TrialRecord

    @property
    def told(self) -> bool:
        """Whether anything can be said of its changes."""
        return bool(self.changed) and len(self._seen) >= FEWEST

    @cached_property
    def changed(self) -> list[str]:
        """The parameters that it sets otherwise than the deployment."""
        return list(self.outcome.changes(self.trial))

    def effects(self, kept: Sequence[str] | None) -> WinnerEffects:
        """What each change earns, and what those earn together that are not kept."""
        proven = self.changed if kept is None else kept
        back = [name for name in self.changed if name not in proven]
        reaches = [each.mean - each.low for name in self.changed for each in self._parts.alone[name].values()]
        return WinnerEffects(
            trial=self.trial.number,
            settings=tuple(self._effect(name, name in proven) for name in self.changed),
            min_effect=self.outcome.config.study.min_effect,
            resolves=expm1(self._bar + median(reaches)),
            returned={goal: _earned(found[0]) for goal, found in self._parts.over([proven]).items()} if back else None,
            screened=sum(each.screened for each in self._seen),
        )

    def _effect(self, name: str, kept: bool) -> SettingEffect:
        return SettingEffect(
            name=name,
            deployed=self.outcome.deployed.get(name),
            value=self.trial.params[name],
            goals={goal: _earned(each) for goal, each in self._parts.alone[name].items()},
            resolved=self._parts.resolved(name),
            kept=kept,
        )

    def kept(self, admitted: Admits) -> list[str]:
        """The fewest of its changes that are worth a proof, of those that may be launched; or none."""
        return self._parts.kept(lambda kept: self._may_run(kept, admitted))

    def _may_run(self, kept: Sequence[str], admitted: Admits) -> bool:
        """As far as is known: by the rules, by what was predicted, and by what became of it if it was launched."""
        candidate, config = self.outcome.partly(self.trial, kept), self.outcome.config
        refuted = {record.digest for record in self.outcome.searched if not self.outcome.within(record)}
        legal = config.space.violated(candidate, config.model.settings) is None
        return legal and candidate.digest not in refuted and admitted(candidate)

    # what launches say

    @property
    def _bar(self) -> float:
        return log1p(self.outcome.config.study.min_effect)

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.changed, self._model, self._effects, self._bar)

    def _model(self, kept: Iterable[str]) -> Candidate:
        """The deployed configuration with some of the changes, by what really ran in both."""
        space, baseline = self.outcome.config.space, self.outcome.baseline
        base = {**self.outcome.deployed, **(ran(baseline, space).params if baseline else {})}
        top = ran(self.trial, space).params
        return space.candidate({**base, **{name: top[name] for name in kept}})

    @cached_property
    def _effects(self) -> Mapping[str, Effects]:
        config, readings = self.outcome.config, self._readings
        hints = kind_of(config.engine).hints
        return {
            goal: Effects(config.space, direction, self._of_goal(n, goal), readings.noise(goal), hints)
            for n, (goal, direction) in enumerate(config.objective.goals.items())
        }

    @cached_property
    def _seen(self) -> list[Observation]:
        every = observations(self._readings.records, self.outcome.config.space, self._readings)
        return [each for each in every if each.values]

    @property
    def _readings(self) -> Readings:
        """Of all launches, the relaunches of earlier proofs among them."""
        return self.outcome.all_readings

    def _of_goal(self, number: int, goal: str) -> list[Observation]:
        """What was measured, with that goal's value alone and how well it is known."""
        return [self._with(each, number, goal) for each in self._seen]

    def _with(self, seen: Observation, number: int, goal: str) -> Observation:
        assert seen.values
        if seen.screened:  # by searches of one goal only
            return seen
        launched = [each for each in self._readings.records if each.digest == seen.asked]
        errors = [error(each.measurement, goal) for each in launched if each.measurement]
        known = sqrt(fmean(each**2 for each in errors))
        return replace(seen, values=(seen.values[number],), launches=len(errors), error=known)


def _earned(difference: Difference) -> Earned:
    return Earned(gain=expm1(difference.mean), low=expm1(difference.low), high=expm1(difference.high))
