"""The verdict in words: one vocabulary for terminal, status, report, profile, dashboard and ``--json``.

Every number is the relaunches' own: what the search read has no place in a verdict.
"""

from collections.abc import Iterator, Mapping
from math import ceil, log, sqrt

from tuner import words
from tuner.load.naming import comparable, counted
from tuner.objective import Limit, direction
from tuner.proof.decision import Bound, Decision, Effect, Kind
from tuner.proof.rule import FIRST_ALONE
from tuner.records.answers import told
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

_TITLES = {
    Kind.BETTER: "better",
    Kind.NO_DIFFERENCE: "no difference",
    Kind.LIMIT_NOT_SHOWN: "better, but",
    Kind.NOT_DECIDED: "not decided",
    Kind.REFUSED: "refused",
}
_POWER = 2.0 + 0.84
"""Standard errors between nothing and a gain that is found in four of five proofs."""
_MOST = 50
_NEAR_MISSES = 3


def title(decision: Decision) -> str:
    """The verdict in a word or two."""
    return _TITLES[decision.kind]


def sentence(outcome: Outcome) -> str:
    """The verdict in one sentence."""
    before = _before_any(outcome)
    if before:
        return before
    best, decision = outcome.best, outcome.decision
    assert best is not None
    if decision is None:
        return f"Trial {best.number} reads better than the deployed configuration, but has not been launched again."
    return f"{_decided(outcome, best, decision)}{_also(outcome)}"


def _before_any(outcome: Outcome) -> str | None:
    """What is to be said while there is nothing to compare."""
    if not outcome.searched:
        return "Nothing has been tried yet."
    if outcome.best is None:
        return f"No configuration could be used: {_why_nothing(outcome)}."
    if outcome.baseline is None:
        return (
            f"The deployed configuration does not run here; trial {outcome.best.number} is the best of those that do."
        )
    if outcome.improved:
        return None
    if len({record.digest for record in outcome.searched}) == 1:
        return "Nothing but the deployed configuration has been tried."
    if not outcome.over:
        return "So far the deployed configuration has not been beaten."
    return f"Nothing tried reads better than the deployed configuration within the limits: keep yours.{_also(outcome)}"


def _why_nothing(outcome: Outcome) -> str:
    reasons = [f"{count} × {words.cause(cause)}" for cause, count in outcome.causes.most_common()]
    reasons += [
        f"{count} × {words.metric(name).short} beyond its limit" for name, count in outcome.missed.most_common()
    ]
    return ", ".join(reasons) or "none was measured"


def _decided(outcome: Outcome, best: TrialRecord, decision: Decision) -> str:
    gains, of_each = effects(decision), f"over {launches(decision)} of each"
    match decision.kind:
        case Kind.BETTER:
            return (
                f"{_subject(outcome, best).capitalize()} is better than the deployed configuration: {gains}, {of_each}."
            )
        case Kind.LIMIT_NOT_SHOWN:
            return (
                f"{_subject(outcome, best).capitalize()} is better, but {_but(outcome, decision)}: {gains}, {of_each}."
            )
        case Kind.NO_DIFFERENCE:
            least = words.percent(outcome.config.study.min_gain)
            return (
                f"No difference above {least}: keep yours. {_subject(outcome, best).capitalize()}: {gains}, {of_each}."
            )
        case Kind.NOT_DECIDED:
            return _undecided(outcome, best, decision)
        case Kind.REFUSED:
            why = " and ".join(decision.refused)
            return f"{_subject(outcome, best).capitalize()} is refused, {why}: keep yours ({gains}, {of_each})."


def _subject(outcome: Outcome, best: TrialRecord) -> str:
    """What the verdict is about: a trial, or a part of what it changes."""
    kept = outcome.reduced
    if kept is None:
        return f"trial {best.number}"
    return f"trial {best.number} with {len(kept)} of its {len(outcome.changes(best))} changes"


def _but(outcome: Outcome, decision: Decision) -> str:
    return but(decision, outcome.config.objective.limits)


