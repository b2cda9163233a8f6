"""A winner's power cap, which neither Compose nor a server sets: what differs is named."""

import pytest

from tests.present import present
from tests.simulated import simulated_study
from tests.site.test_power import smi as smi
from tuner.export.origin import ProfileMachine
from tuner.export.power import power_changes
from tuner.export.profile import profile_of
from tuner.host.nvidia import POWER_CAP
from tuner.rollout.comparing import power


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A winner that was proven with both GPUs at 300 W."""
    found = present(profile_of(simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s")))
    machine = ProfileMachine(name="two", indices=(0, 1))
    return found.model_copy(update={"env": {**found.env, POWER_CAP: "300"}, "machine": machine})


def test_another_limit_than_the_proofs_is_named(smi, profile):
    (limit,) = power(profile, "all")
    assert str(limit) == "power limit: 300 W in the proof, GPU 0 at 450 W, GPU 1 at 450 W now"
    (smi.folder / "limit0").write_text("300.00\n")
    assert [each.now for each in power(profile, [1])] == ["GPU 1 at 450 W"]
    assert not list(power(profile, [0]))
    assert not list(power(profile.model_copy(update={"env": {}}), "all"))


def test_without_a_driver_nothing_is_said_of_it(profile, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not list(power(profile, [0, 1]))


def test_a_cap_that_comes_or_goes_is_told_with_the_command():
    (comes,) = power_changes({}, {POWER_CAP: "300"}, (0, 1))
    assert "capped at 300 W, which no server sets: sudo nvidia-smi -i 0,1 -pl 300" in comes
    (goes,) = power_changes({POWER_CAP: "300"}, {}, (1,))
    assert "lift it: sudo nvidia-smi -i 1 -pl DEFAULT" in goes
    assert not list(power_changes({}, {}))
