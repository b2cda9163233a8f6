"""A finalist's answers against the deployed configuration's, both asked in launches that the proof makes anyway."""

from collections.abc import Iterator, Sequence

from tuner.quality.asking import Answers
from tuner.quality.cases import Quality
from tuner.quality.comparing import Compared, Family, compared
from tuner.records.record import ProofTerms, Role, TrialRecord

_BASELINE = 2
"""Launches of the baseline that are asked: what it does not repeat itself is no fault of another."""


def answered(quality: Quality, relaunches: Sequence[TrialRecord], own: Sequence[TrialRecord]) -> Compared | None:
    """What a candidate's answers are against the baseline's; ``None`` as long as either has not been asked.

    Args:
        quality: What is asked. What was asked otherwise, earlier, does not count.
        relaunches: All of the study.
        own: Those of the candidate's proof.
    """
    first, candidate = _answers(quality, relaunches, Role.CONFIRM_BASELINE), _answers(quality, own, Role.CONFIRM_BEST)
    if not (first and candidate):
        return None
    again = first[1].completions if len(first) > 1 else None
    return compared(quality, first[0].completions, again, candidate[0].completions)


def due(quality: Quality, role: Role, terms: ProofTerms | None, relaunches: Sequence[TrialRecord]) -> Quality | None:
    """What the next relaunch is asked: the baseline in two launches of a study, a candidate in one of its proof."""
    own = relaunches if role is Role.CONFIRM_BASELINE else [each for each in relaunches if each.proof == terms]
    wanted = {Role.CONFIRM_BASELINE: _BASELINE, Role.CONFIRM_BEST: 1}.get(role, 0)
    return quality if quality.cases and len(_answers(quality, own, role)) < wanted else None


def _answers(quality: Quality, relaunches: Sequence[TrialRecord], role: Role) -> list[Answers]:
    if not quality.cases:
        return []
    digest = quality.digest
    asked = (each.answers for each in relaunches if each.role is role)
    return [each for each in asked if each and each.questions == digest]


def lost(family: Family) -> str:
    """``tool calls (18 of 360 lost, 0 won)``, as the reason of a refusal."""
    if family.nats:
        return f"its log probabilities drift ({_apart(family.nats)})"
    return f"it answers less rightly: {family.name} ({family.lost} of {family.asked} lost, {family.won} won)"


def told(found: Compared) -> Iterator[str]:
    """A line for each family, the worst example with those that decide against it."""
    for family in found.families:
        if family.nats:
            yield f"{family.name}: {_apart(family.nats)}{_drifting(family)}"
            continue
        deployed, candidate = family.right
        right = "equal" if not family.decides else "right"
        counts = f"{family.name}: {candidate} of {family.asked} {right}, deployed {deployed}"
        yield f"{counts} (lost {family.lost}, won {family.won})" + _example(family)
    for which in found.unscored:
        server = "the deployed configuration" if which == "first" else "the candidate"
        yield f"log probabilities: {server} gives none, so that a drift shows in changed texts alone"


def _example(family: Family) -> str:
    return f": {family.examples[0]}" if family.worse and family.decides and family.examples else ""


def _apart(nats: tuple[float, float]) -> str:
    own, other = nats
    return f"{other:.3f} nats a token apart, deployed {own:.3f} in its own repeat"


def _drifting(family: Family) -> str:
    if not family.worse:
        return ""
    return f"; they drift: {family.examples[0]}" if family.examples else "; they drift"
