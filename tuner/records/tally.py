"""A study's records, sorted and counted."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.records.record import TrialRecord


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted over all trials of a study; a further trial is added, and no earlier one counted again.

    Attributes:
        records: The trials, in the order in which they ran.
        searched: Those of the search that ended with a verdict of their own: measured, or pruned with a cause.
        launched: Those of them for which a server was started.
        measured: All with a measurement.
        spent_s: Wall time of all trials.
        launched_s: That of ``launched``.
    """

    records: Sequence[TrialRecord] = ()
    searched: Sequence[TrialRecord] = ()
    launched: Sequence[TrialRecord] = ()
    measured: Sequence[TrialRecord] = ()
    spent_s: float = 0.0
    launched_s: float = 0.0

    def grown(self, records: Sequence[TrialRecord]) -> "Tally":
        """The tally of these records, of which it has counted the first; from the beginning if it has not."""
        known = self if self.records == records[: len(self.records)] else Tally()
        more = records[len(known.records) :]
        searched = [record for record in more if record.searched]
        launched = [record for record in searched if record.launched]
        return Tally(
            records=records,
            searched=[*known.searched, *searched],
            launched=[*known.launched, *launched],
            measured=[*known.measured, *(record for record in more if record.measurement)],
            spent_s=known.spent_s + sum(record.seconds for record in more),
            launched_s=known.launched_s + sum(record.seconds for record in launched),
        )
