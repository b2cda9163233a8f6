"""A study's launches in no time: the simulated engine's lines, clock, compile cache and scheduler, no process."""

from dataclasses import replace

from tests.engines.vllm.world import written
from tests.simulated import served_load
from tuner import __version__
from tuner.engines.base import Phase
from tuner.engines.causes import Evidence, error_of
from tuner.load.metrics import measure
from tuner.objective import metric
from tuner.premises import make_engine
from tuner.records.record import Failure, PhaseSpan, State, TrialRecord
from tuner.sim import backends, flags, startup
from tuner.sim.compile_cache import CompileCache
from tuner.sim.events import Bar, Compiled, Pause
from tuner.sim.memory import StartupFailure
from tuner.sim.noise import QUIET, Noise
from tuner.sim.settings import Rejected, Site, resolve

WARM_UP_S, STOP_S = 25.0, 3.0


class Machine:
    """The GPUs of one study, whose compile cache fills as it goes on.

    Args:
        asked: The study's configuration, on simulated hardware.
    """

    def __init__(self, asked):
        self.asked = asked
        simulated = asked.hardware.simulated
        self.site = Site.of(simulated["gpu"], simulated["count"], simulated["version"])
        self.engine = make_engine(asked)
        self.compiled = set()
        self.baseline = None

    def record(self, number, proposal):
        """The trial of a proposal as a study records it; one that is refused is not launched."""
        candidate = proposal.candidate
        settings = self.asked.model.settings.merged(self.asked.space.settings(candidate))
        command = self.engine.command(settings.args, {k: v for k, v in settings.env.items() if v is not None}, None)
        trial = TrialRecord(
            tuner_version=__version__,
            study=self.asked.study.name,
            number=number,
            role=proposal.role,
            seed=number,
            digest=candidate.digest,
            params=dict(candidate.params),
            argv=command.argv,
            env=dict(command.env),
            started_at="2026-11-22T09:00:00+00:00",
            state=State.COMPLETE,
            launched=proposal.refusal is None,
            forecast=proposal.forecast,
        )
        return _failed(trial, proposal.refusal) if proposal.refusal else self._launched(trial)

    def _launched(self, trial):
        try:
            settings, events = self._start(trial)
        except Rejected as rejected:
            settings, events = None, tuple(startup.rejection(self.site, rejected, None))
        lines = written((*startup.banner(self.site, self.asked.model.id, {}), *events))
        seconds = sum(event.seconds for event in events if isinstance(event, Pause | Bar))
        known = {"facts": self.engine.facts(lines), "phases": (PhaseSpan(Phase.STARTING, seconds),)}
        started = trial.model_copy(update=known)
        if settings is None or isinstance(backends.outcome(settings), StartupFailure):
            diagnosis = self.engine.diagnose(Evidence(lines, exit_code=1))
            return _failed(started, error_of(diagnosis, diagnosis.line or lines[-1]))
        return self._measured(started, settings)

    def _start(self, trial):
        """What the engine runs with, and all that happens until it answers or dies."""
        settings = self._settings(trial)
        cache = CompileCache(None, settings, trial.env)
        settings = replace(settings, warm=cache.key in self.compiled)
        events = tuple(startup.script(startup.Launch(settings, backends.outcome(settings), cache, "127.0.0.1", 1)))
        if any(isinstance(event, Compiled) for event in events):
            self.compiled.add(cache.key)
        return settings, events

    def _settings(self, trial):
        model = self.asked.model.id
        words = trial.argv[len(self.engine.executable) + 1 : -4]
        return resolve(model, flags.parse(self.site.version, [model, *words]), trial.env, self.site)

    def _measured(self, trial, settings):
        launch = f"{self.asked.study.seed}/{trial.number}"
        measured, seconds = self._measurement(settings, launch, Noise())
        self.baseline = self.baseline or measured
        spans = (PhaseSpan(Phase.WARMING_UP, WARM_UP_S), PhaseSpan(Phase.MEASURING, seconds))
        phases = (*trial.phases, *spans, PhaseSpan(Phase.STOPPING, STOP_S))
        verdict = self.asked.objective.judge(measured, self.baseline)
        return trial.model_copy(update={"phases": phases, "measurement": measured, "verdict": verdict})

    def _measurement(self, settings, launch, noise):
        _, results = served_load(self.asked.workload, settings, launch, noise)
        return measure(results, self.asked.workload), sum(result.wall_ms for result in results) / 1000

    def worth(self, trial):
        """What a trial's configuration is worth without any noise."""
        measured, _ = self._measurement(self._settings(trial), "quiet", QUIET)
        return metric(measured, next(iter(self.asked.objective.goals)))


def _failed(trial, error):
    return trial.model_copy(update={"state": State.PRUNED, "failure": Failure.of(error)})
