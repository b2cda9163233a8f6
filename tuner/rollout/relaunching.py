"""``tuner profile verify --relaunch``: the winner launched once more as its study launched it, and measured.

Whatever serves is left alone: the launch has a network, a name and a port of its own, and a GPU that somebody holds is
taken from nobody who is not named.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.bench.running import RunningServer
from tuner.bench.view import ProgressListener
from tuner.config import Config
from tuner.errors import ConfigError, GpuBusy
from tuner.export.origin import image_of
from tuner.export.profile import Profile
from tuner.host.hub import commit_of
from tuner.host.leases import state_dir
from tuner.records.folder import StudyFolder
from tuner.rollout.comparing import Deviation, image, machine, revision, version
from tuner.rollout.measuring import Gauge, ProofTraffic, study_config, traffic_of
from tuner.rollout.verifying import Verified
from tuner.site.clean import give_back_all
from tuner.study import events
from tuner.study.assembly import workbench
from tuner.trial.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Relaunch:
    """A winner that is to be launched again.

    Attributes:
        profile: The winner with its proof.
        source: The profile's file.
        stop: Services to be stopped for as long as it is measured.
    """

    profile: Profile
    source: Path
    stop: tuple[str, ...] = ()


def relaunched(winner: Relaunch, follower: ProgressListener) -> Verified:
    """Launch it, measure it against its proof, and end it; what a killed one had left is given back first.

    Args:
        winner: What is launched.
        follower: Told of each phase.

    Raises:
        ConfigError: How it was launched is not known, or that names something that is not there.
        GpuBusy: Somebody holds its GPUs.
        TrialError: It does not start, or cannot be measured.
    """
    profile, traffic = winner.profile, traffic_of(winner.profile, winner.source)
    config = _config(winner)
    folder = StudyFolder(config.study.path)
    gauge = Gauge(profile, traffic, folder.path, follower)
    asked = gauge.asking(config)
    with folder.locked():
        give_back_all(follower.note)
        with _alone(asked, folder, winner, follower) as bench:
            bench.client.on_progress = follower.progress
            found = gauge.read(RunningServer(asked, bench, follower))
    holds, name = all(each.holds for each in found), profile.service.name or profile.study.name
    return Verified(
        holds=holds,
        service=name,
        container=config.launcher.where or config.engine.kind,
        measured=found,
        changed=tuple(_changes(profile, traffic, asked, folder)),
        relaunched=True,
    )


def _config(winner: Relaunch) -> Config:
    """The study's own configuration, with the winner in the place of what was deployed, in a folder of its own."""
    profile, config = winner.profile, study_config(winner.source.parent)
    if config is None:
        fix = "name the study itself with --study: its folder says how its servers are launched"
        raise ConfigError("there is no study next to the profile", place=str(winner.source), fix=fix)
    if not config.launcher.starts_servers:
        fix = "`tuner profile verify FILE` measures a service that runs"
        raise ConfigError("its study measured a server that it did not launch", place=str(winner.source), fix=fix)
    return config.model_copy(
        update={
            "model": config.model.model_copy(
                update={"id": profile.model, "args": dict(profile.args), "env": dict(profile.env)}
            ),
            "study": config.study.model_copy(update={"folder": state_dir() / "relaunches", "name": _name(winner)}),
            "site": config.site.model_copy(update={"stop": winner.stop}),
            "launcher": config.launcher.on_a_port_of_its_own,
        }
    )


def _name(winner: Relaunch) -> str:
    of = hashlib.sha256(str(winner.source.absolute().parent).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', winner.profile.study.name)[:80]}-{of}"


@contextmanager
def _alone(config: Config, folder: StudyFolder, winner: Relaunch, follower: ProgressListener) -> Iterator[Workbench]:
    """All that the launch needs: the study's own image among it, wherever its tag has moved since."""

    def hear(event: events.Event) -> None:
        if isinstance(event, events.Noted | events.Preparing):
            follower.note(event.text)

    pinned = StudyFolder(winner.source.parent).image
    if pinned.is_file():
        folder.write(folder.image, pinned.read_text("utf-8"))
    try:
        with workbench(config, hear) as (bench, _):
            yield bench
    except GpuBusy as busy:
        fix = "`--stop SERVICE` stops it for as long as that takes and starts it again; or verify without --relaunch"
        raise GpuBusy(busy.message, fix=fix) from busy


def _changes(profile: Profile, traffic: ProofTraffic, config: Config, folder: StudyFolder) -> Iterator[Deviation]:
    """Everything that is not as it was; flags and variables are the proof's own."""
    if (now := image_of(folder)) is not None:
        yield from image(profile, now.id, [now.digest] if now.digest else [])
    facts = folder.records()[-1].facts
    yield from version(profile, facts.engine_version if facts else None)
    yield from machine(profile, [*config.hardware.gpus])
    given = config.model.args.get("revision")
    yield from revision(
        profile, commit_of(profile.model, str(given) if given else None, config.launcher.cache_here(config))
    )
    yield from traffic.changed
