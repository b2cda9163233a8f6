"""Who holds the GPUs is known, and memory that others hold is never the configuration's fault."""

import os
import threading
from contextlib import contextmanager

import pytest

from tests.fast import FAST
from tuner import composing
from tuner.config import SiteConfig
from tuner.errors import ConfigError, EngineUnavailable, GpuBusy, OutOfMemory
from tuner.host import nvidia
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.services import Service, gpus_of
from tuner.site.gpus import SoleUser, find_services, holders, refuse_if_held, wait_until_free
from tuner.study.checks import examined
from tuner.study.loop import run_study

GIB_MIB = 1024


def service(name, gpus=(), all_gpus=False, compose=None, vanishes=False):
    return Service(f"id-{name}", name, compose, tuple(gpus), all_gpus, (), "no", 0, vanishes, None)


def gpu(index, used_gib, processes=()):
    return nvidia.Gpu(index, f"GPU-{index}", "NVIDIA GeForce RTX 4090", 24.0, used_gib, processes)


def held_by(*arguments, **more):
    return [(holder.gpu, holder.who) for holder in holders(*arguments, **{"idle_gib": 2.5, **more})]


def test_a_container_that_was_given_a_gpu_holds_it():
    running = [service("prod-1", ["0", "1"], compose="medium-glm"), service("micro", ["2"])]
    assert held_by([0, 1], running, []) == [(0, "container medium-glm"), (1, "container medium-glm")]


def test_a_container_that_was_given_its_gpu_by_uuid_holds_it():
    assert held_by([1], [service("a", ["GPU-1"])], [gpu(0, 0.5), gpu(1, 20.0)]) == [(1, "container a")]


def test_monitoring_that_sees_all_gpus_holds_none_while_their_memory_is_free():
    watching = [service("dcgm-exporter", all_gpus=True)]
    assert held_by([0], watching, [gpu(0, 1.7)]) == []
    assert held_by([0], watching, [gpu(0, 20.0)]) == [(0, "container dcgm-exporter")]
    assert held_by([0], watching, []) == [(0, "container dcgm-exporter")], "no driver can tell"


def test_monitoring_is_not_suspected_where_somebody_was_given_the_gpu_by_name():
    running = [service("dcgm-exporter", all_gpus=True), service("medium-glm", ["0"])]
    assert held_by([0], running, [gpu(0, 20.0)]) == [(0, "container medium-glm")]


