"""Whole studies in seconds: records as a study writes them, measured by the simulated scheduler instead of a server."""

import random
from datetime import UTC, datetime, timedelta

from tests.sim.offline import Job, measure
from tuner import __version__, composing
from tuner.engines.base import Phase, StartupFacts
from tuner.engines.causes import Evidence, error_of
from tuner.errors import TrialError
from tuner.load.metrics import measure as measurement_of
from tuner.load.naming import CONCURRENT, SINGLE_USER
from tuner.load.plan import ttft_stage
from tuner.load.records import RequestRecord, StageResult
from tuner.load.stage import Request
from tuner.premises import make_engine
from tuner.records.compare import proof_of
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Failure, PhaseSpan, Role, State, TrialRecord
from tuner.search.base import anything
from tuner.sim import flags
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.noise import Noise
from tuner.sim.settings import Rejected, Site, resolve
from tuner.study.minimal import without_passengers

_NOISE = Noise()
_BEGUN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def simulated_study(folder, trials, *overrides, seed=0, proven=True, noise=_NOISE):
    """A finished study of the demo's deployment on so many candidates at random, its winner launched again.

    Args:
        folder: Where studies lie.
        trials: Of the search.
        overrides: Of the configuration.
        seed: Draws the candidates.
        proven: Whether the proof is made as well.
        noise: Of the simulated machine.

    Returns:
        Its ``Outcome``; the folder holds all that a real study's folder holds but server logs and Optuna's storage.
    """
    budget = ["study.confirm.max=4", f"budget.trials={max(2, trials) + 8}"]
    asked = composing.load(["experiment=demo", f"study.folder={folder}", *budget, *overrides])
    maker = _Maker(asked, StudyFolder(asked.study.path), random.Random(seed), noise)
    maker.folder.write(maker.folder.config, asked.to_yaml())
    maker.search(trials)
    if proven:
        maker.confirm()
    return Outcome.of(maker.folder)


class _Maker:
    """Makes one record after the other."""

    def __init__(self, asked, folder, dice, noise):
        self.asked = asked
        self.folder = folder
        self.dice = dice
        self.noise = noise
        self.deployed = asked.space.deployed(asked.model.settings)
        self.baseline = None
        self.clock = _BEGUN
        self.made = []

    def search(self, trials):
        tried = set()
        while len(self.made) < trials:
            candidate = self._drawn() if self.made else self.deployed
            if candidate.digest not in tried and not self.asked.space.violated(candidate, self.asked.model.settings):
                tried.add(candidate.digest)
                number = len(self.made)
                role = Role.SEARCH if self.made else Role.BASELINE
                self.made.append(self._trial(number, role, candidate, self.folder.trial(number)))

    def confirm(self):
        while terms := (outcome := Outcome.of(self.folder)).next_terms():
            terms = without_passengers(outcome, terms, anything, lambda text: None)
            finalist = outcome.finalist(terms)
            proof = proof_of(self.asked, terms, (), {})
            while not proof.decision.over:
                role = proof.next_role(self.asked.study.seed)
                candidate = self.deployed if role is Role.CONFIRM_BASELINE else finalist
                number = len(self.folder.confirmations())
                self._trial(number, role, candidate, self.folder.confirmation(number), terms)
                proof = Outcome.of(self.folder).proofs[-1]

    def _drawn(self):
        space = self.asked.space
        levels = {name: self.dice.randrange(parameter.levels) for name, parameter in space.params.items()}
        return space.candidate({name: space.params[name].value(level) for name, level in levels.items()})

    def _trial(self, number, role, candidate, folder, proof=None):
        settings = self.asked.model.settings.merged(self.asked.space.settings(candidate))
        launch_id = str(folder.path)
        command = make_engine(self.asked).command(settings.args, {k: v for k, v in settings.env.items() if v}, None)
        common = {
            "tuner_version": __version__,
            "study": self.asked.study.name,
            "number": number,
            "role": role,
            "seed": number,
            "digest": candidate.digest,
            "params": dict(candidate.params),
            "argv": command.argv,
            "env": dict(command.env),
            "started_at": self.clock.isoformat(timespec="seconds"),
            "proof": proof,
        }
        record = self._ran(command, launch_id, folder, common)
        self.clock += timedelta(seconds=record.seconds)
        folder.save(record)
        return record

    def _ran(self, command, launch_id, folder, common):
        site = Site.of("rtx4090", 2, "0.15")
        words = command.argv[len(self.asked.engine.executable) + 1 : -4]
        try:
            model = self.asked.model.id
            settings = resolve(model, flags.parse(site.version, [model, *words]), command.env, site)
        except Rejected as refused:
            return self._dead([f"vllm serve: error: {refused}"], 2, 8.0, common)
        stages = served_load(self.asked.workload, settings, launch_id, self.noise)
        if isinstance(stages, StartupFailure):
            return self._dead(list(stages.lines), 1, 40.0 + 10 * self.dice.random(), common)
        plan, results = stages
        folder.save_requests(results)
        measured = measurement_of(results, self.asked.workload)
        self.baseline = self.baseline or measured
        facts = StartupFacts(
            engine_version="0.15.0", kv_tokens=plan.kv_tokens, max_model_len=131072, total_gib=23.99, free_gib=22.26
        )
        return TrialRecord(
            **common,
            state=State.COMPLETE,
            phases=self._phases(sum(result.wall_ms for result in results) / 1000),
            facts=facts,
            measurement=measured,
            verdict=self.asked.objective.judge(measured, self.baseline),
        )

    def _dead(self, lines, exit_code, seconds, common):
        diagnosis = make_engine(self.asked).diagnose(Evidence(lines, exit_code=exit_code))
        error = error_of(diagnosis, diagnosis.line or lines[-1])
        assert isinstance(error, TrialError)
        failure = Failure(
            error=type(error).__name__,
            cause=error.cause,
            message=error.message,
            line=error.line,
            numbers=dict(error.numbers),
            advice=error.fix,
        )
        spans = (PhaseSpan(Phase.STARTING, 6.0), PhaseSpan(Phase.LOADING_WEIGHTS, seconds - 6.0))
        return TrialRecord(**common, state=State.PRUNED, phases=spans, failure=failure)

    def _phases(self, measuring_s):
        took = {
            Phase.STARTING: 6.0,
            Phase.LOADING_WEIGHTS: 32.0,
            Phase.COMPILING: self.dice.choice((4.0, 60.0)),
            Phase.PROFILING: 4.0,
            Phase.CAPTURING_GRAPHS: 18.0,
            Phase.OPENING: 5.0,
            Phase.WARMING_UP: 25.0,
            Phase.MEASURING: measuring_s,
            Phase.STOPPING: 3.0,
        }
        return tuple(PhaseSpan(phase, seconds * self.dice.uniform(0.95, 1.05)) for phase, seconds in took.items())


