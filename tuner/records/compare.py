"""The finalist against the baseline: launched again in turns, on prompts that neither has seen.

The best of many noisy measurements reads too high (of 30 equal configurations at 3 % noise by 6 %). So the search's own
numbers never make a winner: only a proof does, and its error rate is spent once over all candidates of a study.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tuner.config import Config
from tuner.objective import Objective
from tuner.proof.decision import Decision, Kind
from tuner.proof.estimate import Noise
from tuner.proof.order import turns
from tuner.proof.rule import ALPHA, ProofLaunch, Terms, decide
from tuner.records.answers import answered, lost
from tuner.records.readings import numbers
from tuner.records.record import ProofTerms, Role, State, TrialRecord

_SHARE = 0.8
"""Of the error rate that is left, for the next proof; the rest is kept for a runner-up."""
_TOO_LITTLE = 0.002
"""With less of it a proof could not succeed."""


@dataclass(frozen=True)
class Proof:
    """One candidate's relaunches, and the baseline's in turn with them.

    Attributes:
        terms: What was agreed on before its first launch.
        launches: Those that ended with a verdict of their own, in order.
        decision: What they say.
        soak: The launch in which the candidate was soaked.
    """

    terms: ProofTerms
    launches: tuple[TrialRecord, ...]
    decision: Decision
    soak: TrialRecord | None = None

    def next_role(self, study_seed: int) -> Role:
        """Who is launched next."""
        order = turns(f"{study_seed}:{self.terms.candidate}", self.terms.most)
        return Role.CONFIRM_BEST if order[len(self.launches)] else Role.CONFIRM_BASELINE


def proofs(config: Config, relaunches: Sequence[TrialRecord], noise: Mapping[str, Noise]) -> tuple[Proof, ...]:
    """All proofs of a study, in order.

    Args:
        config: The study.
        relaunches: Every relaunch that ended with a verdict of its own, in order.
        noise: What the search knows of each metric's noise.
    """
    by_terms: dict[ProofTerms, list[TrialRecord]] = {}
    for record in relaunches:
        if terms := record.proof or _unwritten(config, relaunches):
            by_terms.setdefault(terms, []).append(record)
    return tuple(_whole(config, terms, own, relaunches, noise) for terms, own in by_terms.items())


def _whole(
    config: Config,
    terms: ProofTerms,
    own: Sequence[TrialRecord],
    relaunches: Sequence[TrialRecord],
    noise: Mapping[str, Noise],
) -> Proof:
    """A proof with all that was found in its launches: a fast candidate may be refused all the same."""
    proof = proof_of(config, terms, [record for record in own if record.role is not Role.SOAK], noise)
    soak = next((record for record in reversed(own) if record.role is Role.SOAK), None)
    found = answered(config.quality, relaunches, own)
    why = (*(map(lost, found.worse) if found else ()), *(_failed(soak) if soak else ()))
    update = {"answers": found, "soak": soak and soak.soak, "refused": why}
    refused = {"kind": Kind.REFUSED, "over": True} if why else {}
    return replace(proof, soak=soak, decision=proof.decision.model_copy(update={**update, **refused}))


def _failed(soak: TrialRecord) -> tuple[str, ...]:
    """What speaks against a candidate after its soak: nothing, or that it did not live to its end."""
    if soak.failure:
        return (f"it did not survive its soak: {soak.failure.message}",)
    return soak.soak.faults if soak.soak else ()


def _unwritten(config: Config, relaunches: Sequence[TrialRecord]) -> ProofTerms | None:
    """The terms of relaunches that were recorded before proofs had any: there was one candidate."""
    best = next((record for record in relaunches if record.role is Role.CONFIRM_BEST and not record.proof), None)
    if best is None:
        return None
    return ProofTerms(candidate=best.digest, alpha=ALPHA * _SHARE, most=max(1, config.study.confirm.max))


def proof_of(config: Config, terms: ProofTerms, relaunches: Sequence[TrialRecord], noise: Mapping[str, Noise]) -> Proof:
    """A proof with what its launches say so far."""
    rule = rule_of(config, config.objective, terms.most, noise, terms.alpha)
    launches = [launch(r, rule.needed, candidate=r.role is Role.CONFIRM_BEST) for r in relaunches]
    return Proof(terms, tuple(relaunches), decide(launches, rule))


def rule_of(
    config: Config,
    objective: Objective,
    most: int,
    noise: Mapping[str, Noise] = MappingProxyType({}),
    alpha: float = ALPHA,
) -> Terms:
    """What is to be shown, as the rule takes it.

    Args:
        config: What gain is worth a change.
        objective: Goals, limits and guard.
        most: Launches of each at the most.
        noise: What is known of each metric's noise.
        alpha: The error rate that may be spent.
    """
    return Terms(
        goals=objective.goals,
        limits=objective.limits,
        most=most,
        noise=noise,
        alpha=alpha,
        min_gain=config.study.min_gain,
        guard=objective.guard,
        unguarded=frozenset(objective.unguarded),
    )


def alpha_left(earlier: Sequence[Proof]) -> float | None:
    """What the next proof may spend; ``None`` if the earlier ones have left too little."""
    left = ALPHA - sum(proof.decision.spent for proof in earlier)
    return left * _SHARE if left * _SHARE >= _TOO_LITTLE else None


def launch(record: TrialRecord, needed: Sequence[str], *, candidate: bool) -> ProofLaunch:
    """A launch that died or returned nothing counts against its configuration, never as missing.

    Args:
        record: What was measured.
        needed: The metrics without which it is none.
        candidate: Whether of the candidate; else of the baseline.
    """
    if record.measurement is None or record.state is not State.COMPLETE:
        return ProofLaunch(candidate, {}, record.failure.message if record.failure else "it returned nothing")
    read = numbers(record.measurement)
    missing = [name for name in needed if name not in read]
    return ProofLaunch(candidate, read, f"{', '.join(missing)} could not be measured" if missing else None)