def but(decision: Decision, limits: Mapping[str, Limit]) -> str:
    """Why a gain alone does not do."""
    open_limits = [bound_text(name, decision.limits[name], limits[name]) for name in decision.open_limits]
    reasons = [f"its limit on {text} is not shown to be kept" for text in open_limits]
    reasons += [_sacrifice(decision, name) for name in decision.sacrificed]
    return " and ".join(reasons)


def _sacrifice(decision: Decision, name: str) -> str:
    effect = decision.others.get(name)
    if effect is None:
        return f"it has no room for what {words.metric(name).short} measures"
    return f"{changed(name, effect)} is more than objective.guard allows"


def _undecided(outcome: Outcome, best: TrialRecord, decision: Decision) -> str:
    if decision.died:
        return f"Not decided: {_subject(outcome, best)} is not to be relied on: a relaunch died ({decision.died[0]})."
    if not decision.over:
        most = outcome.proof.terms.most if outcome.proof else 0
        so_far = f"{launches(decision)} of each so far, of up to {most}"
        return f"{_subject(outcome, best).capitalize()} is being launched again: {so_far}."
    gains, of_each = effects(decision), f"over {launches(decision)} of each"
    if broken := [name for name, bound in decision.limits.items() if bound.broken]:
        limits = " and ".join(bounded(outcome, name) for name in broken)
        return f"Not decided: {_subject(outcome, best)} breaks its limit on {limits}: keep yours ({gains}, {of_each})."
    if decision.too_few:
        tell = "tells nothing, whatever it reads" if decision.launches == 1 else "tell nothing, whatever they read"
        return (
            f"Not decided: {launches(decision)} of each {tell}: "
            f"{_subject(outcome, best)} wants a study of its own with study.confirm.max={FIRST_ALONE} or more."
        )
    varied = "by more than can be told" if decision.noise is None else f"by {words.percent(decision.noise)}"
    return (
        f"Not decided: this machine varied {varied} between launches of one configuration; "
        f"{_subject(outcome, best)}: {gains}, {of_each}: keep yours, or {_remedy(outcome, decision)}."
    )


def _remedy(outcome: Outcome, decision: Decision) -> str:
    quieter = "measure longer (workload.min_duration_s) on a machine that does nothing else"
    if decision.noise is None or decision.gain <= 0:
        return quieter
    needed = pairs_for(max(decision.gain, outcome.config.study.min_gain), decision.noise)
    if needed > _MOST:
        return quieter
    return f"begin a study of its own with study.confirm.max={max(needed, decision.launches + 1)}, or {quieter}"


def pairs_for(gain: float, noise: float) -> int:
    """Launches of each that show a gain in four of five proofs.

    Args:
        gain: True share by which it is better.
        noise: Standard deviation of the log between launches.
    """
    return max(3, ceil(2 * (_POWER * noise / log(1 + gain)) ** 2))


def shown_by(pairs: int, noise: float) -> float:
    """The smallest gain that so many launches of each show in four of five proofs, as a share."""
    return _POWER * noise * sqrt(2 / pairs)


def _also(outcome: Outcome) -> str:
    """Near misses that were worth having, by name."""
    near = outcome.near_misses[:_NEAR_MISSES]
    return f" {' '.join(map(lambda record: near_miss(outcome, record), near))}" if near and outcome.over else ""


def near_miss(outcome: Outcome, record: TrialRecord) -> str:
    """A trial that read better, and beyond a limit by what noise may explain."""
    gains = outcome.readings.gains(record.digest)
    gain = words.percent(gains[0], sign=True) if gains else "better"
    beyond = " and ".join(
        f"{words.percent(by)} over the limit on {words.metric(name).short}"
        for name, by in outcome.readings.misses(record.digest).items()
    )
    return f"Trial {record.number} read {gain} and {beyond}; not shown either way."


def trade(outcome: Outcome) -> str | None:
    """Of several goals: which trade of the front is recommended and why; ``None`` where there is none to make."""
    goals, best = outcome.config.objective.goals, outcome.best
    front = [record for record in outcome.ranked if not _beaten(outcome, record)]
    if len(goals) < 2 or len(front) < 2 or best is None:
        return None
    gains = outcome.readings.gains(best.digest) or ()
    told = ", ".join(changed_by(name, gain) for name, gain in zip(goals, gains, strict=False))
    others = ", ".join(str(record.number) for record in front if record.digest != best.digest)
    return (
        f"trial {best.number} is recommended of the front, for the largest sum of both gains ({told} as the search "
        f"read them); each of these is better in one goal and worse in another: trial {others}"
    )


