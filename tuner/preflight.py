"""What can be known before a launch: rules, flags, combinations, placements, predicted memory, earlier failures.

In that order, and the first objection counts: each names what a person can do. Nothing here starts a server, and what
is known grows with every trial, so that the same records always give the same answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from tuner.config import Config
from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.platform_signs import advise
from tuner.engines.vllm import combinations, help
from tuner.engines.vllm.architecture import Architecture, find
from tuner.engines.vllm.calibration import Calibration, Prediction, Start
from tuner.engines.vllm.combinations import Launch
from tuner.engines.vllm.demand import Demand, demand_of, release
from tuner.engines.vllm.engine import VllmEngine
from tuner.engines.vllm.flags import unknown_flags
from tuner.engines.vllm.help import KnownFlags
from tuner.engines.vllm.memory import Shortage, Terms
from tuner.engines.vllm.requests import refused_requests
from tuner.errors import (
    ConfigError,
    GpuBusy,
    InfeasibleConfig,
    LaunchRejected,
    PredictedOutOfMemory,
    RequestsRefused,
)
from tuner.forecast import Forecast
from tuner.hardware import Hardware, hardware_of
from tuner.launchers.leases import state_dir
from tuner.lessons import KV_BYTES, Failed, Lesson, busy, lesson, usual_free_gib
from tuner.load.workload import Workload
from tuner.space import Candidate, SearchSpace, Settings
from tuner.storage import TrialRecord

_FIXES: Mapping[Cause, str] = {
    Cause.INSUFFICIENT_FREE_MEMORY: "end what else holds memory on the GPU{or_less}",
    Cause.NO_KV_CACHE: "raise {share}, or lower max_num_batched_tokens or max_num_seqs",
    Cause.CONTEXT_EXCEEDS_KV_CACHE: "raise {share}, or lower max_model_len",
    Cause.CUDA_OOM: "lower max_num_seqs or max_num_batched_tokens, or spread over more GPUs",
}


@dataclass(frozen=True)
class Ground:
    """What is known of a study before its first trial.

    Attributes:
        space: What may be tried.
        deployed: The deployment's settings.
        engine: Makes command lines.
        hardware: The GPUs.
        model: The model; ``None`` where nothing on this disk tells.
        flags: What the engine's command line takes; ``None`` where nobody knows.
        version: Of the engine; ``None`` until its first log names it.
        workload: What will be sent; ``None`` where nobody says.
    """

    space: SearchSpace
    deployed: Settings
    engine: VllmEngine
    hardware: Hardware
    model: Architecture | None
    flags: KnownFlags | None
    version: str | None
    workload: Workload | None = None

    def settings(self, candidate: Candidate) -> Settings:
        """The whole configuration of a candidate."""
        return self.deployed.merged(self.space.settings(candidate))


def ground_of(config: Config, engine: VllmEngine, flags: KnownFlags | None = None) -> Ground:
    """What is known of a study before its first trial.

    It asks the driver for the GPUs and the engine for its flags, which takes half a minute the first time.

    Args:
        config: The study.
        engine: The engine as the launcher starts it.
        flags: The flags, where the caller has asked for them inside an image.
    """
    version, on_this_host = config.engine.version, config.launcher.engine_here
    if flags is None and (on_this_host or version is not None):
        flags = known_flags(engine.executable, version, state_dir() / "flags")
    model, hardware = (
        find(config.launcher.model_here(config.model.id), config.launcher.cache_here(config)),
        hardware_of(config.hardware),
    )
    return Ground(config.space, config.model.settings, engine, hardware, model, flags, version, config.workload)


def known_flags(executable: Sequence[str], version: str | None, folder: Path) -> KnownFlags | None:
    """What a command line takes: as configured, else as the executable itself says."""
    if version is not None:
        return help.of_version(version)
    return help.of_executable(executable, folder)


def impossible(ground: Ground) -> ConfigError | None:
    """A mistake that no trial outlives: a deployed flag that this engine does not have, or a parameter without use."""
    for name, value in ground.deployed.args.items():
        if value is not None and name not in _targets(ground) and (said := _refused_flag(ground, {name: value})):
            return ConfigError(said.message, place=f"model.args.{name}", fix=said.fix)
    for name in ground.space.params:
        if error := _useless(ground, name):
            return error
    return _unserved(ground)


def _unserved(ground: Ground) -> ConfigError | None:
    """What the deployment would refuse of the workload's own requests, where no parameter changes that."""
    settings = ground.settings(ground.space.deployed(ground.deployed))
    for refusal in refused_requests(ground.workload, settings, ground.model) if ground.workload else ():
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
    refusals = [_refused_flag(ground, {target: value}) for value in values]
    said = next((refusal for refusal in refusals if refusal), None)
    if said is None or not all(refusals):
        return None
    fix = f"set space.params.{name} to null{f'; {said.fix}' if said.fix else ''}"
    return ConfigError(said.message, place=f"space.params.{name}", fix=fix)


