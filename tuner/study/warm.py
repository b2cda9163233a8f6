"""Earlier studies that a search begins with: read once, and kept with the study."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from tuner.config import Config
from tuner.engines.registry import kind_of
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder, read_json
from tuner.records.idle import ran
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.schema import Stored
from tuner.search.source import Source, SourceReading

_PLACE = "search.warm_from"


class Sources(Stored):
    """What a study began with: the sources stay what they were, whatever becomes of their folders."""

    schema_version: Literal[1] = 1
    asked: tuple[str, ...]
    """As the configuration names them."""
    sources: tuple[Source, ...]


def sources_of(config: Config) -> tuple[Source, ...]:
    """The earlier studies that a study begins with.

    Raises:
        ConfigError: One is not there, or is not of the same model, engine and goals.
    """
    kept, asked = StudyFolder(config.study.path).sources, config.search.warm_from
    if asked and kept.exists() and (known := read_json(kept, Sources)).asked == asked:
        return known.sources
    return tuple(_StudyReader(config, name).source() for name in asked)


def keep(config: Config, sources: tuple[Source, ...]) -> None:
    """Keep them with the study."""
    if sources:
        folder = StudyFolder(config.study.path)
        folder.write(folder.sources, Sources(asked=config.search.warm_from, sources=sources).model_dump_json(indent=1))


def told(source: Source) -> str:
    """For a person: what a source is, and how much of it counts."""
    left_out = f"; {source.skipped} left out, which this space does not hold" if source.skipped else ""
    return f"{source.name}: {len(source.readings)} configurations, measured on {source.machine}{left_out}"


@dataclass(frozen=True)
class _StudyReader:
    """Reads one study for another one."""

    config: Config
    name: str

    def source(self) -> Source:
        outcome = Outcome.of(self._folder())
        self._check(outcome.config)
        first = {record.digest: record for record in reversed(outcome.searched) if record.measurement}
        if outcome.baseline is None or outcome.baseline.digest not in first:
            fix = "leave it out, or let it measure its deployed configuration"
            raise ConfigError(f"{self.name} has not measured what it deployed", place=_PLACE, fix=fix)
        read = [self._reading(outcome, record) for record in first.values()]
        readings = tuple(each for each in read if each)
        machine, skipped = outcome.config.hardware.name, len(read) - len(readings)
        return Source(name=self.name, readings=readings, machine=machine, skipped=skipped)

    def _folder(self) -> StudyFolder:
        places, own = (Path(self.name).expanduser(), Path(self.config.study.folder) / self.name), self.config.study.path
        found = next((folder for folder in map(StudyFolder, places) if folder.config.exists()), None)
        if (found.path if found else places[1]).resolve() == own.resolve():
            raise ConfigError(f"{self.name} is this study itself", place=_PLACE, fix="leave it out")
        if found is None:
            fix = f"name a study in {self.config.study.folder}, or the folder of one"
            raise ConfigError(f"there is no study {self.name}", place=_PLACE, fix=fix)
        return found

    def _check(self, other: Config) -> None:
        """Make sure that its readings mean the same here.

        Raises:
            ConfigError: They do not.
        """
        own, fix = self.config, "leave it out, or ask the same of both"
        if own.objective.goals != other.objective.goals:
            goals = (
                " and ".join(f"{way} {name}" for name, way in each.objective.goals.items()) for each in (other, own)
            )
            said = "{} was asked to {}, this study to {}: its gains are none here".format(self.name, *goals)
            raise ConfigError(said, place=_PLACE, fix=fix)
        if kind_of(own.engine) is not kind_of(other.engine):
            raise ConfigError(f"{self.name} is of another engine, with other settings", place=_PLACE, fix=fix)
        if Path(own.model.id).name.lower() != Path(other.model.id).name.lower():
            said = f"{self.name} is of another model: {other.model.id}, and here {own.model.id}"
            raise ConfigError(said, place=_PLACE, fix=fix)

    def _reading(self, outcome: Outcome, record: TrialRecord) -> SourceReading | None:
        """A configuration as the new space has it; ``None`` if that does not hold it, or its goal was not measured."""
        params, gain = self._params(outcome, record), self._gain(outcome, record)
        if params is None or gain is None:
            return None
        return SourceReading(params=params, gain=gain, beyond=dict(self._beyond(outcome, record)))

    def _params(self, outcome: Outcome, record: TrialRecord) -> dict[str, JsonValue] | None:
        """What the new space does not have is ignored where it is as that study deployed it."""
        theirs, space = outcome.config.space, self.config.space
        own = {space.target(name) for name in space.params}
        if any(theirs.target(name) not in own for name in outcome.changes(record)):
            return None
        settings = outcome.config.model.settings.merged(theirs.settings(ran(record, theirs)))
        try:
            return dict(space.deployed(settings).params)
        except ConfigError:  # a value that is none of the new space's choices
            return None

    def _gain(self, outcome: Outcome, record: TrialRecord) -> float | None:
        name, way = next(iter(outcome.config.objective.goals.items()))
        value, base = self._levels(outcome, record, name)
        return None if value is None or base is None else log(value / base) * (1 if way == "maximize" else -1)

    def _beyond(self, outcome: Outcome, record: TrialRecord) -> Iterator[tuple[str, float]]:
        for name, limit in self.config.objective.limits.items():
            value, base = self._levels(outcome, record, name)
            if value is not None and base is not None:
                yield name, limit.on(name).excess(value, 1.0) - limit.on(name).excess(base, 1.0)

    def _levels(self, outcome: Outcome, record: TrialRecord, name: str) -> tuple[float | None, float | None]:
        """A metric there, and of what that study deployed."""
        assert outcome.baseline is not None
        return tuple(outcome.readings.level(each.digest, name) for each in (record, outcome.baseline))  # type: ignore[return-value]