def _beaten(outcome: Outcome, record: TrialRecord) -> bool:
    """Whether another configuration is at least as good in every goal and better in one."""
    own = outcome.readings.gains(record.digest) or ()
    others = (outcome.readings.gains(each.digest) or () for each in outcome.ranked if each is not record)
    return any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for other in others if other)


def changed_by(name: str, gain: float) -> str:
    """A metric's change as it is, without an interval."""
    return f"{words.metric(name).short} {words.percent(as_is(name, gain), sign=True)}"


def launches(decision: Decision) -> str:
    """``1 launch``, ``4 launches``."""
    return "1 launch" if decision.launches == 1 else f"{decision.launches} launches"


def effects(decision: Decision) -> str:
    """All goals with their intervals."""
    return "; ".join(changed(name, effect) for name, effect in decision.goals.items())


def changed(name: str, effect: Effect) -> str:
    """A metric's change as it is, with its interval: less of a latency reads ``TPOT p50 −18.8% [−19.9%, −17.6%]``."""
    low, high = sorted((as_is(name, effect.low), as_is(name, effect.high)))
    ends = f"[{words.percent(low, sign=True)}, {words.percent(high, sign=True)}]"
    return f"{words.metric(name).short} {words.percent(as_is(name, effect.gain), sign=True)} {ends}"


def as_is(name: str, gain: float) -> float:
    """A gain as the change of the metric itself."""
    return -gain if direction(name) == "minimize" else gain


def bounded(outcome: Outcome, name: str) -> str:
    """A limit's metric in the relaunches with its bound."""
    assert outcome.decision is not None
    return bound_text(name, outcome.decision.limits[name], outcome.config.objective.limits[name])


def bound_text(name: str, bound: Bound, limit: Limit) -> str:
    """How a limit was kept: ``TTFT p50 (× 1.12 [1.04, 1.21], at most × 1.10)``."""
    word = "at most" if limit.max is not None else "at least"
    times = "× " if limit.of == "baseline" else ""
    factor, more = limit.on(name).bound, comparable(name, 0.0) if counted(name) else 0.0
    ends = (max(0.0, each * factor - more) for each in (bound.low, bound.value, bound.high))
    low, value, high = map(words.digits, ends)
    return f"{words.metric(name).short} ({times}{value} [{low}, {high}], {word} {times}{limit.bound:g})"


def limits(outcome: Outcome) -> Iterator[tuple[str, Bound]]:
    """Every limit in words, with how it was kept."""
    if outcome.decision:
        yield from ((bounded(outcome, name), bound) for name, bound in outcome.decision.limits.items())


def worse(outcome: Outcome) -> list[str]:
    """What got worse beyond noise by at least what would be worth a change, in the words of the verdict."""
    decision = outcome.decision
    if decision is None or decision.kind not in (Kind.BETTER, Kind.LIMIT_NOT_SHOWN):
        return []
    least = outcome.config.study.min_gain
    return [changed(name, effect) for name, effect in decision.worse() if effect.gain <= -least]


def answers(outcome: Outcome) -> list[str]:
    """How the candidate's answers compare with the deployed configuration's, a line for each family."""
    return list(told(outcome.decision.answers)) if outcome.decision and outcome.decision.answers else []


def soak(outcome: Outcome) -> list[str]:
    """How the candidate lasted under load after load."""
    soaked = outcome.decision.soak if outcome.decision else None
    return [f"{soaked.told}{''.join(f'; {fault}' for fault in soaked.faults)}"] if soaked and soaked.rounds else []


def drifts(outcome: Outcome) -> list[str]:
    """Metrics that drifted through the search, which is taken out of its readings."""
    found = []
    for name in (*outcome.config.objective.goals, *outcome.config.objective.limits):
        drift = outcome.readings.scatter(name).drift * max(0, len(outcome.readings.records) - 1)
        if drift:
            short = words.metric(name).short
            found.append(f"{short} drifted by {words.percent(drift, sign=True)} through the search; this is taken out")
    return found
