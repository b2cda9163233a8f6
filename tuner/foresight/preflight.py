"""What can be known before a launch: rules, flags, combinations, placements, predicted memory, earlier failures.

In that order, and the first objection counts: each names what a person can do. Nothing here starts a server, and what
is known grows with every trial, so that the same records always give the same answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from tuner.config import Config
from tuner.engines.base import Engine, StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.foresight import Foresight, KnownFlags, MemoryModel, ServerStart
from tuner.engines.hardware import Hardware, hardware_of
from tuner.errors import (
    ConfigError,
    GpuBusy,
    InfeasibleConfig,
    LaunchRejected,
    PredictedOutOfMemory,
    RequestsRefused,
)
from tuner.foresight.lessons import Failed, Lesson, busy, lesson, usual_free_gib
from tuner.host.inside import Inside
from tuner.load.workload import Workload
from tuner.premises import foresight_of
from tuner.records.record import TrialRecord
from tuner.space import Candidate, SearchSpace, Settings


@dataclass(frozen=True)
class Ground:
    """What is known of a study before its first trial.

    Attributes:
        space: What may be tried.
        deployed: The deployment's settings.
        hardware: The GPUs.
        foresight: What the engine knows of its launches.
        version: Of the engine; ``None`` until its first log names it.
        workload: What will be sent; ``None`` where nobody says.
    """

    space: SearchSpace
    deployed: Settings
    hardware: Hardware
    foresight: Foresight
    version: str | None
    workload: Workload | None = None

    @property
    def flags(self) -> KnownFlags | None:
        """What the engine's command line takes; ``None`` where nobody knows."""
        return self.foresight.flags

    def settings(self, candidate: Candidate) -> Settings:
        """The whole configuration of a candidate."""
        return self.deployed.merged(self.space.settings(candidate))


def ground_of(config: Config, engine: Engine, inside: Inside | None = None) -> Ground:
    """What is known of a study before its first trial.

    It asks the driver for the GPUs and the engine for its flags, which takes half a minute the first time.

    Args:
        config: The study.
        engine: The engine as the launcher starts it.
        inside: The image that it is in, where that can be asked.
    """
    hardware = hardware_of(config.hardware)
    foresight = foresight_of(config, engine, hardware, inside)
    return Ground(config.space, config.model.settings, hardware, foresight, config.engine.version, config.workload)


def impossible(ground: Ground) -> ConfigError | None:
    """A mistake that no trial outlives: a deployed flag that this engine does not have, or a parameter without use."""
    for name, value in ground.deployed.args.items():
        if (
            value is not None
            and name not in _targets(ground)
            and (said := ground.foresight.refused_flag({name: value}))
        ):
            return ConfigError(said.message, place=f"model.args.{name}", fix=said.fix)
    for name in ground.space.params:
        if error := _useless(ground, name):
            return error
    return _unserved(ground)


def _unserved(ground: Ground) -> ConfigError | None:
    """What the deployment would refuse of the workload's own requests, where no parameter changes that."""
    settings = ground.settings(ground.space.deployed(ground.deployed))
    load, version = ground.workload, ground.version
    for refusal in ground.foresight.refused_requests(load, settings, version) if load else ():
        if not _targets(ground) & set(refusal.settings):
            return ConfigError(refusal.message, place=refusal.place, fix=refusal.fix)
    return None


def _targets(ground: Ground) -> set[str]:
    return {ground.space.target(name)[1] for name in ground.space.params}


def _useless(ground: Ground, name: str) -> ConfigError | None:
    """A parameter of which this engine takes no value, nor may it be left unset; where it may, trials are pruned."""
    kind, target = ground.space.target(name)
    parameter = ground.space.params[name]
    values = [parameter.value(level) for level in range(min(parameter.levels or 1, 100))] if kind == "flag" else []
    refusals = [ground.foresight.refused_flag({target: value}) for value in values]
    said = next((refusal for refusal in refusals if refusal), None)
    if said is None or not all(refusals):
        return None
    fix = f"set space.params.{name} to null{f'; {said.fix}' if said.fix else ''}"
    return ConfigError(said.message, place=f"space.params.{name}", fix=fix)


