"""Parameters that do nothing here, as the running servers themselves say."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tuner import words
from tuner.engines.effective import EffectiveSetting, Status
from tuner.records.record import TrialRecord
from tuner.space import Candidate, SearchSpace

_ENOUGH = 2
"""So many different values have to end in the same behaviour before a parameter is called idle."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A parameter that has never had an effect.

    Attributes:
        name: The parameter.
        sentence: Why, for a person.
    """

    name: str
    sentence: str


def idle_parameters(records: Sequence[TrialRecord], space: SearchSpace) -> tuple[Idle, ...]:
    """The parameters that were asked for in different ways and never changed what ran."""
    found = (_idle(name, _seen(name, records, space)) for name in space.params)
    return tuple(each for each in found if each)


def ran(record: TrialRecord, space: SearchSpace) -> Candidate:
    """The candidate as the server really ran it: overridden values replaced, those without effect left out."""
    by_target = {setting.name: setting for setting in record.effective}
    params = {name: _ran(value, by_target.get(space.target(name)[1])) for name, value in record.params.items()}
    return Candidate(params)


def _ran(value: JsonValue, setting: EffectiveSetting | None) -> JsonValue:
    if setting is None or setting.status in (Status.HONOURED, Status.UNKNOWN):
        return value
    return setting.effective if setting.status is Status.OVERRIDDEN else None


def _seen(name: str, records: Sequence[TrialRecord], space: SearchSpace) -> list[EffectiveSetting]:
    target = space.target(name)[1]
    return [setting for record in records for setting in record.effective if setting.name == target]


def _idle(name: str, seen: Sequence[EffectiveSetting]) -> Idle | None:
    requests = {str(setting.requested) for setting in seen}
    if len(requests) < _ENOUGH:
        return None
    if all(setting.status is Status.NO_EFFECT for setting in seen):
        return Idle(name, f"{name} does nothing here: {seen[0].by}")
    values = {str(setting.effective) for setting in seen}
    overridden = any(setting.status is Status.OVERRIDDEN for setting in seen)
    if overridden and len(values) == 1 and all(s.status is not Status.UNKNOWN for s in seen):
        by = next((setting.by for setting in seen if setting.by), None)
        return Idle(name, f"{name} does nothing here: whatever is asked, {seen[0].effective} runs{_because(by)}")
    return None


def _because(by: str | None) -> str:
    return f" ({words.unprefixed(by).rstrip('.')})" if by else ""
