"""Warming a ready server up and measuring it."""

from itertools import takewhile

from tuner.engines.base import Phase
from tuner.load.metrics import Measurement, pooled
from tuner.load.records import StageResult
from tuner.load.tokenizer import wording
from tuner.load.warmup import warm_up
from tuner.trial.readiness import Stopwatch
from tuner.trial.saturating import saturate
from tuner.trial.server import AGAIN, ServerUnderTest


def warm(server: ServerUnderTest) -> None:
    """Load that is not counted, until the server is at its speed."""
    server.enter(Phase.WARMING_UP)
    watch, workload = server.watch, server.bench.workload
    with watch.explaining():
        server.wording = wording(workload.prompts, server.target, watch.check)
        server.draft.warm_up = warm_up(
            server.bench.client,
            server.target,
            workload,
            context_tokens=server.context_tokens,
            kv_tokens=server.draft.kv_tokens,
            seed=server.assignment.seed,
            watch=watch.check,
            disturbed=watch.disturbed,
            prompts=server.wording.prompts,
        )


def measure(server: ServerUnderTest) -> None:
    """All stages; those that decide once more, on new prompts, where the first reading is a near miss."""
    server.enter(Phase.MEASURING)
    draft, seed = server.draft, server.assignment.seed
    planned = server.plan(seed)
    draft.skipped = planned.skipped
    results = server.send(planned.stages)
    results += saturate(server, results, seed)
    server.keep(results)
    measurement = _measured(server, results)
    draft.measurement = measurement
    if server.assignment.worth_again(measurement):
        draft.measurement = pooled(measurement, _once_more(server))
    draft.verdict = server.judged(draft.measurement)


def _once_more(server: ServerUnderTest) -> Measurement:
    lasting = [stage for stage in server.plan(server.assignment.seed + AGAIN).stages if stage.rule]
    results = server.send(lasting, ", again")
    server.keep(results, ", again")
    return _measured(server, results)


def _measured(server: ServerUnderTest, results: tuple[StageResult, ...]) -> Measurement:
    """The load's numbers, and those of the start."""
    measured, kv_tokens = server.numbers(results), server.draft.kv_tokens
    room = {"kv_requests": kv_tokens / sum(server.bench.workload.typical)} if kv_tokens else {}
    startup_s = _startup_s(server.watch.stopwatch) if server.bench.proves_itself else None  # of our own launches
    update = {"kv_tokens": kv_tokens, "startup_s": startup_s, "named": {**measured.named, **room}}
    return measured.model_copy(update=update)


def _startup_s(stopwatch: Stopwatch) -> float:
    """Wall time until the server had answered."""
    spans = takewhile(lambda span: span.phase is not Phase.WARMING_UP, stopwatch.spans())
    return sum(span.seconds for span in spans)
