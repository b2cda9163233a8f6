"""The table from cause to error to action."""

import pytest

from tuner.engines.causes import CONSEQUENCES, Action, Cause
from tuner.errors import InfeasibleConfig, InfrastructureError

BLAMED = {Action.TEACH: InfeasibleConfig, Action.RETRY: InfrastructureError, Action.STOP: InfrastructureError}


def test_every_cause_has_a_consequence() -> None:
    assert set(CONSEQUENCES) == set(Cause)


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.HEALTHY])
def test_the_error_of_a_cause_blames_whom_its_action_blames(cause: Cause) -> None:
    consequence = CONSEQUENCES[cause]
    assert consequence.error is not None
    assert issubclass(consequence.error, BLAMED[consequence.action])


def test_a_healthy_server_has_no_error() -> None:
    healthy = CONSEQUENCES[Cause.HEALTHY]
    assert (healthy.error, healthy.action) == (None, Action.NONE)
