"""Settings that are measured in the running server of a trial, one after the other."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tuner.engines.base import Phase
from tuner.errors import MeasurementError, TrialError
from tuner.load.deciding import Deciding, stage_of
from tuner.load.naming import CONCURRENT
from tuner.load.plan import Plan
from tuner.load.stage import Stage
from tuner.load.workload import Workload
from tuner.records.record import Screened
from tuner.trial.assignment import Screen
from tuner.trial.draft import Draft
from tuner.trial.live import LiveServer, NotInForce
from tuner.trial.saturating import saturate
from tuner.trial.server import AGAIN, ServerUnderTest

_SETTLING = 16
"""Tokens that each stream asks for after a change and before the measurement; they are not counted."""


def screen(server: ServerUnderTest) -> None:
    """What else its running server can show; whatever goes wrong there, its own measurement stands."""
    screening, launch, draft = server.assignment.screening, server.launch, server.draft
    if screening is None:
        return
    server.enter(Phase.SCREENING)
    live = LiveServer(screening.live, launch.live_folder, server.watch, server.probe)
    load = brief(server.bench.workload)
    try:
        for number, each in enumerate(screening.screens, 1):
            planned = server.plan(server.assignment.seed + number * AGAIN, load)
            with _unmeasured_noted(draft):
                draft.screened += (_screened(server, live, each, planned),)
    except TrialError as error:
        draft.unscreened = error.message


@contextmanager
def _unmeasured_noted(draft: Draft) -> Iterator[None]:
    """A setting that has no numbers is left out; one that is not in force ends the screening."""
    try:
        yield
    except NotInForce:
        raise
    except MeasurementError as error:
        draft.unscreened = error.message


def _screened(server: ServerUnderTest, live: LiveServer, screen: Screen, planned: Plan) -> Screened:
    """One setting: changed, a load that does not count, and those that decide."""
    begun_s = time.monotonic()
    live.change(screen.setting)
    server.settle(settling(planned))
    which, before, draft = f", live {live.changes}", len(server.draft.disturbed), server.draft
    results = server.send(list(loads(planned, server.bench.objective.deciding)), which)
    results += saturate(server, results, server.assignment.seed + live.changes * AGAIN, which)
    server.keep(results, which)
    draft.disturbed, disturbed = draft.disturbed[:before], draft.disturbed[before:]  # the trial's own are others
    measurement = server.numbers(results)
    return Screened(
        digest=screen.candidate.digest,
        params=dict(screen.candidate.params),
        setting=dict(screen.setting),
        seconds=time.monotonic() - begun_s,
        measurement=measurement,
        verdict=server.judged(measurement),
        disturbed=disturbed,
        doubt=live.live.doubt(screen.setting, server.assignment.settings.args),
    )


def brief(workload: Workload) -> Workload:
    """The traffic as a screened setting gets it: as long, and with as few requests as its metrics allow."""
    if not workload.min_duration_s:
        return workload  # its requests are all that makes it last
    alone = workload.single_user.model_copy(update={"requests": 1})
    return workload.model_copy(update={"requests": max(workload.rungs), "single_user": alone})


def loads(planned: Plan, deciding: Deciding) -> Iterator[Stage]:
    """The stages that decide."""
    needed = {stage_of(name) for name in deciding.names}
    return (stage for stage in planned.stages if stage.name in needed)


def settling(planned: Plan) -> Iterator[Stage]:
    """A short load that is not counted: the first after a change may be disturbed."""
    for stage in planned.stages:
        if stage.name == CONCURRENT:
            first = (
                replace(request, seed=f"{request.seed}/settling", output_tokens=min(request.output_tokens, _SETTLING))
                for request in stage.requests[: stage.streams]
            )
            yield replace(stage, requests=tuple(first), rule=None)
