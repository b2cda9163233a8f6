"""Whether a proof holds of the service that runs: one more launch of the winner, against the launches of its proof.

A launch scatters about the mean of those of the proof by the noise between launches, so that it is held against the
interval in which one more of them is to be expected, not against the interval of their mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log, sqrt
from statistics import fmean

from tuner.errors import ConfigError, MeasurementError
from tuner.export.profile import Profile
from tuner.objective import direction
from tuner.proof.decision import Bound
from tuner.proof.estimate import Estimate, Noise
from tuner.schema import Schema

_TAIL = 0.01
"""One sound launch in a hundred reads worse than that. A second measurement is made before anything is undone."""
_GUESSED = Noise(0.03, 6)
"""Between launches, where the proof does not tell."""
_LEAST = 0.005
"""No machine is quieter between launches."""
_OF_A_LAUNCH = ("startup_s", "kv_tokens", "kv_requests", "energy_per_token_j", "cost_per_million_tokens")
"""What only a launch of tuner's own on the study's hardware tells."""


class Held(Schema):
    """One metric of the proof, and what was measured now."""

    metric: str
    proven: float
    """Mean of the winner's launches."""
    low: float
    """Where one more launch of the winner is to be expected, and the next."""
    high: float
    measured: float
    limit: bool
    """Whether it is a limit, which is broken only by what is beyond the bound as well."""
    holds: bool


def needed(profile: Profile) -> dict[str, bool]:
    """The metrics that the proof rests on, and whether each is a limit.

    Raises:
        ConfigError: The profile has no proof.
    """
    decision = profile.verdict.decision
    names = {**dict.fromkeys(decision.limits, True), **dict.fromkeys(decision.goals, False)}
    told = {name: limit for name, limit in names.items() if name not in _OF_A_LAUNCH and _launches(profile, name)}
    if not told:
        raise ConfigError("the profile holds no proof that could be held against the service")
    return told


def held(profile: Profile, numbers: Sequence[Mapping[str, float]]) -> tuple[Held, ...]:
    """Each metric of the proof against the mean of one or more measurements of the service.

    Args:
        profile: The proof.
        numbers: What each measurement read, by metric.

    Raises:
        MeasurementError: One of them was not measured.
    """
    return tuple(_all(profile, numbers))


def _all(profile: Profile, numbers: Sequence[Mapping[str, float]]) -> Iterator[Held]:
    for name, limit in needed(profile).items():
        if not all(name in each for each in numbers):
            raise MeasurementError(f"{name} was not measured, and the proof rests on it")
        yield _held(profile, name, limit, exp(fmean(log(each[name]) for each in numbers)))


def _held(profile: Profile, name: str, limit: bool, value: float) -> Held:
    proven = exp(fmean(map(log, _launches(profile, name))))
    low, high = map(exp, _one_more(profile, name).bounds(_TAIL))
    as_good = value >= low if direction(name) == "maximize" else value <= high
    bound = profile.verdict.decision.limits.get(name)
    within = limit and bound is not None and _kept(bound, value / proven)
    return Held(metric=name, proven=proven, low=low, high=high, measured=value, limit=limit, holds=as_good or within)


def _kept(bound: Bound, of_proven: float) -> bool:
    """Whether the bound is kept by what is this multiple of the proof's reading."""
    return bound.value * of_proven <= 1 if bound.upper else bound.value * of_proven >= 1


def _launches(profile: Profile, name: str) -> tuple[float, ...]:
    effect = profile.verdict.decision.effect(name)
    if effect and effect.candidate:
        return effect.candidate
    return (profile.measured[name].winner.mean,) if name in profile.measured else ()


def _one_more(profile: Profile, name: str) -> Estimate:
    """The log of one more launch of the winner."""
    launches, noise = _launches(profile, name), _noise(profile, name)
    error = noise.sd * sqrt(1 + 1 / len(launches))
    return Estimate(fmean(map(log, launches)), error, noise.dof, noise.sd)


def _noise(profile: Profile, name: str) -> Noise:
    effect = profile.verdict.decision.effect(name)
    dof = len(effect.baseline) + len(effect.candidate) - 2 if effect else 0
    if effect is None or not effect.noise or dof < 1:
        return _GUESSED
    return Noise(max(effect.noise, _LEAST), dof)
