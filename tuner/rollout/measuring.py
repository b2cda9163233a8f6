"""Measures a deployed service as its proof was measured: the same traffic, the same metrics, one launch's worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.bench.running import RunningServer, attached
from tuner.bench.view import ProgressListener
from tuner.composing import load, read
from tuner.config import Config
from tuner.engines.config import EngineConfig
from tuner.errors import ConfigError, TrialError
from tuner.export.origin import digest_of
from tuner.export.profile import Profile
from tuner.launchers.docker.composed import RunningService
from tuner.load.deciding import stage_of
from tuner.load.plan import ttft_stage
from tuner.load.workload import Workload
from tuner.objective import Objective, direction
from tuner.quality.cases import Quality
from tuner.records.folder import StudyFolder
from tuner.records.readings import numbers
from tuner.rollout.comparing import Deviation
from tuner.rollout.holding import Held, held, needed

_TRIES = 2


@dataclass(frozen=True, slots=True)
class ProofTraffic:
    """How the proof was measured.

    Attributes:
        workload: What was sent.
        engine: How the study spoke to its engine.
        digest: Of what is sent.
        proven: Of what was sent then.
        quality: What the study asked.
    """

    workload: Workload
    engine: EngineConfig
    digest: str
    proven: str
    quality: Quality = field(default_factory=Quality)

    @property
    def differs(self) -> bool:
        """Whether this is not the traffic of the proof."""
        return self.digest != self.proven

    @property
    def changed(self) -> tuple[Deviation, ...]:
        """The same, as a deviation."""
        return (Deviation(what="workload", proven=self.proven, now=self.digest),) if self.differs else ()


def traffic_of(profile: Profile, source: Path) -> ProofTraffic:
    """The traffic of a profile: as its study keeps it, next to the profile, else by its name.

    Raises:
        ConfigError: There is no such traffic any more.
    """
    config = _of_study(profile, source.parent) or _by_name(profile)
    now = digest_of(config.workload)
    proven = profile.study.workload_digest or now
    return ProofTraffic(config.workload, config.engine, now, proven, config.quality)


def _of_study(profile: Profile, folder: Path) -> Config | None:
    config = study_config(folder)
    return config if config and config.workload.name == profile.study.workload else None


def study_config(folder: Path) -> Config | None:
    """The study's own configuration, if its folder is where the profile is.

    Raises:
        ConfigError: It cannot be read.
    """
    path = StudyFolder(folder).config
    return read(path) if path.is_file() else None


def _by_name(profile: Profile) -> Config:
    choices = [f"workload={profile.study.workload}", f"engine={profile.engine.kind}", "quality=basic"]
    try:
        return load(["experiment=bench", *choices], None, {"launcher.url": "http://none", "model.id": profile.model})
    except ConfigError as error:
        fix = "name the study itself with --study: its folder has the traffic"
        said = f"the traffic that it was proven under ({profile.study.workload}) is not known here"
        raise ConfigError(said, fix=fix) from error


@dataclass(frozen=True, slots=True)
class Gauge:
    """Measures one running service against a profile.

    Attributes:
        profile: With its proof.
        traffic: How it was measured.
        kept_in: Where the measurements are kept.
        follower: Told of each phase, and of each stage's progress.
    """

    profile: Profile
    traffic: ProofTraffic
    kept_in: Path
    follower: ProgressListener

    def held(self, service: RunningService, model: str) -> tuple[Held, ...]:
        """Wait until it answers, warm it up, measure it, and once more where that is worse than its proof.

        Args:
            service: The service.
            model: The name that clients ask for.

        Raises:
            TrialError: It does not start, or cannot be measured.
        """
        config = self._config(service, model)
        with StudyFolder(config.study.path).locked(), attached(config, self.follower) as running:
            return self.read(replace(running, parts=replace(running.parts, launcher=service, model=model)))

    def read(self, running: RunningServer) -> tuple[Held, ...]:
        """Measure it, and once more where that is worse than its proof; whoever calls this holds the folder's lock.

        Raises:
            TrialError: It does not start, or cannot be measured.
        """
        read: list[Mapping[str, float]] = []
        while True:
            read.append(_numbers(running))
            found = held(self.profile, read)
            if all(each.holds for each in found) or len(read) == _TRIES:
                return found
            self.follower.note("worse than its proof: measured once more")

    def _config(self, service: RunningService, model: str) -> Config:
        place = [f"study.folder={self.kept_in.parent}", f"study.name={self.kept_in.name}"]
        config = load(["experiment=bench", *place], None, {"launcher.url": service.url, "model.id": model})
        return self.asking(config).model_copy(update={"engine": self.traffic.engine})

    def asking(self, config: Config) -> Config:
        """A configuration that measures what the proof rests on, and nothing else."""
        metrics = needed(self.profile)
        goals = {name: way for name in metrics if (way := direction(name))}
        objective = Objective(name=self.profile.study.objective, goals=goals)
        return config.model_copy(update={"workload": _brief(self.traffic.workload, metrics), "objective": objective})


def _brief(workload: Workload, metrics: Mapping[str, bool]) -> Workload:
    """The traffic without what no metric of the proof is read from."""
    lengths = [
        each for each in workload.ttft_prompt_tokens if any(stage_of(name) == ttft_stage(each) for name in metrics)
    ]
    tool_call = workload.tool_call and any(name.startswith("tool_call") for name in metrics)
    return workload.model_copy(update={"ttft_prompt_tokens": tuple(lengths), "tool_call": tool_call})


def _numbers(running: RunningServer) -> Mapping[str, float]:
    """What one measurement reads; one that was disturbed is repeated, unless the server never served."""
    for _ in range(_TRIES):
        record = running.measure().record
        if record.measurement is not None:
            return numbers(record.measurement)
        if record.warm_up is None:
            break
    failure = record.failure
    assert failure is not None
    raise TrialError(failure.message, cause=failure.cause, line=failure.line, fix=failure.advice)