class Preflight:
    """What is known after some trials.

    Args:
        ground: What was known before them.
        records: The trials, by number; relaunches at the end count as well.
    """

    def __init__(self, ground: Ground, records: Sequence[TrialRecord]) -> None:
        self.ground = ground
        self._records = records
        self._before: Preflight | None = None

    def after(self, records: Sequence[TrialRecord]) -> Self:
        """The same after some more trials; what it has learned from the first of them is not learned anew."""
        later = type(self)(self.ground, records)
        known = (later.version, later.hardware) == (self.version, self.hardware)
        if known and later._continues(self._records):
            later._before = self
            later.memory, later.lessons  # noqa: B018  # both are kept from here on
            later._before = None
        return later

    def _continues(self, records: Sequence[TrialRecord]) -> bool:
        pairs = zip(records, self._records, strict=False)
        return len(records) <= len(self._records) and all(_identity(one) == _identity(two) for one, two in pairs)

    def _fresh(self) -> range:
        """The records that nothing was learned from yet."""
        return range(len(self._before._records) if self._before else 0, len(self._records))

    @cached_property
    def version(self) -> str | None:
        """The engine's version: its own word counts."""
        said = (record.facts.engine_version for record in reversed(self._records) if record.facts)
        return next(filter(None, said), self.ground.version)

    @cached_property
    def hardware(self) -> Hardware:
        """The GPUs, with what the first start said of them: an engine's defaults may depend on their memory."""
        first = next((record.facts for record in self._records if record.facts and record.facts.total_gib), None)
        return self.ground.hardware.learned([first] if first else [])

    @cached_property
    def memory(self) -> MemoryModel:
        """The engine's memory model as the trials' own logs have corrected it."""
        starts = [start for number in self._fresh() if (start := self._start(number))]
        before = self._before.memory if self._before else self.ground.foresight.memory(self.version, self.hardware)
        return before.after(starts)

    def _start(self, index: int) -> ServerStart | None:
        """What one of the records tells of its start; ``None`` if nothing."""
        record = self._records[index]
        if record.facts is None:
            return None
        out_of_memory = record.failure is not None and record.failure.cause == Cause.CUDA_OOM and not self.busy(index)
        return ServerStart(self.ground.settings(Candidate(record.params)), record.facts, out_of_memory)

    @cached_property
    def _usual_free_gib(self) -> float | None:
        return usual_free_gib(record.facts for record in self._records if record.facts)

    @cached_property
    def lessons(self) -> tuple[Lesson, ...]:
        """What failed trials teach, in their order."""
        found = (self.lesson(number) for number in self._fresh())
        return (*(self._before.lessons if self._before else ()), *(each for each in found if each))

    def lesson(self, index: int) -> Lesson | None:
        """What one of the records teaches next to those before it; ``None`` if nothing."""
        record, earlier = self._records[index], [r.facts for r in self._records[:index] if r.facts]
        failed = _failed(record)
        excused = record.failure is not None and record.failure.error == GpuBusy.__name__
        if failed is None or excused or busy(failed, earlier):
            return None
        return lesson(failed, self.ground.space, self.ground.deployed, self.ground.foresight.names, earlier)

    def busy(self, index: int) -> GpuBusy | None:
        """What one of the records really died of, if others held the memory."""
        record, earlier = self._records[index], [r.facts for r in self._records[:index] if r.facts]
        failed = _failed(record)
        return None if failed is None else busy(failed, earlier)

    def fits(self, candidate: Candidate) -> bool:
        """Whether the best guess, margin or not, has room for it, as far as one can be made."""
        return self.memory.fits(self.ground.settings(candidate))

    def forecast(self, candidate: Candidate) -> Forecast | None:
        """The prediction as it is kept with the trial; ``None`` if none can be made."""
        return self.memory.forecast(self.ground.settings(candidate))

    def ceilings(self, candidate: Candidate) -> Ceilings | None:
        """What it allows at most, as it is kept with the trial; ``None`` where nobody says what is sent."""
        if (workload := self.ground.workload) is None:
            return None
        settings = self.ground.settings(candidate)
        return self.ground.foresight.ceilings(settings, self.version, self.hardware, workload)

    def check(self, candidate: Candidate) -> InfeasibleConfig | None:
        """The first reason not to launch a candidate; ``None`` if there is none."""
        settings = self.ground.settings(candidate)
        return self.refused(candidate) or self.memory.shortage(settings) or self._closed(settings)

    def refused(self, candidate: Candidate) -> InfeasibleConfig | None:
        """What is certain without any prediction: rules, flags, combinations, placements."""
        ground, settings = self.ground, self.ground.settings(candidate)
        return (
            ground.space.violated(candidate, ground.deployed)
            or ground.foresight.refused_flag(settings.args)
            or ground.foresight.refused(settings, self.version, self.hardware)
            or self._refused_requests(settings)
        )

    def _refused_requests(self, settings: Settings) -> RequestsRefused | None:
        """The first of the workload's requests that the server would refuse."""
        workload = self.ground.workload
        refusals = self.ground.foresight.refused_requests(workload, settings, self.version) if workload else ()
        first = next(iter(refusals), None)
        return None if first is None else RequestsRefused(first.message, cause=RequestsRefused.CAUSE, fix=first.fix)

    def _closed(self, settings: Settings) -> InfeasibleConfig | None:
        for known in self.lessons:
            if known.closes(settings, self._usual_free_gib):
                kind = LaunchRejected if known.refused else PredictedOutOfMemory
                return kind(f"known to fail: {known.sentence}", cause="lesson", line=str(known.region))
        return None


def _identity(record: TrialRecord) -> tuple[object, ...]:
    return record.number, record.role, record.attempt, record.started_at, record.failure


def _failed(record: TrialRecord) -> Failed | None:
    """A launch that failed; what was ruled out beforehand has shown nothing."""
    if not record.launched or record.failure is None or record.failure.cause not in list(Cause):
        return None
    return Failed(
        Candidate(record.params),
        Cause(record.failure.cause),
        record.failure.numbers,
        record.failure.line,
        record.facts or StartupFacts(),
    )
