"""One trial, one straight line: pre-flight, launch, ready, warm up, measure, judge, record.

The only place where the steps meet. It knows no kinds of engine, launcher or objective.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tuner.engines.base import Phase
from tuner.errors import LiveBroke, TrialError
from tuner.launchers.base import Server
from tuner.records.folder import TrialFolder
from tuner.records.record import TrialRecord
from tuner.trial.asking import ask
from tuner.trial.assignment import Assignment
from tuner.trial.draft import Draft
from tuner.trial.launching import TrialLaunch
from tuner.trial.measuring import measure, warm
from tuner.trial.readiness import Stopwatch, Watch, wait_until_ready
from tuner.trial.screening import screen
from tuner.trial.server import ServerUnderTest
from tuner.trial.soaking import soak
from tuner.trial.workbench import Workbench


def run_trial(
    assignment: Assignment, bench: Workbench, folder: TrialFolder, on_phase: Callable[[Phase], None]
) -> TrialRecord:
    """Run one trial; its failure is a result, and its record is on disk when this returns.

    Raises only what is not a trial result: our own bugs and KeyboardInterrupt.
    """
    folder.begin()
    trial = _Trial(TrialLaunch(assignment, bench, folder), Stopwatch(on_phase))
    with trial.draft.failures_noted():
        trial.run()
    record = trial.draft.record(assignment, trial.launch.command, trial.stopwatch.spans())
    folder.save(record)
    return record


@dataclass
class _Trial:
    """A trial on its way; its draft becomes the record, whatever happens."""

    launch: TrialLaunch
    stopwatch: Stopwatch
    draft: Draft = field(default_factory=Draft)

    def run(self) -> None:
        """The line itself."""
        launch, bench = self.launch, self.launch.bench
        if launch.assignment.refusal:
            raise launch.assignment.refusal
        with launch.shared(), bench.launcher.launch(launch.spec) as server, self._stopping(server):
            watch, probe = Watch(server, bench.engine, self.stopwatch, launch.tolerance), launch.probe(server)
            context_tokens = wait_until_ready(watch, probe, bench.limits_s)
            self.draft.facts = bench.engine.facts(server.log.lines)
            launch.tolerance.check(self.draft.facts.degradations)
            witness = probe.witness(server.log.lines)
            self.draft.effective = bench.engine.effective(launch.assignment.settings, witness)
            context_tokens = context_tokens or bench.engine.context_tokens(witness)
            ready = ServerUnderTest(launch, self.draft, server, watch, probe, context_tokens)
            for step in (warm, measure, screen, ask, soak):
                step(ready)

    @contextmanager
    def _stopping(self, server: Server) -> Iterator[None]:
        """From the end of this block until the launcher's has been left, the server is being ended.

        A failed start says something of its memory as well.
        """
        try:
            yield
        except TrialError as error:
            if self.launch.broke_live(server.log.lines):
                raise LiveBroke(error.message, cause=LiveBroke.CAUSE, line=error.line) from error
            raise
        finally:
            self.draft.facts = self.draft.facts or self.launch.bench.engine.facts(server.log.lines)
            self.stopwatch.enter(Phase.STOPPING)
