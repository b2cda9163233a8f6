"""``tuner profile verify``: whether the proof still holds of the service that runs, and what changed since."""

from tuner.bench.view import ProgressListener
from tuner.rollout.applying import ProvenWinner
from tuner.rollout.comparing import Deviation, changes
from tuner.rollout.holding import Held
from tuner.rollout.journal import RolloutFolder
from tuner.rollout.measuring import Gauge, traffic_of
from tuner.schema import Schema

DOES_NOT_HOLD = 3
"""The exit code where the proof does not hold."""


class Verified(Schema):
    """What came of it."""

    holds: bool
    service: str
    container: str
    """Its container; of a relaunch, the image or engine that served for as long as it was measured."""
    measured: tuple[Held, ...]
    changed: tuple[Deviation, ...]
    relaunched: bool = False
    """Whether a server of tuner's own was measured, and not the service that runs."""


def verify(winner: ProvenWinner, follower: ProgressListener) -> Verified:
    """Measure the service that runs, and compare it with what was proven; nothing is changed.

    Args:
        winner: The proof, and of what.
        follower: Told of each phase.

    Raises:
        ConfigError: The service does not run, or its traffic is not known.
        TrialError: It cannot be measured.
    """
    traffic, service = traffic_of(winner.profile, winner.source), winner.running
    changed = (*changes(winner.profile, service), *traffic.changed)
    place = RolloutFolder.of(service.project)
    place.make()
    gauge = Gauge(winner.profile, traffic, place.measured, follower)
    found = gauge.held(service.launcher(whole_log=False), service.model)
    holds = all(each.holds for each in found)
    container = service.container
    return Verified(holds=holds, service=container.service, container=container.name, measured=found, changed=changed)
