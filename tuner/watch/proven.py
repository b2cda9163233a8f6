"""What a profile does not hold and its study does: how long a token took in the mean, in each launch of its proof."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import ConfigError
from tuner.load.naming import CONCURRENT
from tuner.load.records import RequestRecord, read_records
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role


@dataclass(frozen=True, slots=True)
class MeanTpot:
    """All gaps over all tokens but the first ones, under the load of the proof, in the engine's own milliseconds.

    Attributes:
        ms: Of all of the winner's launches.
        winner: Of each of them.
        baseline: Of each of the deployed configuration's.
    """

    ms: float
    winner: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()


def mean_tpot(profile: Path) -> MeanTpot | None:
    """What the study's requests tell; ``None`` where they are not at hand.

    Args:
        profile: The profile's file, in its study's folder.
    """
    folder = StudyFolder(profile.parent)
    if not folder.config.is_file():
        return None
    try:
        outcome = Outcome.of(folder)
        winner, baseline = _launches(outcome, Role.CONFIRM_BEST), _launches(outcome, Role.CONFIRM_BASELINE)
    except (ConfigError, FileNotFoundError):
        return None
    tokens = sum(tokens for _, tokens in winner)
    if not tokens:
        return None
    each = [tuple(ms / tokens for ms, tokens in launches if tokens) for launches in (winner, baseline)]
    return MeanTpot(sum(ms for ms, _ in winner) / tokens, *each)


def _launches(outcome: Outcome, role: Role) -> list[tuple[float, int]]:
    """Milliseconds and tokens of each launch of the proof in a role."""
    return [
        _sums(read_records(outcome.folder.confirmation(record.number).requests), record.measurement.clock_scale)
        for record in (outcome.proof.launches if outcome.proof else ())
        if record.role is role and record.measurement
    ]


def _sums(records: Sequence[RequestRecord], scale: float) -> tuple[float, int]:
    """Milliseconds of gaps, and the tokens that came after them."""
    own = [each for each in records if each.stage == CONCURRENT and each.completed and each.chunk_ms]
    ms = sum(each.chunk_ms[-1] - each.chunk_ms[0] for each in own)
    return ms * scale, sum((each.output_tokens or 1) - 1 for each in own)
