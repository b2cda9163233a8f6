"""A stage is disturbed when others use more of the machine than is allowed, and only then."""

import pytest

from tuner.host.limits import HostConfig, disturbance
from tuner.host.state import GpuState, HostState

JUDGING = HostConfig()
QUIET = {"seconds": 10.0, "cores": 8, "cpu_busy_share": 0.9, "cpu_steal_share": 0.01, "other_cpu_cores": 1.5}


def said(limits=JUDGING, **more):
    return disturbance(HostState(**{**QUIET, **more}), limits)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"other_cpu_cores": 2.5}, "other processes used 2.5 of 8 cores"),
        ({"cpu_steal_share": 0.12}, "the hypervisor gave 12% of the cores' time to other guests"),
        ({"gpus": (GpuState(0, other_utilization=0.05), GpuState(1, other_utilization=0.3))}, "GPU 1 for 30%"),
    ],
)
def test_each_way_of_being_disturbed_is_said_with_its_figure(state, sentence):
    assert sentence in said(**state)
    assert said(HostConfig(judge=False), **state) is None


def test_a_machine_that_only_we_use_disturbs_nothing():
    assert said() is None
    assert said(gpus=(GpuState(0, utilization=1.0, other_utilization=0.0, throttle_reasons=("sw_power_cap",)),)) is None


def test_what_is_not_known_disturbs_nothing():
    nothing = HostState(seconds=10.0, gpus=(GpuState(0),))
    assert disturbance(nothing, HostConfig()) is None