@pytest.mark.parametrize(
    ("host", "env", "given"),
    [
        ({"DeviceRequests": [{"DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}]}, [], (("0", "1"), False)),
        ({"DeviceRequests": [{"Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}]}, [], ((), True)),
        (
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=2", "x.com/nic=1"]}]},
            [],
            (("2",), False),
        ),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}, [], ((), True)),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"], (("GPU-a", "GPU-b"), False)),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=all"], ((), True)),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=void"], ((), False)),
        # where it is the default runtime, a web server has it too
        ({"Runtime": "nvidia"}, ["PATH=/bin"], ((), False)),
        ({"Runtime": "runc", "DeviceRequests": None}, ["NVIDIA_VISIBLE_DEVICES=all"], ((), False)),
    ],
)
def test_the_gpus_of_a_container_are_read_in_each_way_of_giving_them(host, env, given):
    assert gpus_of(host, env) == given


def test_a_process_outside_of_containers_is_named_where_the_driver_knows_it():
    seen = [gpu(0, 14.1, ("python3 (process 4242, 14.0 GiB)",)), gpu(1, 9.0)]
    assert held_by([0, 1], [], seen) == [
        (0, "python3 (process 4242, 14.0 GiB): 14.1 of 24.0 GiB in use"),
        (1, "9.0 of 24.0 GiB in use"),
    ]


def test_a_desktop_is_no_holder():
    assert held_by([0], [], [gpu(0, 1.73)]) == []


def test_a_study_on_occupied_gpus_is_refused_with_who_holds_them_and_how_to_go_on():
    prod, other = service("prod-1", ["0"], compose="medium-glm"), service("other", ["1"])
    found = holders([0, 1], [prod, other], [], 2.5)
    with pytest.raises(GpuBusy, match=r"(?s)GPU 0 is held by container medium-glm; GPU 1.*stop=\[medium-glm,other\]"):
        refuse_if_held(found, [], ())
    with pytest.raises(GpuBusy, match=r"(?s)^GPU 1 is held by container other\n.*hardware\.gpus"):
        refuse_if_held(found, [prod], ())
    refuse_if_held(found, [prod], ("other",))
    refuse_if_held(found, [prod, other], ())


def test_a_service_is_found_by_its_container_or_its_compose_name():
    prod, other = service("prod-1", compose="medium-glm"), service("other")
    assert find_services(["medium-glm", "other"], [prod, other], lambda name: False) == [prod, other]
    assert find_services(["down"], [prod], lambda name: name == "down") == []
    with pytest.raises(ConfigError, match=r"(?s)no service 'medum-glm' \(running: medium-glm, other\)"):
        find_services(["medum-glm"], [prod, other], lambda name: False)


def test_a_service_that_would_not_survive_being_stopped_is_refused():
    with pytest.raises(ConfigError, match=r"--rm"):
        find_services(["x"], [service("x", vanishes=True)], lambda name: True)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A driver that says what the test tells it to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in --query-gpu*) cat {folder}/gpus;; *) cat {folder}/apps 2>/dev/null || exit 6;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def says(*used_gib, apps=""):
        lines = [f"{i}, GPU-{i}, RTX 4090, 24564, {round(gib * GIB_MIB)}" for i, gib in enumerate(used_gib)]
        (folder / "gpus").write_text("\n".join(lines) + "\n")
        (folder / "apps").write_text(apps)

    return says


def test_the_driver_is_read(smi):
    smi(1.5, 20.0, apps="GPU-1, 4242, /usr/bin/python3, 19456\nGPU-1, 7, [Not Found], [N/A]\n")
    assert nvidia.read() == (
        nvidia.Gpu(0, "GPU-0", "RTX 4090", 24564 / 1024, 1.5),
        nvidia.Gpu(
            1, "GPU-1", "RTX 4090", 24564 / 1024, 20.0, ("python3 (process 4242, 19.0 GiB)", "[Not Found] (process 7)")
        ),
    )


def test_a_driver_that_does_not_answer_knows_of_no_gpu(smi):
    assert nvidia.read() == ()


def test_a_gpu_that_is_not_there_is_named_by_plan_and_start_alike(smi, tmp_path):
    smi(0.1, 0.1)
    asked = composing.load(
        [*FAST, f"study.folder={tmp_path}", "hardware.gpus=[0,7]", "model.args.tensor_parallel_size=2"]
    )
    assert [error.message for error in examined(asked).refused] == ["there is no GPU 7 (there are: 0, 1)"]
    with pytest.raises(EngineUnavailable, match="there is no GPU 7"):
        run_study(asked, lambda event: None)


def test_memory_that_does_not_become_free_is_busy_with_who_holds_it(smi):
    smi(1.0, 20.0, apps="GPU-1, 4242, python3, 19456\n")
    wait_until_free([0], SiteConfig(free_timeout_s=0.1))
    with pytest.raises(GpuBusy, match=r"(?s)GPU 1: python3 \(process 4242, 19.0 GiB\).*idle_gib"):
        wait_until_free([0, 1], SiteConfig(free_timeout_s=0.1))


class Dying:
    """A launcher whose server runs out of memory while others take the GPU's."""

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    @contextmanager
    def launch(self, spec):
        self.meanwhile()
        raise OutOfMemory("CUDA out of memory", line="torch.OutOfMemoryError")
        yield


def launch(launcher, tmp_path, gpus=(0,), free_timeout_s=0.1):
    with SoleUser(launcher, SiteConfig(free_timeout_s=free_timeout_s), lambda: None).launch(
        LaunchSpec("t/0", (), tmp_path / "log", gpus=gpus)
    ):
        pass


def test_a_launch_waits_until_the_memory_is_free(smi, tmp_path):
    smi(20.0)
    with pytest.raises(GpuBusy, match="did not become free"):
        launch(Dying(), tmp_path)


def test_out_of_memory_while_others_hold_it_is_not_the_configurations_fault(smi, tmp_path):
    smi(0.5)
    with pytest.raises(GpuBusy, match=r"ran out of memory that others hold.*9\.0 of 24\.0"):
        launch(Dying(lambda: smi(9.0)), tmp_path)


def test_out_of_memory_on_a_gpu_of_its_own_is(smi, tmp_path):
    smi(0.5)
    with pytest.raises(OutOfMemory):
        launch(Dying(), tmp_path)


def test_memory_that_our_own_dead_server_still_holds_for_a_moment_is_not_others(smi, tmp_path):
    smi(0.5)
    given_back = threading.Timer(0.3, smi, [0.5])

    def dying():
        smi(20.0)
        given_back.start()

    with pytest.raises(OutOfMemory):
        launch(Dying(dying), tmp_path, free_timeout_s=5)
    given_back.join()
