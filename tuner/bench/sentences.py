"""A comparison in words: those of a study's verdict, said of two servers."""

from collections.abc import Iterator
from math import exp, log
from statistics import fmean

from tuner import words
from tuner.bench.comparison import Comparison
from tuner.proof.decision import Decision, Effect, Kind
from tuner.records import verdict

_MOST = 50


def text(comparison: Comparison) -> str:
    """All of it: the verdict, what it does not say, every limit, and every metric of both."""
    lines = [sentence(comparison), scope(comparison), *(f"note: {note}" for note in comparison.notes), ""]
    return "\n".join([*lines, *_limits(comparison), *_metrics(comparison.decision)])


def sentence(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    decision, name, other = comparison.decision, comparison.candidate.name, comparison.baseline.name
    gains, verb = f"{verdict.effects(decision)}, {_measurements(comparison)}", _verb(comparison)
    match decision.kind:
        case Kind.BETTER:
            return f"{name} {verb} better than {other}: {gains}."
        case Kind.LIMIT_NOT_SHOWN:
            return (
                f"{name} {verb} better than {other}, but {verdict.but(decision, comparison.objective.limits)}: {gains}."
            )
        case Kind.NO_DIFFERENCE if all(effect.worse for effect in decision.goals.values()):
            return f"{name} {verb} worse than {other}: {gains}."
        case Kind.NO_DIFFERENCE:
            return f"No difference above {words.percent(comparison.min_gain)}: {name} against {other}: {gains}."
        case Kind.NOT_DECIDED | Kind.REFUSED:
            return f"Not decided: {_why(comparison, decision)}: {name} against {other}: {gains}."


def scope(comparison: Comparison) -> str:
    """What the verdict is about, and what it is not."""
    if comparison.in_turns:
        return (
            "This is of these two running servers, measured in turns, not of their configurations: neither was "
            "restarted, and another launch may differ."
        )
    return (
        "The saved result is one measurement of another time, not measured in turns with the server. That something "
        "else has changed since (the machine, its load, the network) is not excluded, and is in none of the intervals."
    )


def _verb(comparison: Comparison) -> str:
    return "is" if comparison.in_turns else "reads"


def _measurements(comparison: Comparison) -> str:
    count = comparison.decision.launches
    measured = "1 measurement" if count == 1 else f"{count} measurements"
    if comparison.in_turns:
        return f"over {measured} of each"
    return f"over {measured} of the server against the saved one"


def _why(comparison: Comparison, decision: Decision) -> str:
    if decision.died:
        return f"a measurement failed ({decision.died[0]})"
    limits = comparison.objective.limits
    if broken := [name for name, bound in decision.limits.items() if bound.broken]:
        texts = (verdict.bound_text(name, decision.limits[name], limits[name]) for name in broken)
        return f"{comparison.candidate.name} breaks its limit on {' and '.join(texts)}"
    if decision.noise is None:
        return "nothing is known of the noise between measurements"
    varied = f"measurements of one server varied by {words.percent(decision.noise)}"
    return f"{varied}; {_remedy(decision, decision.noise, comparison.min_gain)}"


def _remedy(decision: Decision, noise: float, min_gain: float) -> str:
    longer = "measure longer (workload.min_duration_s)"
    needed = verdict.pairs_for(max(decision.gain, min_gain), noise) if decision.gain > 0 else _MOST + 1
    if needed > _MOST:
        return longer
    return f"{longer}, or more often (study.confirm.max={max(needed, decision.launches + 1)})"


def _limits(comparison: Comparison) -> Iterator[str]:
    for name, bound in comparison.decision.limits.items():
        state = "kept" if bound.kept else "broken" if bound.broken else "not shown to be kept"
        yield f"limit {state}: {verdict.bound_text(name, bound, comparison.objective.limits[name])}"


def _metrics(decision: Decision) -> Iterator[str]:
    """Every metric that both have: both levels, and the change with its interval."""
    for name, effect in {**decision.goals, **decision.others}.items():
        if effect.baseline and effect.candidate:
            unit = words.metric(name).unit
            yield f"{name:<24} {_level(effect.baseline)} → {_level(effect.candidate)} {unit}  {_change(name, effect)}"


def _level(values: tuple[float, ...]) -> str:
    """The geometric mean of the measurements."""
    return words.digits(exp(fmean(map(log, values))))


def _change(name: str, effect: Effect) -> str:
    """The change of the metric itself, with its interval and the measurements that it rests on."""
    changed = verdict.changed(name, effect).removeprefix(words.metric(name).short).strip()
    return f"{changed}  n={len(effect.baseline)}+{len(effect.candidate)}"
