"""The ready server of a trial, and the load that it gets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.engines.base import Phase
from tuner.host.limits import disturbance
from tuner.host.state import StageHost
from tuner.host.watch import HostWatch, watching
from tuner.launchers.base import Server
from tuner.load.deciding import Deciding
from tuner.load.metrics import Measurement, measure
from tuner.load.plan import Plan, plan
from tuner.load.records import DisturbedStage, StageResult
from tuner.load.stage import Stage
from tuner.load.target import Target
from tuner.load.tokenizer import Wording
from tuner.load.workload import Workload
from tuner.objective import Verdict
from tuner.trial.assignment import Assignment
from tuner.trial.costs import with_costs
from tuner.trial.draft import Draft
from tuner.trial.launching import TrialLaunch
from tuner.trial.readiness import Probe, Watch
from tuner.trial.workbench import Workbench

AGAIN = 1 << 31
"""Added to the seed of what is measured once more, a multiple of it to that of a screened setting: its prompts are new
to the server."""


@dataclass
class ServerUnderTest:
    """The ready server of a trial; what its load shows goes into the trial's draft.

    Attributes:
        launch: What it was launched with.
        draft: What the trial has found so far.
        server: The server.
        watch: Looks after it.
        probe: Asks it for an answer.
        context_tokens: How long its requests may be, where that is known.
        wording: How prompts become tokens; known from its warm-up on.
    """

    launch: TrialLaunch
    draft: Draft
    server: Server
    watch: Watch
    probe: Probe
    context_tokens: int | None
    wording: Wording | None = None

    @property
    def assignment(self) -> Assignment:
        """What the trial tries."""
        return self.launch.assignment

    @property
    def bench(self) -> Workbench:
        """What all trials of its study use."""
        return self.launch.bench

    @property
    def target(self) -> Target:
        """Where its requests go."""
        counts = self.wording.counts if self.wording else ()
        return Target(self.server.url, self.server.headers, self.bench.model, counts)

    def enter(self, phase: Phase) -> None:
        """The trial's next phase begins."""
        self.watch.stopwatch.enter(phase)

    def plan(self, seed: int, workload: Workload | None = None, deciding: Deciding | None = None) -> Plan:
        """The stages of a load, the study's own unless another is given; its warm-up must be over."""
        assert self.draft.warm_up is not None
        return plan(
            workload or self.bench.workload,
            seed=seed,
            context_tokens=self.context_tokens,
            kv_tokens=self.draft.kv_tokens,
            calibration=self.draft.warm_up.calibration,
            clock_scale=self.bench.clock_scale,
            deciding=self.bench.objective.deciding if deciding is None else deciding,
            held_out=self.assignment.proof is not None,
        )

    def send(self, stages: Sequence[Stage], which: str = "") -> tuple[StageResult, ...]:
        """Run stages, with the state of the host in each; ``which`` tells those of one name apart."""
        watch, bench = self.watch, self.bench
        with watch.explaining(), watching(self.server.pids, bench.watched_gpus, bench.host) as host:
            results = bench.client.run_all(
                stages, self.target, watch.check, lambda: watch.disturbed() or host.disturbed(), host.turn
            )
        self._note_host(results, host, which)
        if any(record.failed for result in results for record in result.records):
            watch.linger()
        return results

    def _note_host(self, results: Sequence[StageResult], host: HostWatch, which: str) -> None:
        """How the machine was during each, and which were disturbed."""
        limits, turns = self.bench.host, tuple(zip(results, host.states, strict=True))
        self.draft.host += tuple(StageHost(f"{result.stage}{which}", state) for result, state in turns)
        self.draft.disturbed += tuple(
            DisturbedStage(
                f"{r.stage}{which}", r.disturbed, not r.superseded, r.disturbed == disturbance(state, limits)
            )
            for r, state in turns
            if r.disturbed
        )

    def settle(self, stages: Iterable[Stage]) -> None:
        """Send a load that does not count."""
        with self.watch.explaining():
            for stage in stages:
                self.bench.client.run(stage, self.target, self.watch.check)

    def keep(self, results: Sequence[StageResult], which: str = "") -> None:
        """Store every request of stages, in addition to those before."""
        self.draft.results += tuple(result.renamed(f"{result.stage}{which}") for result in results)
        self.launch.folder.save_requests(self.draft.results)

    def numbers(self, results: tuple[StageResult, ...]) -> Measurement:
        """The numbers of the stages that were sent last."""
        measured = measure(results, self.bench.workload, self.bench.clock_scale, self.bench.objective.deciding)
        return with_costs(measured, results, self.draft.host[-len(results) :], self.bench.price_per_hour)

    def judged(self, measurement: Measurement) -> Verdict:
        """What numbers are worth, against the baseline's."""
        baseline = self.assignment.baseline and self.assignment.baseline.measurement
        return self.bench.objective.judge(measurement, baseline or measurement)