def served_load(load, settings, launch_id, noise=_NOISE):
    """What the load client would have recorded, and the memory it ran in; or why the server would not have started."""
    plan: MemoryPlan | None = None
    results: list[StageResult] = []
    for name, streams, count, prompt, output in _asked_stages(load):
        jobs = [
            [
                Job(((f"{launch_id}/{name}/{0 if name.startswith('ttft') else (s, n)}", prompt),), output)
                for n in range(count)
            ]
            for s in range(streams)
        ]
        ran = measure(settings, jobs, seed=1, launch_id=launch_id, noise=noise)
        if isinstance(ran, StartupFailure):
            return ran
        plan = ran.plan
        results.append(_result(name, streams, ran, prompt, output))
    return plan, results


def _asked_stages(load):
    yield CONCURRENT, load.users, load.requests // load.users, load.prompt_tokens, load.output_tokens
    single = load.single_user
    yield SINGLE_USER, 1, single.requests, single.prompt_tokens, single.output_tokens
    for length in load.ttft_prompt_tokens:
        yield ttft_stage(length), 1, 2, length, load.ttft_output_tokens


def _result(name, streams, ran, prompt, output):
    records = tuple(
        RequestRecord(
            stage=name,
            index=index,
            stream=served.stream,
            request=Request(f"{name}/{index}", prompt, prompt, output),
            started_ms=served.start_s * 1000,
            duration_ms=served.latency_s * 1000,
            chunk_ms=tuple(_chunks(served)),
            prompt_tokens=served.prompt_tokens,
            output_tokens=served.output_tokens,
            finish_reason="length",
            status=200,
        )
        for index, served in enumerate(sorted(ran.served, key=lambda served: served.start_s))
    )
    return StageResult(name, streams, records, ran.duration_s * 1000, 0.1, 0.2, 0.5)


def _chunks(served):
    gap_s = served.tpot_s or 0.0
    return (round((served.ttft_s + n * gap_s) * 1000, 3) for n in range(served.output_tokens))
