"""What a profile does not hold and its study does: how long a token took in the mean, in the winner's own launches."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.errors import ConfigError
from tuner.load.naming import CONCURRENT
from tuner.load.records import RequestRecord, read_records
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role


def mean_tpot_ms(profile: Path) -> float | None:
    """All gaps over all tokens but the first ones, under the load of the proof.

    Args:
        profile: The profile's file, in its study's folder.

    Returns:
        In the engine's own milliseconds; ``None`` where the study's requests are not at hand.
    """
    folder = StudyFolder(profile.parent)
    if not folder.config.is_file():
        return None
    try:
        sums = [_sums(records, scale) for records, scale in _launches(Outcome.of(folder))]
    except (ConfigError, FileNotFoundError):
        return None
    tokens = sum(tokens for _, tokens in sums)
    return sum(ms for ms, _ in sums) / tokens if tokens else None


def _launches(outcome: Outcome) -> Iterator[tuple[Sequence[RequestRecord], float]]:
    """The requests of each of the winner's, and how much faster than the wall its engine's clock goes."""
    for record in outcome.proof.launches if outcome.proof else ():
        if record.role is Role.CONFIRM_BEST and record.measurement:
            requests = read_records(outcome.folder.confirmation(record.number).requests)
            yield requests, record.measurement.clock_scale


def _sums(records: Sequence[RequestRecord], scale: float) -> tuple[float, int]:
    """Milliseconds of gaps, and the tokens that came after them."""
    own = [each for each in records if each.stage == CONCURRENT and each.completed and each.chunk_ms]
    ms = sum(each.chunk_ms[-1] - each.chunk_ms[0] for each in own)
    return ms * scale, sum((each.output_tokens or 1) - 1 for each in own)
