"""Steps on an H200, predicted from the memory's bound: each study by the other, all 47 layers by 24 and 24 by 47."""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import pytest

from tests.present import present
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

RECORDED = Path(__file__).parents[2] / "studies" / "recorded"
LAYERS = {"h200-47": 47, "h200-budget": 24}
WITHIN = 0.15
WHOLE_PROMPTS = 4096
"""Batched tokens from which a wave of these prompts takes one or two steps; with fewer it holds back answers."""


@dataclass(frozen=True)
class Step:
    """A step of the engine: milliseconds a layer of the host's and the kernels' own, and times the memory's bound."""

    layer_ms: float
    times: float
    token_layer_ms: float

    def ms(self, layers, bound_ms):
        return self.layer_ms * layers + self.times * bound_ms

    def tokens_per_s(self, study, record):
        """Of users who all send at once, wait for each other's prompts and then answer in step."""
        layers, (users, prompt, output) = LAYERS[study], traffic(study, record)
        round_ms = output * self.ms(layers, bounds(record)[1]) + self.token_layer_ms * layers * users * prompt
        return 1000 * users * output / round_ms


def tell(line):
    """For ``pytest -s``."""
    sys.stdout.write(f"{line}\n")


def traffic(study, record):
    """Users, and the tokens of each one's prompt and answer."""
    return present(present(record.ceilings).users), *outcome_of(study).config.workload.typical


@cache
def outcome_of(study) -> Outcome:
    return Outcome.of(StudyFolder(RECORDED / study))


def launches(study) -> list[TrialRecord]:
    outcome = outcome_of(study)
    return [record for record in (*outcome.records, *outcome.relaunches) if record.measurement]


def bounds(record):
    """The memory's bound on a step of one user, and of all, in milliseconds."""
    ceilings = present(record.ceilings)
    alone, together = present(ceilings.alone_tokens_per_s), present(ceilings.tokens_per_s)
    return 1000 / alone, 1000 * present(ceilings.users) / together


def steps(record):
    """The same two as they were measured."""
    return record.measurement.tpot_p50_ms, record.measurement.itl_p50_ms


def fitted(study) -> Step:
    rows = [
        (LAYERS[study] / took, bound / took)
        for record in launches(study)
        for bound, took in zip(bounds(record), steps(record), strict=True)
        if took
    ]
    (layer_ms, times), *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)), rcond=None)
    bare = Step(float(layer_ms), float(times), 0.0)
    rest = [prompt_token_ms(bare, study, record) for record in launches(study) if whole(record)]
    return Step(bare.layer_ms, bare.times, float(np.mean(rest)) / LAYERS[study])


def prompt_token_ms(step, study, record):
    """What of a round of all users is not decoding, for each token of their prompts."""
    users, prompt, output = traffic(study, record)
    round_ms = 1000 * users * output / record.measurement.output_tokens_per_s
    return (round_ms - output * step.ms(LAYERS[study], bounds(record)[1])) / (users * prompt)


def whole(record):
    return present(present(record.ceilings).step_tokens) >= WHOLE_PROMPTS


@pytest.mark.parametrize(("study", "other"), [("h200-47", "h200-budget"), ("h200-budget", "h200-47")])
def test_a_step_is_so_much_a_layer_and_so_many_times_the_memorys_bound(study, other):
    step, layers = fitted(other), LAYERS[study]
    tell(f"\n{study}, by {other}: {1000 * step.layer_ms:.0f} µs a layer, {step.times:.2f} times the bound")
    for record in launches(study):
        for users, bound, took in zip((1, 16), bounds(record), steps(record), strict=True):
            if took:
                tell(
                    f"{record.role:>15} {record.number}: {users:2} users {took:6.2f} ms, {step.ms(layers, bound):6.2f}"
                )
                assert step.ms(layers, bound) == pytest.approx(took, rel=WITHIN)
    for name, same in by_configuration(study).items():
        read = geometric_mean(record.measurement.output_tokens_per_s for record in same)
        predicted = step.tokens_per_s(study, same[0])
        tell(f"{name}, {len(same)} launches: {read:5.0f} tokens/s, {predicted:5.0f}")
        assert predicted == pytest.approx(read, rel=WITHIN)


def by_configuration(study):
    """Launches that compute prompts whole: one of 24 layers alone scatters by 5 %."""
    found: dict[str, list[TrialRecord]] = {}
    for record in filter(whole, launches(study)):
        found.setdefault(record.digest, []).append(record)
    return found
