"""``tuner profile apply``: a winner deployed in the place of what runs, and kept only if its proof holds there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.bench.view import ProgressListener
from tuner.errors import ConfigError, MeasurementError
from tuner.export.inplace import saving
from tuner.export.inplace.deploying import changes_of, check_deploys, viewed
from tuner.export.inplace.writing import Written
from tuner.export.profile import Profile
from tuner.importer import sources
from tuner.proof.decision import Kind
from tuner.rollout import service
from tuner.rollout.answering import AskedTwice, Examiner
from tuner.rollout.comparing import power, settings
from tuner.rollout.deploying import Rollout, recover_all
from tuner.rollout.holding import Held
from tuner.rollout.journal import RolloutFolder
from tuner.rollout.measuring import Gauge, ProofTraffic, traffic_of
from tuner.rollout.sentences import reading
from tuner.rollout.service import LiveService


@dataclass(frozen=True, slots=True)
class ProvenWinner:
    """What is to be applied, and to what.

    Attributes:
        files: The deployment's compose file, or several that are merged.
        service: Which service, where there are several.
        profile: The winner with its proof.
        source: The profile's file.
    """

    files: Sequence[Path]
    service: str | None
    profile: Profile
    source: Path

    @property
    def file(self) -> Path:
        """The first file."""
        return sources.file_of(self.files[0])

    @property
    def running(self) -> LiveService:
        """The service that it is for, as it runs.

        Raises:
            ConfigError: It does not run.
        """
        view = viewed(self.files, self.service, self.profile)
        return service.running(str(view.deployment.container.service), self.file)


def apply(winner: ProvenWinner, follower: ProgressListener, *, limit_not_shown: bool) -> tuple[Held, ...]:
    """Deploy a winner; returns what was measured of it, and nothing where the files say it already.

    Args:
        winner: What is to be applied, and to what.
        follower: Told of each step.
        limit_not_shown: Whether also a winner that is not shown to keep a limit.

    Raises:
        ConfigError: It is refused; nothing was touched.
        PutBack: It was not kept, and the old service is back.
        InfrastructureError: The old service could not be brought back.
    """
    _check(winner.profile, limit_not_shown=limit_not_shown)
    traffic = _traffic(winner)
    recover_all(winner.file, winner.service, follower.note)
    old = winner.running
    made = changes_of(old.container.files, old.container.service, winner.profile, limit_not_shown=limit_not_shown)
    for sentence in made.said:
        follower.note(f"! {sentence}")
    for other in power(winner.profile, old.deployment.understood.gpus):
        follower.note(f"! {other}: apply sets none, and measures under what is set")
    return _rolled_out(winner, old, made, traffic, follower) if made.texts else ()


def _rolled_out(
    winner: ProvenWinner, old: LiveService, made: Written, traffic: ProofTraffic, follower: ProgressListener
) -> tuple[Held, ...]:
    place, profile = RolloutFolder.of(old.project), winner.profile
    found: list[Held] = []

    examiner = Examiner(traffic.quality, place.measured, follower.note)
    right: list[AskedTwice | None] = []

    def judge(new: LiveService) -> None:
        if others := list(settings(profile, new)):
            raise MeasurementError(f"what runs is not what was proven: {'; '.join(map(str, others))}")
        gauge = Gauge(profile, traffic, place.measured, follower)
        found.extend(gauge.held(new.launcher(whole_log=True), new.model))
        if below := [reading(each) for each in found if not each.holds]:
            raise MeasurementError(f"it measures below its proof: {'; '.join(below)}")
        examiner.check(right[0], examiner.new(new.launcher(whole_log=False), new.model))

    with place.alone() as lock:
        saving.check_unchanged(made.old, made.texts)
        contents = {path: saving.encoded(path, text) for path, text in made.texts.items()}
        right.append(examiner.old(old.launcher(whole_log=False), old.model) if old.answers else None)
        what = f"trial {profile.trial} of study {profile.study.name}"
        Rollout(place, lock, old, contents, what, follower.note).run(judge)
    return tuple(found)


def _check(profile: Profile, *, limit_not_shown: bool) -> None:
    check_deploys(profile, limit_not_shown=limit_not_shown)
    if profile.verdict.kind is not Kind.BETTER and not limit_not_shown:
        fix = "read the verdict; `--limit-not-shown` deploys it all the same"
        raise ConfigError(f"the profile is not shown to be better: {profile.verdict.sentence}", fix=fix)


def _traffic(winner: ProvenWinner) -> ProofTraffic:
    """The traffic of the proof, and no other: what is measured under another one says nothing of it."""
    traffic = traffic_of(winner.profile, winner.source)
    if traffic.differs:
        fix = "name the study itself with --study: its folder has the traffic that it was proven under"
        said = f"workload {traffic.workload.name} is {traffic.digest} here, and the proof is of {traffic.proven}"
        raise ConfigError(said, fix=fix)
    return traffic