def _refused_flag(ground: Ground, args: Mapping[str, JsonValue]) -> LaunchRejected | None:
    """The first flag in a command line of these settings that the engine does not have, or whose value it refuses."""
    if ground.flags is None:
        return None
    argv = ground.engine.command(args, {}, None).argv[len(ground.engine.executable) :]
    for unknown in unknown_flags(argv, ground.flags.flags):
        message = f"{unknown.flag} is not known to this vLLM ({ground.flags.source})"
        fix = f"instead: {unknown.instead}" if unknown.instead else f"drop {unknown.flag}"
        return LaunchRejected(
            message, cause=Cause.BAD_FLAG.value, line=f"unrecognized arguments: {unknown.flag}", fix=fix
        )
    return next(filter(None, (_refused_value(ground.flags, *pair) for pair in args.items())), None)


def _refused_value(flags: KnownFlags, name: str, value: JsonValue) -> LaunchRejected | None:
    flag = f"--{name.replace('_', '-')}"
    valid = flags.choices.get(flag)
    if value is None or not valid or isinstance(value, bool | list | dict) or str(value) in valid:
        return None
    message = f"{flag} {value} is not among the values that this vLLM takes ({flags.source})"
    return LaunchRejected(message, cause=Cause.BAD_FLAG.value, line=flag, fix=f"choose one of: {', '.join(valid)}")


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
        self._predictions: dict[str, Prediction] = {}

    def after(self, records: Sequence[TrialRecord]) -> Self:
        """The same after some more trials; what it has learned from the first of them is not learned anew."""
        later = type(self)(self.ground, records)
        known = (later.version, later.hardware) == (self.version, self.hardware)
        if known and later._continues(self._records):
            later._before = self
            later.calibration, later.lessons  # noqa: B018  # both are kept from here on
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
        """The GPUs, with what the first start said of them: vLLM's defaults depend on their memory."""
        first = next((record.facts for record in self._records if record.facts and record.facts.total_gib), None)
        return self.ground.hardware.learned([first] if first else [])

    @cached_property
    def calibration(self) -> Calibration:
        """The memory model as the trials' own logs have corrected it."""
        starts = [start for number in self._fresh() if (start := self._start(number))]
        if self._before:
            return self._before.calibration.after(starts)
        return Calibration(self.ground.model, self.ground.hardware, starts)

    def _start(self, index: int) -> Start | None:
        """What one of the records tells of its start; ``None`` if nothing."""
        record = self._records[index]
        if record.facts is None:
            return None
        out_of_memory = record.failure is not None and record.failure.cause == Cause.CUDA_OOM and not self.busy(index)
        return Start(self._demand(Candidate(record.params)), record.facts, out_of_memory)

    @cached_property
    def _usual_free_gib(self) -> float | None:
        return usual_free_gib(record.facts for record in self._records if record.facts)

    @cached_property
    def lessons(self) -> tuple[Lesson, ...]:
        """What failed trials teach, in their order."""
        found = (self.lesson(number) for number in self._fresh())
        return (*(self._before.lessons if self._before else ()), *(each for each in found if each))

    def lesson(self, index: int) -> Lesson | None:
        """What one of the records teaches beside those before it; ``None`` if nothing."""
        record, earlier = self._records[index], [r.facts for r in self._records[:index] if r.facts]
        failed = _failed(record)
        excused = record.failure is not None and record.failure.error == GpuBusy.__name__
        if failed is None or excused or busy(failed, earlier):
            return None
        return lesson(failed, self.ground.space, self.ground.deployed, earlier)

    def busy(self, index: int) -> GpuBusy | None:
        """What one of the records really died of, if others held the memory."""
        record, earlier = self._records[index], [r.facts for r in self._records[:index] if r.facts]
        failed = _failed(record)
        return None if failed is None else busy(failed, earlier)

    def predict(self, candidate: Candidate) -> Prediction:
        """What the candidate's server would take of the GPUs."""
        if candidate.digest not in self._predictions:
            self._predictions[candidate.digest] = self.calibration.predict(self._demand(candidate))
        return self._predictions[candidate.digest]

    def fits(self, candidate: Candidate) -> bool:
        """Whether the best guess, margin or not, has room for it, as far as one can be made."""
        terms = self.predict(candidate).terms
        return terms is None or terms.shortage is None

    def forecast(self, candidate: Candidate) -> Forecast:
        """The prediction as it is kept with the trial."""
        prediction = self.predict(candidate)
        terms, shortage = prediction.terms, prediction.ruled_out
        if terms is None:
            return Forecast(starts=prediction.starts, shortage=shortage and shortage.allocation)
        told = {name: value for name, value in asdict(terms).items() if name in Forecast.model_fields}
        shortage = shortage or terms.shortage
        told |= {"shortage": shortage and shortage.allocation}
        return Forecast(starts=prediction.starts, margin_gib=prediction.margin_gib, **told)

    def check(self, candidate: Candidate) -> InfeasibleConfig | None:
        """The first reason not to launch a candidate; ``None`` if there is none."""
        return self.refused(candidate) or self._out_of_memory(candidate) or self._closed(candidate)

    def refused(self, candidate: Candidate) -> InfeasibleConfig | None:
        """What is certain without any prediction: rules, flags, combinations, placements."""
        ground, settings = self.ground, self.ground.settings(candidate)
        return (
            ground.space.violated(candidate, ground.deployed)
            or _refused_flag(ground, settings.args)
            or combinations.refused(Launch(settings, self._demand(candidate), ground.model, ground.hardware))
            or self._refused_requests(settings)
        )

    def _refused_requests(self, settings: Settings) -> RequestsRefused | None:
        """The first of the workload's requests that the server would refuse."""
        workload = self.ground.workload
        refusals = refused_requests(workload, settings, self.ground.model) if workload else ()
        first = next(iter(refusals), None)
        return None if first is None else RequestsRefused(first.message, cause=RequestsRefused.CAUSE, fix=first.fix)

    def _demand(self, candidate: Candidate) -> Demand:
        version = release(self.version)
        return demand_of(self.ground.settings(candidate), self.hardware, version, self.ground.model)

    def _out_of_memory(self, candidate: Candidate) -> PredictedOutOfMemory | None:
        prediction = self.predict(candidate)
        fixed_cache = self.ground.settings(candidate).args.get(KV_BYTES) is not None
        return None if prediction.ruled_out is None else _error(prediction, prediction.ruled_out, fixed_cache)

    def _closed(self, candidate: Candidate) -> InfeasibleConfig | None:
        settings = self.ground.settings(candidate)
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


