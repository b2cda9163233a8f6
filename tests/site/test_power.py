"""A power cap holds while its server runs, and the limits are as before whatever ends the study."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launchers.toy import ToyLauncher
from tuner import composing
from tuner.errors import ConfigError, InfrastructureError
from tuner.export.power import power_notes
from tuner.host import nvidia
from tuner.host.nvidia import POWER_CAP
from tuner.launchers.base import LaunchSpec
from tuner.site import clean, power
from tuner.site.power import check_power, power_kept
from tuner.study.checks import examined

SMI = """#!/bin/sh
# a driver of two GPUs that keeps each limit in a file
cd "$(dirname "$0")"
case "$1" in
--query-gpu=index,power.limit*)
    for gpu in 0 1; do echo "$gpu, $(cat limit$gpu), 150.00, 450.00, $(cat mode)"; done;;
-i)
    if [ -e denied ]; then echo "Insufficient Permissions"; exit 4; fi
    echo "$4" > "draft$2"; mv "draft$2" "limit$2"; echo "$2 $4" >> set;;
--query-gpu=index,uuid,name*) printf '0, GPU-0, RTX 4090, 24564, 100\\n1, GPU-1, RTX 4090, 24564, 100\\n';;
*) exit 6;;
esac
"""


class Smi:
    """The driver's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def now(self):
        return [float((self.folder / f"limit{gpu}").read_text()) for gpu in (0, 1)]


@pytest.fixture
def smi(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(0o755)
    for gpu in (0, 1):
        (folder / f"limit{gpu}").write_text("450.00\n")
    (folder / "mode").write_text("Enabled\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path / "state"))
    return Smi(folder)


def study(*overrides, caps="[null, 300, 400]"):
    asked = [
        *("experiment=glm-flash", "launcher=process", "engine.version=0.26.0", "study.name=capped"),
        *(f"space.params.{POWER_CAP}={{choices: {caps}}}", "hardware.gpus=[0,1]"),
    ]
    return composing.load([*asked, *overrides])


def spec(tmp_path, cap):
    env = {"PATH": os.environ["PATH"], **({POWER_CAP: cap} if cap else {})}
    return LaunchSpec("capped/0001", ("sh", "-c", "env; sleep 60"), tmp_path / "server.log", env, (0, 1))


def test_the_cap_holds_while_the_server_runs_and_no_server_sees_it(smi, tmp_path):
    with power_kept(study(), ToyLauncher()) as launcher:
        with launcher.launch(spec(tmp_path, "300")):
            assert smi.now() == [300, 300]
        assert smi.now() == [450, 450]
        with launcher.launch(spec(tmp_path, None)):
            assert smi.now() == [450, 450]
    assert POWER_CAP not in (tmp_path / "server.log").read_text()
    assert not list((tmp_path / "state" / "power").glob("*.json"))


def test_a_study_that_fails_in_the_middle_of_a_launch_restores_them(smi, tmp_path):
    with (
        pytest.raises(RuntimeError),
        power_kept(study(), ToyLauncher()) as launcher,
        launcher.launch(spec(tmp_path, "400")),
    ):
        raise RuntimeError
    assert smi.now() == [450, 450]


def test_a_study_without_caps_asks_and_sets_nothing(smi):
    config = study(f"space.params.{POWER_CAP}=null")
    launcher = ToyLauncher()
    with power_kept(config, launcher) as same:
        assert same is launcher
    assert not (smi.folder / "set").exists()


@pytest.mark.parametrize(
    ("caps", "says"),
    [("[null, 500]", "takes from 150 to 450 W, not 500"), ("[much]", "'much' is no power in watts")],
)
def test_a_cap_that_the_gpus_do_not_take_is_refused_before_trial_0(smi, caps, says):
    with pytest.raises(ConfigError, match=says):
        list(check_power(study(caps=caps)))
    assert any(says in str(error) for error in examined(study(caps=caps)).refused)


def test_without_the_permission_the_study_is_refused_before_trial_0(smi):
    (smi.folder / "denied").touch()
    assert any("power: whether this user may set" in left for left in examined(study()).unchecked)
    with (
        pytest.raises(ConfigError, match="GPU 0 cannot be set: Insufficient Permissions"),
        power_kept(study(), ToyLauncher()),
    ):
        pytest.fail("it began")
    assert not power.owed()


def test_without_persistence_mode_the_driver_would_forget_it(smi):
    (smi.folder / "mode").write_text("Disabled\n")
    with pytest.raises(ConfigError, match="without persistence mode"):
        list(check_power(study()))


def test_without_a_driver_or_on_simulated_gpus_there_is_nothing_to_set(smi, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no power limit"):
        list(check_power(study("experiment=demo")))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no power limit"):
        list(check_power(study()))
    assert nvidia.set_power(0, 300) == "there is no nvidia-smi"


def test_a_cap_that_cannot_be_set_in_mid_study_is_no_trials_fault(smi, tmp_path):
    with power_kept(study(), ToyLauncher()) as launcher:
        (smi.folder / "denied").touch()
        with (
            pytest.raises(InfrastructureError, match="Insufficient Permissions"),
            launcher.launch(spec(tmp_path, "300")),
        ):
            pytest.fail("it was launched")
        (smi.folder / "denied").unlink()


KILLED = """
import sys, time
from pathlib import Path
from tests.launchers.toy import ToyLauncher
from tests.site.test_power import spec, study
from tuner.site.power import power_kept
folder = Path(sys.argv[1])
with power_kept(study(), ToyLauncher()) as launcher, launcher.launch(spec(folder, "300")):
    (folder / "capped").touch()
    time.sleep(60)
"""


def killed(tmp_path, smi):
    """Kill a study in the middle of a launch; returns when it is gone."""
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], start_new_session=True)
    until(lambda: (tmp_path / "capped").exists())
    assert smi.now() == [300, 300]
    os.killpg(child.pid, signal.SIGKILL)  # with its server, which a real launcher's guard ends
    child.wait()


def until(holds, patience_s=30.0):
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_after_a_kill_the_watchdog_restores_them(smi, tmp_path):
    killed(tmp_path, smi)
    until(lambda: smi.now() == [450, 450])
    until(lambda: not power.owed())


def test_what_the_watchdog_could_not_restore_clean_does(smi, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    (smi.folder / "limit0").write_text("300\n")
    record = power.PowerRecord(owner="1:1.0", study="gone", limits=(power.LimitBefore(gpu=0, watts=450),))
    record.write()
    (left,) = [one for one in clean.left_overs() if "power" in one.what]
    assert str(left) == "power limits to restore: GPU 0 at 450 W (study gone)"
    left.remove()
    assert smi.now() == [450, 450]
    assert not power.owed()


def test_a_deployment_is_told_of_the_cap():
    assert not [*power_notes({"OMP_NUM_THREADS": "1"})]
    assert "sudo nvidia-smi -pl 300" in next(power_notes({POWER_CAP: "300"}))
