"""What a study's launches say together of each configuration: a launch is a reading, and readings are noisy.

The baseline is launched again through the search as a control; from it, and from whatever else ran twice, follow the
noise between launches and a drift of the machine. A limit is then kept with a probability, not by a coin's toss.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from math import exp, hypot, log, prod, sqrt
from operator import itemgetter
from statistics import fmean

from tuner.load.metrics import Measurement
from tuner.load.naming import comparable
from tuner.objective import Objective
from tuner.proof.estimate import Noise, chance
from tuner.proof.noise import MetricReading, Scatter, scatter
from tuner.records.record import TrialRecord

_GUESSED = Noise(0.03, 2.0)
"""Between launches before any configuration ran twice; a guess, and hardly relied on."""
_ENDS = 2 * 1.96
"""Standard errors between the ends of a 95 % interval."""
LIKELY = 0.5
"""A configuration whose limits are kept with at least this probability may become the finalist."""
_NEAR = 0.05
"""Below this probability a limit is missed; between the two it is a near miss."""


def numbers(measurement: Measurement) -> dict[str, float]:
    """Every number of a measurement that can be compared, by metric; what may be nothing as ``comparable`` has it."""
    found = {name: comparable(name, value) for name, value in measurement.numbers.items()}
    return {name: value for name, value in found.items() if value > 0}


def error(measurement: Measurement, name: str) -> float:
    """How well a measurement knows a metric by its own interval: standard error of its log; 0 without one."""
    interval = measurement.intervals.get(name)
    return log(interval.high / interval.low) / _ENDS if interval and interval.low > 0 else 0.0


@dataclass(frozen=True)
class Readings:
    """Every measured launch of a study's search, by configuration.

    Attributes:
        objective: Goals and limits.
        records: In the order in which they ran.
        deployed: Digest of the deployed configuration.
    """

    objective: Objective
    records: Sequence[TrialRecord]
    deployed: str

    def begins(self, objective: Objective, records: Sequence[TrialRecord], deployed: str) -> bool:
        """Whether these records are the first of those, by the same objective."""
        same = self.objective is objective and self.deployed == deployed
        return same and self.records == records[: len(self.records)]

    def grown(self, records: Sequence[TrialRecord]) -> "Readings":
        """The readings of these and of more records, with all that more records do not change.

        What is known of noise and drift, and so of each configuration's level, follows from configurations that ran
        more than once.
        """
        more, grown = records[len(self.records) :], Readings(self.objective, records, self.deployed)
        by_digest, repeated = dict(self._by_digest), set()
        for place, record in enumerate(more, len(self.records)):
            if record.digest in by_digest:
                repeated.add(record.digest)
            by_digest[record.digest] = [*by_digest.get(record.digest, ()), *_read(place, record)]
        grown.__dict__["_by_digest"] = by_digest  # where a cached property keeps its value
        grown._squares.update(self._squares)
        if repeated:
            grown._levels.update(self._levels_without(repeated, grown))
        else:
            for name in ("_scatters", "_levels", "_missed", "_rankings"):
                getattr(grown, name).update(getattr(self, name))
        return grown

    def _levels_without(self, repeated: Set[str], grown: "Readings") -> dict[tuple[str, str], float | None]:
        """Those that stay the same where some configurations ran again: of the others, by the same drift."""
        steady = {name for name, known in self._scatters.items() if grown.scatter(name).drift == known.drift}
        return {key: level for key, level in self._levels.items() if key[0] not in repeated and key[1] in steady}

    def level(self, digest: str, name: str) -> float | None:
        """A configuration's metric: the geometric mean of its launches, without the machine's drift."""
        key = digest, name
        if digest not in self._by_digest:
            return None
        if key not in self._levels:
            logs = self._logs(digest, name)
            self._levels[key] = exp(fmean(logs)) if logs else None
        return self._levels[key]

    def values(self, digest: str) -> tuple[float, ...] | None:
        """The goals' metrics of a configuration."""
        levels = [self.level(digest, name) for name in self.objective.goals]
        known = tuple(level for level in levels if level is not None)
        return known if len(known) == len(levels) else None

    def launches(self, digest: str) -> int:
        """How often a configuration was measured."""
        return len(self._by_digest.get(digest, ()))

    def gains(self, digest: str) -> tuple[float, ...] | None:
        """By which share each goal is better than the deployed configuration's."""
        values, over = self.values(digest), self.values(self.deployed)
        return self.objective.gains(values, over) if values and over else None

    def worth(self, digest: str, over: str) -> float:
        """All goals of a configuration added up, as shares of another one's; the least where either has none."""
        values, others = self.values(digest), self.values(over)
        return sum(self.objective.gains(values, others)) if values and others else float("-inf")

    def by_worth(self, over: str) -> Iterator[TrialRecord]:
        """The first trial of each configuration that the search has measured, the best first."""
        ranked, count = self._rankings.get(over, ((), 0))
        if count < len(self.records):
            first: dict[str, TrialRecord] = {}
            for record in (record for record in self.records[count:] if record.searched):
                first.setdefault(record.digest, record)
            pairs = [(-self.worth(digest, over), record) for digest, record in first.items()]
            ranked = sorted([*ranked, *pairs], key=itemgetter(0))
            self._rankings[over] = ranked, len(self.records)
        return (record for _, record in ranked)

    def kept(self, digest: str) -> float:
        """The probability that a configuration keeps every limit."""
        if digest not in self._probabilities:
            self._probabilities[digest] = prod(self._kept(digest, name) for name in self.objective.limits)
        return self._probabilities[digest]

    def likely(self, digest: str) -> bool:
        """Whether it rather keeps its limits than not."""
        return not self._reads_beyond(digest) and self.kept(digest) >= LIKELY

    def _reads_beyond(self, digest: str) -> bool:
        """Whether a limit reads as missed: then it is less than likely to be kept, however noisy the reading."""
        if digest not in self._by_digest:
            return bool(self.objective.limits)
        if digest not in self._missed:
            beyond = [self._beyond(digest, name) for name in self.objective.limits]
            self._missed[digest] = any(by is None or by > 0 for by in beyond)
        return self._missed[digest]

    def near(self, digest: str) -> bool:
        """Whether it reads as missing a limit, and may well keep it."""
        return _NEAR <= self.kept(digest) < LIKELY

    def near_miss(self, measurement: Measurement, bar: float) -> bool:
        """Whether one more reading of a server is worth its time: better than ``bar`` by the goals, limits uncertain.

        Args:
            measurement: What its first reading gave.
            bar: Gain of the best so far, all goals added up.
        """
        over, read = self.values(self.deployed), numbers(measurement)
        if over is None or not all(name in read for name in (*self.objective.goals, *self.objective.limits)):
            return False
        gains = self.objective.gains(tuple(read[name] for name in self.objective.goals), over)
        probability = prod(self._chance(name, self._excess(name, read[name]), 1) for name in self.objective.limits)
        return sum(gains) > bar and _NEAR <= probability < LIKELY

    def misses(self, digest: str) -> dict[str, float]:
        """By which share each limit is missed; what is kept is left out."""
        return {name: exp(by) - 1 for name, by in self.beyond(digest).items() if by > 0}

    def beyond(self, digest: str) -> dict[str, float]:
        """By which log each limit's metric is beyond its bound; negative where the limit is kept."""
        found = {name: self._beyond(digest, name) for name in self.objective.limits}
        return {name: by for name, by in found.items() if by is not None}

    def excesses(self, measurement: Measurement) -> dict[str, float]:
        """By which log a single reading is beyond each limit's bound; negative where the limit is kept."""
        read = numbers(measurement)
        found = {name: self._excess(name, read[name]) for name in self.objective.limits if name in read}
        return {name: by for name, by in found.items() if by is not None}

    def noise(self, name: str) -> Noise:
        """Between launches of one configuration, never less than within one; guessed until one ran twice."""
        known = self.scatter(name).noise
        if known is None:
            return Noise(hypot(_GUESSED.sd, self.within(name) or 0.0), _GUESSED.dof)
        return Noise(max(known.sd, self.within(name) or 0.0), known.dof)

    def within(self, name: str) -> float | None:
        """How well one launch knows its own metric: standard error of its log by its interval, pooled over launches."""
        at, count, total = self._squares.get(name, (0, 0, 0.0))
        for record in self.records[at:]:
            interval = record.measurement.intervals.get(name) if record.measurement else None
            if interval and interval.low > 0:
                count, total = count + 1, total + (log(interval.high / interval.low) / _ENDS) ** 2
        self._squares[name] = len(self.records), count, total
        return sqrt(total / count) if count else None

    def scatter(self, name: str) -> Scatter:
        """What repeated launches say of a metric."""
        if name not in self._scatters:
            self._scatters[name] = scatter(self._groups(name))
        return self._scatters[name]

    @cached_property
    def _scatters(self) -> dict[str, Scatter]:
        return {}

    @cached_property
    def _levels(self) -> dict[tuple[str, str], float | None]:
        return {}

    @cached_property
    def _missed(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _rankings(self) -> dict[str, tuple[Sequence[tuple[float, TrialRecord]], int]]:
        """By whose shares: records with their worth, negative, and of how many records they are."""
        return {}

    @cached_property
    def _squares(self) -> dict[str, tuple[int, int, float]]:
        """By metric, of how many records: how many have an error of their own, and the sum of its squares."""
        return {}

    @cached_property
    def _probabilities(self) -> dict[str, float]:
        return {}

    @cached_property
    def _by_digest(self) -> Mapping[str, list[tuple[int, dict[str, float]]]]:
        found: dict[str, list[tuple[int, dict[str, float]]]] = {}
        for place, record in enumerate(self.records):
            found.setdefault(record.digest, []).extend(_read(place, record))
        return found

    def _groups(self, name: str) -> list[list[MetricReading]]:
        repeated = (readings for readings in self._by_digest.values() if len(readings) > 1)
        return [[MetricReading(place, read[name]) for place, read in readings if name in read] for readings in repeated]

    def _logs(self, digest: str, name: str) -> list[float]:
        drift = self.scatter(name).drift
        readings = self._by_digest.get(digest, [])
        return [log(read[name]) - drift * place for place, read in readings if name in read]

    def _kept(self, digest: str, name: str) -> float:
        """Student's t over the noise between launches, as far as it is known."""
        beyond = self._beyond(digest, name)
        if beyond is None:
            return 0.0
        if digest == self.deployed and self.objective.limits[name].of == "baseline":
            return float(beyond <= 0)  # of itself it is a multiple without any noise
        return self._chance(name, beyond, len(self._logs(digest, name)))

    def _chance(self, name: str, beyond: float | None, launches: int) -> float:
        """The probability that so many launches keep a limit that they read to be exceeded by this log."""
        if beyond is None:
            return 0.0
        noise = self.noise(name)
        return chance(beyond, noise.sd * sqrt(1 / launches + self._error_of_the_bound(name)), noise.dof)

    def _error_of_the_bound(self, name: str) -> float:
        relative = self.objective.limits[name].of == "baseline"
        return 1 / len(self._logs(self.deployed, name)) if relative else 0.0

    def _beyond(self, digest: str, name: str) -> float | None:
        """By how much of its log a metric is beyond the limit."""
        level = self.level(digest, name)
        return None if level is None else self._excess(name, level)

    def _excess(self, name: str, level: float) -> float | None:
        limit = self.objective.limits[name]
        reference = self.level(self.deployed, name) if limit.of == "baseline" else 1.0
        return None if reference is None else limit.on(name).excess(level, reference)


def _read(place: int, record: TrialRecord) -> list[tuple[int, dict[str, float]]]:
    return [(place, numbers(record.measurement))] if record.measurement else []
