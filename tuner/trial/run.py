"""One trial, one straight line: pre-flight, launch, ready, warm up, measure, judge, record.

The only place where the steps meet. It knows no kinds of engine, launcher or objective.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from pydantic import JsonValue

from tuner import __version__
from tuner.engines.base import Command, Engine, Phase, StartupFacts
from tuner.engines.ceilings import Ceilings
from tuner.engines.effective import EffectiveSetting
from tuner.engines.forecast import Forecast
from tuner.engines.tolerance import Policy, Tolerance
from tuner.errors import InfeasibleConfig, LiveBroke, MeasurementError, TrialError
from tuner.host.limits import HostConfig, disturbance
from tuner.host.state import StageHost
from tuner.host.watch import watching
from tuner.launchers.base import Launcher, LaunchSpec, Server
from tuner.load.client import LoadClient
from tuner.load.deciding import Deciding
from tuner.load.metrics import Measurement, is_late, measure, pooled
from tuner.load.naming import SATURATION
from tuner.load.plan import Plan, Skipped, plan
from tuner.load.records import DisturbedStage, StageResult
from tuner.load.saturation import next_rate, rate_stage
from tuner.load.stage import Stage
from tuner.load.target import Target
from tuner.load.tokenizer import Wording, wording
from tuner.load.warmup import WarmUp, warm_up
from tuner.load.workload import Workload
from tuner.objective import Objective, Verdict
from tuner.proof.soak import Soaked, round_of
from tuner.quality.asking import Answers, answers
from tuner.quality.cases import Quality
from tuner.records.folder import TrialFolder
from tuner.records.record import Failure, ProofTerms, Role, Screened, State, TrialRecord
from tuner.search.base import Expectation
from tuner.space import Candidate, Settings
from tuner.trial.costs import with_costs
from tuner.trial.readiness import Probe, Stopwatch, Watch, wait_until_ready
from tuner.trial.screening import LiveServer, NotInForce, Screen, Screening, brief, loads, settling
from tuner.trial.soaking import busy, soaking

_AGAIN = 1 << 31
"""Added to the seed of what is measured once more, a multiple of it to that of a screened setting: its prompts are new
to the server."""


def never(measurement: Measurement) -> bool:
    """One measurement is enough."""
    return False


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one trial is to try.

    Attributes:
        study: Name of the study.
        number: The trial's number.
        role: Why it is run.
        candidate: The parameters.
        settings: All flags and variables of the configuration, the deployment's own included.
        seed: Seeds its prompts.
        ask_s: What the search took to propose it, in seconds.
        attempt: Which try this is, from 1.
        baseline: Trial 0, against which this one is judged; ``None`` for trial 0 itself.
        forecast: What was predicted of its memory.
        ceilings: What its configuration allows at most.
        refusal: What pre-flight has against it, so that nothing is launched.
        proof: Of which proof it is a relaunch.
        worth_again: Whether what was measured is to be measured once more before its server ends: a near miss.
        screening: What is measured in its running server besides.
        expected: What the search expects of it.
        questions: What it is asked after its load.
        soak_s: How long it is soaked at most after its load, in seconds of wall time; 0 for not at all.
    """

    study: str
    number: int
    role: Role
    candidate: Candidate
    settings: Settings
    seed: int
    ask_s: float = 0.0
    attempt: int = 1
    baseline: TrialRecord | None = None
    forecast: Forecast | None = None
    ceilings: Ceilings | None = None
    refusal: InfeasibleConfig | None = None
    proof: ProofTerms | None = None
    worth_again: Callable[[Measurement], bool] = never
    screening: Screening | None = None
    expected: Expectation | None = None
    questions: Quality | None = None
    soak_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every trial of a study uses.

    Attributes:
        engine: Speaks the engine's language.
        launcher: Brings servers up.
        client: Sends the load.
        workload: What is sent.
        objective: What it is worth.
        model: The name that clients ask for.
        limits_s: For each start-up phase the longest time without progress.
        gpus: The GPUs that a server may see.
        launch_args: Flags for our launches only; ``{trial}`` in them stands for the trial's name.
        launch_env: Environment variables for our launches only.
        stop_grace_s: How long a server may take to end.
        degradations: What the user says of silent degradations, by name.
        clock_scale: Simulated seconds per second; 1 for a real engine.
        proves_itself: Whether a server can be given a name by which it proves that it is the one we launched.
        host: When a stage counts as disturbed by the rest of the machine.
        watched_gpus: The GPUs whose state is recorded: also those of a server that we did not launch.
        price_per_hour: What the machine costs.
    """

    engine: Engine
    launcher: Launcher
    client: LoadClient
    workload: Workload
    objective: Objective
    model: str
    limits_s: Mapping[Phase, float]
    gpus: tuple[int, ...] = ()
    launch_args: Mapping[str, JsonValue] = field(default_factory=dict)
    launch_env: Mapping[str, str] = field(default_factory=dict)
    stop_grace_s: float = 10.0
    degradations: Mapping[str, Policy] = field(default_factory=dict)
    clock_scale: float = 1.0
    proves_itself: bool = True
    host: HostConfig = field(default_factory=HostConfig)
    watched_gpus: tuple[int, ...] = ()
    price_per_hour: float | None = None


def run_trial(
    assignment: Assignment, bench: Workbench, folder: TrialFolder, on_phase: Callable[[Phase], None]
) -> TrialRecord:
    """Run one trial; its failure is a result, and its record is on disk when this returns.

    Only what is no verdict on a trial passes through: a bug of ours, or the user's Ctrl-C.
    """
    folder.begin()
    trial = _Trial(assignment, bench, folder, Stopwatch(on_phase))
    with trial.failures_noted():
        trial.run()
    record = trial.record()
    folder.save(record)
    return record


@dataclass
class _Trial:
    """A trial on its way; what it has found so far becomes the record, whatever happens."""

    assignment: Assignment
    bench: Workbench
    folder: TrialFolder
    stopwatch: Stopwatch
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    alias: str = field(default_factory=lambda: f"tuner-{uuid4().hex[:12]}")
    facts: StartupFacts | None = None
    effective: tuple[EffectiveSetting, ...] = ()
    wording: Wording | None = None
    warm_up: WarmUp | None = None
    skipped: tuple[Skipped, ...] = ()
    spoiled: tuple[DisturbedStage, ...] = ()
    host: tuple[StageHost, ...] = ()
    measurement: Measurement | None = None
    verdict: Verdict | None = None
    failure: Failure | None = None
    state: State = State.COMPLETE
    results: tuple[StageResult, ...] = ()
    screened: tuple[Screened, ...] = ()
    unscreened: str = ""
    answers: Answers | None = None
    soak: Soaked | None = None

    def run(self) -> None:
        """The line itself."""
        if self.assignment.refusal:
            raise self.assignment.refusal
        with self._shared(), self.bench.launcher.launch(self.spec) as server, self._stopping(server):
            watch = Watch(server, self.bench.engine, self.stopwatch, self._tolerance)
            probe = self._probe(server)
            told = wait_until_ready(watch, probe, self.bench.limits_s)
            self.facts = self.bench.engine.facts(server.log.lines)
            self._tolerance.check(self.facts.degradations)
            witness = probe.witness(server.log.lines)
            self.effective = self.bench.engine.effective(self.assignment.settings, witness)
            context_tokens = told or self.bench.engine.context_tokens(witness)
            self._warm_up(server, watch, context_tokens)
            self._measure(server, watch, context_tokens)
            assert self.measurement is not None
            self.verdict = self._judged(self.measurement)
            self._screen(server, watch, context_tokens)
            self._ask(server, watch)
            self._soak(server, watch, context_tokens)

    def _judged(self, measurement: Measurement) -> Verdict:
        baseline = self.assignment.baseline and self.assignment.baseline.measurement
        return self.bench.objective.judge(measurement, baseline or measurement)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """The folder over which settings are changed, while there is a server to change them in."""
        if self.assignment.screening is None:
            yield
            return
        self._folder.mkdir(exist_ok=True)
        self.assignment.screening.live.prepare(self._folder)
        try:
            yield
        finally:
            rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self.folder.path / "live"

    def _screen(self, server: Server, watch: Watch, context: int | None) -> None:
        """What else its running server can show; whatever goes wrong there, its own measurement stands."""
        if self.assignment.screening is None:
            return
        self.stopwatch.enter(Phase.SCREENING)
        live = LiveServer(self.assignment.screening.live, self._folder, watch, self._probe(server))
        load = brief(self.bench.workload)
        try:
            for number, screen in enumerate(self.assignment.screening.screens, 1):
                planned = self._plan(context, self.assignment.seed + number * _AGAIN, load)
                with self._unmeasured_noted():
                    self.screened += (self._screened(live, server, screen, planned),)
        except TrialError as error:
            self.unscreened = error.message

    @contextmanager
    def _unmeasured_noted(self) -> Iterator[None]:
        """A setting that has no numbers is left out; one that is not in force ends the screening."""
        try:
            yield
        except NotInForce:
            raise
        except MeasurementError as error:
            self.unscreened = error.message

    def _screened(self, live: LiveServer, server: Server, screen: Screen, planned: Plan) -> Screened:
        """One setting: changed, a load that does not count, and those that decide."""
        begun_s = time.monotonic()
        live.change(screen.setting)
        with live.watch.explaining():
            for stage in settling(planned):
                self.bench.client.run(stage, self._target(server), live.watch.check)
        which, before = f", live {live.changes}", len(self.spoiled)
        results = self._send(server, live.watch, list(loads(planned, self.bench.objective.deciding)), which)
        results += self._saturate(server, live.watch, results, self.assignment.seed + live.changes * _AGAIN, which)
        self.results += tuple(result.renamed(f"{result.stage}{which}") for result in results)
        self.folder.save_requests(self.results)
        self.spoiled, disturbed = self.spoiled[:before], self.spoiled[before:]  # the trial's own are others
        measurement = self._numbers(results)
        return Screened(
            digest=screen.candidate.digest,
            params=dict(screen.candidate.params),
            setting=dict(screen.setting),
            seconds=time.monotonic() - begun_s,
            measurement=measurement,
            verdict=self._judged(measurement),
            disturbed=disturbed,
            doubt=live.live.doubt(screen.setting, self.assignment.settings.args),
        )

    def _numbers(self, results: tuple[StageResult, ...]) -> Measurement:
        """The numbers of the stages that were sent last."""
        measured = measure(results, self.bench.workload, self.bench.clock_scale, self.bench.objective.deciding)
        return with_costs(measured, results, self.host[-len(results) :], self.bench.price_per_hour)

    def _ask(self, server: Server, watch: Watch) -> None:
        """Whether its answers are right; a server that dies of the questions has died."""
        questions = self.assignment.questions
        if questions is None:
            return
        self.stopwatch.enter(Phase.ASKING)
        asks, target = questions.asks(), self._target(server)
        completions = answers(asks, target, questions.concurrency, lambda answered: watch.check())
        if any(each.error for each in completions):
            watch.linger()
        self.answers = Answers(questions=questions.digest, completions=completions)

    def _soak(self, server: Server, watch: Watch, context: int | None) -> None:
        """Load after load until enough has gone through its KV cache, or its time is over."""
        if not self.assignment.soak_s:
            return
        self.stopwatch.enter(Phase.SOAKING)
        load, begun_s = soaking(self.bench.workload, self._soak_s), time.monotonic()
        self.soak = Soaked(kv_tokens=self._kv_tokens, allowed=load.max_failed_share)
        while time.monotonic() - begun_s < self.assignment.soak_s and not self.soak.enough:
            number = len(self.soak.rounds) + 1
            planned = self._plan(context, self.assignment.seed + number * _AGAIN, load, Deciding())
            if not self._soak_once(server, watch, list(busy(planned)), number, begun_s):
                break

    @property
    def _soak_s(self) -> float:
        """In the engine's own seconds."""
        return self.assignment.soak_s * self.bench.clock_scale

    def _soak_once(self, server: Server, watch: Watch, stages: Sequence[Stage], number: int, begun_s: float) -> bool:
        """One round; whether it got to its end, which too many failed requests keep it from."""
        assert self.soak is not None
        scale, before, round_s = self.bench.clock_scale, self.spoiled, time.monotonic()
        results = self._send(server, watch, stages, f", soak {number}")
        took_s = time.monotonic() - round_s
        self.spoiled = before  # nothing that the proof rests on
        self.results += tuple(result.renamed(f"{result.stage}, soak {number}") for result in results)
        self.folder.save_requests(self.results)
        found = round_of(results, (round_s - begun_s) * scale, took_s * scale, scale)
        self.soak = self.soak.model_copy(update={"rounds": (*self.soak.rounds, found)})
        return bool(results) and not any(result.aborted for result in results)

    def _measured(self, results: tuple[StageResult, ...]) -> Measurement:
        """The load's numbers, and those of the start."""
        measured = self._numbers(results)
        room = {"kv_requests": self._kv_tokens / sum(self.bench.workload.typical)} if self._kv_tokens else {}
        update = {"kv_tokens": self._kv_tokens, "startup_s": self._startup_s, "named": {**measured.named, **room}}
        return measured.model_copy(update=update)

    @property
    def _startup_s(self) -> float | None:
        """Wall time until the server had answered; it is not ours to know where we did not launch it."""
        if not self.bench.proves_itself:
            return None
        spans = takewhile(lambda span: span.phase is not Phase.WARMING_UP, self.stopwatch.spans())
        return sum(span.seconds for span in spans)

    def _warm_up(self, server: Server, watch: Watch, context: int | None) -> None:
        self.stopwatch.enter(Phase.WARMING_UP)
        with watch.explaining():
            self.wording = wording(self.bench.workload.prompts, self._target(server), watch.check)
            self.warm_up = warm_up(
                self.bench.client,
                self._target(server),
                self.bench.workload,
                context_tokens=context,
                kv_tokens=self._kv_tokens,
                seed=self.assignment.seed,
                watch=watch.check,
                spoiled=watch.spoiled,
                prompts=self.wording.prompts,
            )

    def _measure(self, server: Server, watch: Watch, context: int | None) -> None:
        """All stages; those that decide once more, on new prompts, where the first reading is a near miss."""
        self.stopwatch.enter(Phase.MEASURING)
        planned = self._plan(context, self.assignment.seed)
        self.skipped = planned.skipped
        self.results = self._send(server, watch, planned.stages)
        self.results += self._saturate(server, watch, self.results, self.assignment.seed)
        self.folder.save_requests(self.results)
        self.measurement = self._measured(self.results)
        if not self.assignment.worth_again(self.measurement):
            return
        lasting = [stage for stage in self._plan(context, self.assignment.seed + _AGAIN).stages if stage.rule]
        again = self._send(server, watch, lasting, ", again")
        self.results += tuple(result.renamed(f"{result.stage}, again") for result in again)
        self.folder.save_requests(self.results)
        self.measurement = pooled(self.measurement, self._measured(again))

    def _saturate(
        self, server: Server, watch: Watch, sent: tuple[StageResult, ...], seed: int, which: str = ""
    ) -> tuple[StageResult, ...]:
        """Search for the highest rate that is sustained, where it decides."""
        assert self.warm_up is not None
        bench, found = self.bench, tuple[StageResult, ...]()
        if SATURATION not in bench.objective.deciding.names:
            return found
        begin = measure(sent, bench.workload, bench.clock_scale).requests_per_s
        while rate := next_rate(found, bench.workload, begin, bench.clock_scale):
            stage = rate_stage(
                bench.workload,
                rate,
                seed=f"{seed}",
                calibration=self.warm_up.calibration,
                clock_scale=bench.clock_scale,
                held_out=self.assignment.proof is not None,
            )
            found += self._send(server, watch, [stage], which)
            if is_late(found[-1], bench.workload):
                break
        return found

    def _plan(
        self, context: int | None, seed: int, workload: Workload | None = None, deciding: Deciding | None = None
    ) -> Plan:
        assert self.warm_up is not None
        return plan(
            workload or self.bench.workload,
            seed=seed,
            context_tokens=context,
            kv_tokens=self._kv_tokens,
            calibration=self.warm_up.calibration,
            clock_scale=self.bench.clock_scale,
            deciding=self.bench.objective.deciding if deciding is None else deciding,
            held_out=self.assignment.proof is not None,
        )

    def _send(self, server: Server, watch: Watch, stages: Sequence[Stage], which: str = "") -> tuple[StageResult, ...]:
        """Run stages, with the state of the host in each; ``which`` tells those of one name apart."""
        with watch.explaining(), watching(server.pids, self.bench.watched_gpus, self.bench.host) as host:
            results = self.bench.client.run_all(
                stages, self._target(server), watch.check, lambda: watch.spoiled() or host.disturbed(), host.turn
            )
        self.host += tuple(
            StageHost(f"{result.stage}{which}", state) for result, state in zip(results, host.states, strict=True)
        )
        self.spoiled += tuple(
            DisturbedStage(
                f"{r.stage}{which}", r.spoiled, not r.superseded, r.spoiled == disturbance(state, self.bench.host)
            )
            for r, state in zip(results, host.states, strict=True)
            if r.spoiled
        )
        if any(record.failed for result in results for record in result.records):
            watch.linger()
        return results

    def _target(self, server: Server) -> Target:
        return Target(server.url, server.headers, self.bench.model, self.wording.counts if self.wording else ())

    @property
    def _kv_tokens(self) -> int | None:
        return self.facts.kv_tokens if self.facts else None

    @property
    def _tolerance(self) -> Tolerance:
        """What the baseline silently degrades in is accepted; the baseline itself may show anything."""
        baseline = self.assignment.baseline
        shown = baseline.facts.degradations if baseline and baseline.facts else ()
        accepted = frozenset(each.name for each in shown) if baseline else None
        return Tolerance(self.bench.degradations, accepted, self.bench.engine.fallbacks)

    @cached_property
    def command(self) -> Command:
        """How the server is started."""
        env = {name: value for name, value in self.assignment.settings.env.items() if value is not None}
        live = self.assignment.screening and self.assignment.screening.live
        return self.bench.engine.command(
            {**self.assignment.settings.args, **self._launch_args, **(live.args if live else {})},
            {**self.bench.launch_env, **env, **(live.env("{folder}") if live else {})},
            self.alias if self.bench.proves_itself else None,
        )

    @property
    def _launch_args(self) -> dict[str, JsonValue]:
        """Flags for our launches only; ``{trial}`` in them stands for the trial's name."""
        args = self.bench.launch_args.items()
        return {name: arg.replace("{trial}", self.name) if isinstance(arg, str) else arg for name, arg in args}

    @property
    def name(self) -> str:
        """Names the launch: ``demo/trials/0003``."""
        return f"{self.assignment.study}/{self.folder.path.parent.name}/{self.folder.path.name}"

    @property
    def spec(self) -> LaunchSpec:
        """What the launcher is told."""
        return LaunchSpec(
            name=self.name,
            argv=self.command.argv,
            env=self.command.env,
            log_path=self.folder.log,
            gpus=self.bench.gpus,
            stop_grace_s=self.bench.stop_grace_s,
            folder=self._folder if self.assignment.screening else None,
        )

    def _probe(self, server: Server) -> Probe:
        alias = self.alias if self.bench.proves_itself else None
        endpoint = self.bench.workload.endpoint
        return Probe(server.url, self.bench.model, server.headers, alias, self.bench.engine.info_path, endpoint)

    @contextmanager
    def _stopping(self, server: Server) -> Iterator[None]:
        """From the end of this block until the launcher's has been left, the server is being ended.

        A failed start says something of its memory as well.
        """
        try:
            yield
        except TrialError as error:
            if self.assignment.screening and self.assignment.screening.live.broke(server.log.lines):
                raise LiveBroke(error.message, cause=LiveBroke.CAUSE, line=error.line) from error
            raise
        finally:
            self.facts = self.facts or self.bench.engine.facts(server.log.lines)
            self.stopwatch.enter(Phase.STOPPING)

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        """A trial that fails is a trial with a failure."""
        try:
            yield
        except TrialError as error:
            self.state = State.PRUNED if isinstance(error, InfeasibleConfig) else State.FAILED
            self.failure = Failure.of(error)

    def record(self) -> TrialRecord:
        """What is kept of it."""
        return TrialRecord(
            tuner_version=__version__,
            study=self.assignment.study,
            number=self.assignment.number,
            attempt=self.assignment.attempt,
            role=self.assignment.role,
            seed=self.assignment.seed,
            ask_s=self.assignment.ask_s,
            digest=self.assignment.candidate.digest,
            params=dict(self.assignment.candidate.params),
            argv=self.command.argv,
            env=dict(self.command.env),
            started_at=self.started_at,
            state=self.state,
            launched=self.assignment.refusal is None,
            forecast=self.assignment.forecast,
            ceilings=self.assignment.ceilings,
            phases=() if self.assignment.refusal else self.stopwatch.spans(),
            facts=self.facts,
            effective=self.effective,
            warm_up=self.warm_up,
            skipped=self.skipped,
            spoiled=self.spoiled,
            host=self.host,
            measurement=self.measurement,
            verdict=self.verdict,
            failure=self.failure,
            screened=self.screened,
            unscreened=self.unscreened,
            answers=self.answers,
            soak=self.soak,
            expected=self.assignment.expected,
            proof=self.assignment.proof,
        )