def _error(prediction: Prediction, shortage: Shortage, fixed_cache: bool) -> PredictedOutOfMemory:
    """What is missing, and by how much more than the prediction may be wrong."""
    message = f"{shortage.allocation} would need {shortage.needed_gib:.2f} GiB of {shortage.available_gib:.2f}"
    if prediction.margin_gib is not None and shortage.cause is not Cause.INSUFFICIENT_FREE_MEMORY:
        message += f", with {prediction.margin_gib:.2f} GiB of margin in its favour"
    if prediction.starts:
        message += f" (learned from {prediction.starts} starts)"
    numbers = {"needed_gib": shortage.needed_gib, "available_gib": shortage.available_gib}
    if prediction.margin_gib is not None:
        numbers["margin_gib"] = prediction.margin_gib
    return PredictedOutOfMemory(
        message,
        cause=shortage.cause.value,
        numbers={**numbers, **_numbers(prediction.terms)},
        fix=advise(_FIXES[shortage.cause], fixed_cache=fixed_cache),
    )


def _numbers(terms: Terms | None) -> Mapping[str, float]:
    """The terms by name, for the record."""
    if terms is None:
        return {}
    named = {
        "weights_gib": terms.weights_gib,
        "activation_gib": terms.activation_gib,
        "non_torch_gib": terms.non_torch_gib,
        "graph_gib": terms.graph_gib,
        "kv_gib": terms.kv_gib,
        "kv_tokens": terms.kv_tokens,
    }
    return {name: float(value) for name, value in named.items() if value is not None}
