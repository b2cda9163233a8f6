"""What the Docker launcher promises, on a real engine: the contract, and what only containers can do."""

import gc
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress

import docker
import psutil
import pytest

from tests.present import present
from tuner.errors import EngineUnavailable, GpuBusy, ImageMissing, PortTaken
from tuner.host.owner import Owner
from tuner.host.processes import alive
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker import volumes
from tuner.launchers.docker.containers import OWNER, Contents
from tuner.launchers.docker.daemon import Lifeline, NameTaken, NoNvidiaRuntime, connected, engine_url, translated
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig, volume_name
from tuner.launchers.docker.prepare import GpuCountWrong, check_gpus
from tuner.site.clean import left_overs, under_way
from tuner.testing.launcher import ECHO_SERVER, LauncherContract, answer, kill, until

pytestmark = pytest.mark.docker

TUNER_PROGRAM = """
import sys, time
from pathlib import Path
from tuner.launchers.base import LaunchSpec
from tuner.launchers.docker.containers import Contents
from tuner.launchers.docker.launcher import DockerLauncher
from tuner.launchers.docker.options import DockerLauncherConfig
options = DockerLauncherConfig(kind="docker", image="unused", hf_home=None)
launcher = DockerLauncher(Contents(sys.argv[1], options, None, {}, wsl=False))
argv = ("python3", "-c", sys.argv[3], "{host}", "{port}")
with launcher.launch(LaunchSpec("victim/trials/0000", argv, Path(sys.argv[2]), gpus=(0,))) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""


def options(**more):
    return DockerLauncherConfig(kind="docker", image="unused", **{"hf_home": None, **more})


@pytest.fixture
def make(base_image):
    def launcher(hidden=(), env=None, wsl=False, image=base_image, hub=None, **more):
        return DockerLauncher(Contents(image, options(**more), hub, env or {}, wsl), tuple(hidden))

    return launcher


@pytest.fixture
def spec(tmp_path):
    def make(*arguments, program=ECHO_SERVER, **more):
        argv = ("python3", "-c", program, "{host}", "{port}", *arguments)
        log = tmp_path / "logs" / f"{len(list(tmp_path.glob('logs/*')))}.log"
        return LaunchSpec("contract/trials/0000", argv, log, **more)

    return make


def containers(engine):
    return sorted(one.id for one in engine.containers.list(all=True, ignore_removed=True))


@pytest.fixture
def footprint(engine, state_dir):
    def take():
        children = [child.pid for child in psutil.Process().children(recursive=True)]
        disk = sorted(volume.id for volume in engine.volumes.list()), sorted(net.id for net in engine.networks.list())
        return containers(engine), disk, published(), children, sorted(state_dir.glob("launches/*"))

    return take


def published():
    """The ports that the engine's proxies listen on; whatever else this host does is its own affair."""
    return sorted(
        p.info["cmdline"] for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "docker-proxy"
    )


class TestDockerLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self, make):
        return make()

    @pytest.fixture
    def spec(self, spec):
        return spec

    @pytest.fixture
    def footprint(self, footprint):
        return footprint


def shown(server):
    """What a program that ends by itself has printed."""
    until(lambda: not server.life().running)
    server.log.finish()
    return server.log.lines


def only(engine):
    (container,) = engine.containers.list(filters={"label": "tuner.launch"})
    return container


def test_a_container_says_whose_it_is_and_is_published_on_the_loopback_interface_only(make, spec, engine):
    with make().launch(spec()) as server:
        container = only(engine)
        labels, host = container.labels, container.attrs["HostConfig"]
        (binding,) = container.attrs["NetworkSettings"]["Ports"]["8000/tcp"]
    assert (labels["tuner.study"], labels["tuner.trial"]) == ("contract", "trials/0000")
    assert Owner.parse(labels[OWNER]) == Owner.parse(str(Owner.me()))
    assert container.name == f"tuner-{labels['tuner.launch']}"
    assert binding["HostIp"] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{binding['HostPort']}"
    assert host["Init"]
    assert host["IpcMode"] == "host"
    assert host["RestartPolicy"]["Name"] in ("", "no")


def test_a_container_gains_no_privileges_and_no_processes_without_end(make, spec, engine):
    program = (
        "import pathlib, re; s = pathlib.Path('/proc/self/status').read_text();"
        "print(*(re.search(name + r':\\s*(\\w+)', s)[1] for name in ('NoNewPrivs', 'CapEff')), flush=True)"
    )
    wait = "import time; time.sleep(60)"
    with make(pids=77).launch(spec(program=wait)):
        assert only(engine).attrs["HostConfig"]["PidsLimit"] == 77
    with make().launch(spec(program=program)) as server:
        fixed, capabilities = shown(server)[0].split()
    assert fixed == "1"
    assert int(capabilities, 16) != 0
    with make(drop_capabilities=True).launch(spec(program=program)) as server:
        assert int(shown(server)[0].split()[1], 16) == 0


def test_the_deployments_own_security_options_devices_and_user_count_more(make, spec, engine):
    more = {"security_opt": ["no-new-privileges:false", "label=disable"], "devices": ["/dev/null:/dev/mine:r"]}
    with make(user="1234:1234", **more).launch(spec()) as server:
        answer(server)
        host = only(engine).attrs["HostConfig"]
        assert only(engine).attrs["Config"]["User"] == "1234:1234"
    assert host["SecurityOpt"] == more["security_opt"]
    assert [device["PathInContainer"] for device in host["Devices"]] == ["/dev/mine"]


def test_what_else_the_deployments_container_has_is_carried_over(make, spec, engine):
    asked = {
        "group_add": ("44",),
        "cap_add": ("SYS_PTRACE",),
        "ulimits": {"nofile": (4096, 8192)},
        "extra_hosts": ("models.internal:10.1.2.3",),
        "ipc": "private",
        "shm_gib": 1,
        "cap_drop": ("NET_RAW",),
        "device_cgroup_rules": ("c 226:* rwm",),
        "sysctls": {"net.core.somaxconn": "1024"},
        "dns": ("10.0.0.2",),
        "dns_opt": ("use-vc",),
        "dns_search": ("internal",),
        "pid": "host",
        "userns": "host",
        "cgroup": "host",
        "cpus": 0.5,
        "cpuset": "0",
        "cpu_shares": 512,
        "pids": None,
        "memory_gib": 1,
        "memory_swap_gib": 2,
        "read_only": True,
        "tmpfs": ("/scratch:size=1m",),
        "runtime": "runc",
        "working_dir": "/tmp",
    }
    with make(**asked).launch(spec()):
        host = only(engine).attrs["HostConfig"]
        assert (host["GroupAdd"], host["CapAdd"]) in ((["44"], ["SYS_PTRACE"]), (["44"], ["CAP_SYS_PTRACE"]))
        assert [(limit["Name"], limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]] == [("nofile", 4096, 8192)]
        assert host["ExtraHosts"] == ["models.internal:10.1.2.3"]
        assert host["ShmSize"] == 1 << 30
        assert ("NET_RAW" in host["CapDrop"][0], host["DeviceCgroupRules"]) == (True, ["c 226:* rwm"])
        assert (host["Sysctls"], host["Tmpfs"]) == ({"net.core.somaxconn": "1024"}, {"/scratch": "size=1m"})
        assert (host["Dns"], host["DnsOptions"], host["DnsSearch"]) == (["10.0.0.2"], ["use-vc"], ["internal"])
        assert (host["PidMode"], host["UsernsMode"], host["CgroupnsMode"], host["Runtime"]) == (*3 * ("host",), "runc")
        assert (host["NanoCpus"], host["CpusetCpus"], host["CpuShares"]) == (500_000_000, "0", 512)
        assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1 << 30, 2 << 30, None)
        assert (host["ReadonlyRootfs"], only(engine).attrs["Config"]["WorkingDir"]) == (True, "/tmp")


def test_a_volume_that_is_there_already_is_mounted_and_stays(make, spec, engine):
    volume = engine.volumes.create("tuner-test-there-already")
    try:
        with make(volumes=("tuner-test-there-already:/there:ro",)).launch(spec()):
            (mount,) = only(engine).attrs["Mounts"]
            assert (mount["Name"], mount["Destination"], mount["RW"]) == (volume.name, "/there", False)
        assert engine.volumes.get(volume.name)
    finally:
        volume.remove()


def test_an_entrypoint_of_the_images_own_runs_in_front_of_the_engine(make, tmp_path, engine, base_image):
    wrapper = engine.containers.create(base_image)
    image = wrapper.commit("tuner-test/wrapped", "1", changes='ENTRYPOINT ["env", "WRAPPED=yes"]')
    wrapper.remove()
    program = "import os, sys; print(sys.argv[1:], os.environ['WRAPPED'])"
    try:
        launcher = make(image=image.id, wrapped=True)
        with launcher.launch(LaunchSpec("t/0", ("python3", "-c", program, "argument"), tmp_path / "log")) as server:
            assert shown(server) == ["['argument'] yes"]
    finally:
        engine.images.remove(image.id, force=True)


def test_a_server_is_reached_on_the_loopback_interface_and_from_no_other_container(make, spec, engine, base_image):
    ask = "import socket, sys; socket.create_connection((sys.argv[1], 8000), 2); print('reached')"
    with make().launch(spec()) as server:
        assert answer(server)
        (network,) = only(engine).attrs["NetworkSettings"]["Networks"].values()
        address = network["IPAddress"]
        with pytest.raises(docker.errors.ContainerError, match=r"timed out|No route|refused|unreachable"):
            engine.containers.run(base_image, ["python3", "-c", ask, address], remove=True)
    with make(network="bridge").launch(spec()) as server:
        assert answer(server)
        (network,) = only(engine).attrs["NetworkSettings"]["Networks"].values()
        said = engine.containers.run(base_image, ["python3", "-c", ask, network["IPAddress"]], remove=True)
        assert said == b"reached\n"


def test_a_network_without_a_container_is_found_and_removed(engine, make, spec):
    labels = {"tuner.launch": "old-0", "tuner.study": "old", "tuner.owner": "another-boot/1/1/0.00"}
    network = engine.networks.create("tuner-old-0", labels=labels)
    (left,) = left_overs()
    assert str(left).startswith("network tuner-old-0 (")
    left.remove()
    assert network.id not in [one.id for one in engine.networks.list()]


def test_shared_memory_of_its_own_is_eight_gib(make, spec):
    program = "import os; s = os.statvfs('/dev/shm'); print(s.f_frsize * s.f_blocks // 2**30, flush=True)"
    with make(ipc="private").launch(spec(program=program)) as server:
        assert shown(server) == ["8"]


@pytest.mark.parametrize(("wsl", "cuda"), [(False, "0,1"), (True, "0,2")])
@pytest.mark.usefixtures("gpu_engine")
def test_gpus_are_asked_for_by_index_and_chosen_again_by_cuda(make, spec, wsl, cuda):
    names = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    program = f"import os; print(*map(os.environ.get, {names}), flush=True)"
    with make(wsl=wsl).launch(spec(program=program, gpus=(2, 0))) as server:
        assert shown(server) == [f"0,2 {cuda} PCI_BUS_ID"]


@pytest.mark.usefixtures("gpu_engine")
def test_a_container_that_sees_other_gpus_than_it_was_given_is_told(make, tmp_path):
    """As on WSL2, whose driver gives every container all GPUs; an image without torch cannot be asked."""
    (tmp_path / "torch.py").write_text(
        "import os\nclass cuda:\n    @staticmethod\n    def device_count():\n"
        "        return len(os.environ['CUDA_VISIBLE_DEVICES'].split(',')) if 'OBEYS' in os.environ else 3\n"
    )
    env = {"PYTHONPATH": "/fake"}
    torch = {"mounts": [f"{tmp_path}:/fake:ro"], "env": env}
    with pytest.raises(GpuCountWrong, match=r"(?s)given 2 GPUs \(0, 2\) sees 3.*CUDA_VISIBLE_DEVICES"):
        check_gpus(make(**torch), (0, 2))
    env["OBEYS"] = "1"
    check_gpus(make(**torch), (0, 2))
    check_gpus(make(), (0, 2))


def test_a_cache_outlives_its_containers_and_nothing_else_does(make, spec, engine):
    write = "open('/cache/kept', 'w').write('yes'); open('/lost', 'w').write('no')"
    read = "import os; print(open('/cache/kept').read(), os.path.exists('/lost'), flush=True)"
    volumes.ensure(engine, ["contract-test"])
    try:
        for program in (write, read):
            with make(caches={"contract-test": "/cache"}).launch(spec(program=program)) as server:
                said = shown(server)
        assert said == ["yes False"]
        assert "contract-test" in [cache.name for cache in volumes.listed(engine)]
    finally:
        engine.volumes.get(volume_name("contract-test")).remove()


def test_a_mount_can_be_read_only(make, spec, tmp_path):
    (tmp_path / "model").write_text("weights")
    program = "print(open('/m/model').read(), flush=True); open('/m/other', 'w')"
    with make(mounts=[f"{tmp_path}:/m:ro"]).launch(spec(program=program)) as server:
        lines = shown(server)
    assert "weights" in lines
    assert any("Read-only file system" in line for line in lines), "the engine promises no order between two streams"


def test_secrets_are_cut_out_of_the_log_wherever_its_pieces_end(make, spec):
    program = "import time; print('key=sec', end='', flush=True); time.sleep(0.3); print('ret-42 again secret-42')"
    wanted = spec(program=program)
    with make(hidden=["secret-42"]).launch(wanted) as server:
        assert shown(server) == ["key=*** again ***"]
    assert "secret-42" not in wanted.log_path.read_text()


def test_memory_taken_by_the_kernel_is_told_from_a_crash(make, spec):
    program = "x = bytearray(256 << 20); print('not reached', flush=True)"
    with make(memory_gib=0.05).launch(spec(program=program)) as server:
        assert shown(server) == []
        life = server.life()
    assert (life.oom_killed, life.exit_code) == (True, 137)


def test_a_command_runs_to_its_end_and_says_what_it_said(make, footprint):
    before = footprint()
    heard: list[str] = []
    ended = make().run("task", ("python3", "-c", "print('one'); print('two'); exit(7)"), {"A": "b"}, heard.append)
    assert (ended.exit_code, ended.lines) == (7, ("one", "two"))
    assert set(heard) <= {"one", "two"}
    assert footprint() == before


@pytest.fixture
def victim(base_image, tmp_path, gpu_engine):
    """A tuner in a process of its own with a container up."""
    tuner = subprocess.Popen(
        [sys.executable, "-c", TUNER_PROGRAM, base_image, str(tmp_path / "server.log"), ECHO_SERVER],
        stdout=subprocess.PIPE,
    )
    assert present(tuner.stdout).readline().startswith(b"http://127.0.0.1:")
    yield tuner
    present(tuner.stdout).close()
    tuner.kill()
    tuner.wait()
    for left in left_overs():
        left.remove()


def watchdogs(tuner):
    return [child for child in psutil.Process(tuner.pid).children() if "tuner.host.watchdog" in child.cmdline()]


def test_the_watchdog_removes_the_container_within_5_s_of_a_kill_9(victim, engine):
    (dog,) = watchdogs(victim)
    victim.kill()
    until(lambda: not engine.containers.list(all=True, filters={"label": "tuner.launch"}, ignore_removed=True), 5)
    until(lambda: not alive(dog.pid), 15)


def test_when_both_die_whoever_comes_next_removes_the_container(victim, engine):
    assert any("victim" in busy for busy in under_way())
    assert left_overs() == []
    (dog,) = watchdogs(victim)
    kill(dog.pid, victim.pid)
    (left,) = left_overs()
    assert "study victim" in str(left)
    assert "gone" in str(left)
    left.remove()
    assert engine.containers.list(all=True, filters={"label": "tuner.launch"}) == []


def test_a_gpu_stays_taken_until_its_container_is_gone(victim, make, spec):
    with pytest.raises(GpuBusy, match="victim/trials/0000"), make().launch(spec(gpus=(0,))):
        pass
    (dog,) = watchdogs(victim)
    victim.kill()
    until(lambda: not alive(dog.pid), 15)
    with make().launch(spec(gpus=(0,))) as server:
        assert answer(server)


def test_a_watchdog_that_was_killed_is_not_missed(make, spec, footprint):
    before = footprint()
    with make().launch(spec()) as server:
        answer(server)
        (dog,) = [child for child in psutil.Process().children() if "tuner.host.watchdog" in child.cmdline()]
        kill(dog.pid)
    assert footprint() == before


def launch(launcher, spec):
    with launcher.launch(spec):
        pass


def test_a_missing_image_is_named_with_its_fix(make, spec, footprint):
    before = footprint()
    with pytest.raises(ImageMissing, match=r"(?s)no-such-image.*launcher\.image"):
        launch(make(image="no-such-image:1"), spec())
    assert footprint() == before


def test_a_port_that_is_taken_is_named_with_its_fix(make, spec, footprint):
    with make().launch(spec()) as server:
        port = int(server.url.rsplit(":", 1)[1])
        before = footprint()
        with pytest.raises(PortTaken, match=rf"(?s){port}.*launcher\.port=null"):
            launch(make(port=port), spec())
        assert footprint() == before


def test_a_program_that_the_image_does_not_have_is_named(make, tmp_path, footprint):
    before = footprint()
    missing = LaunchSpec("contract/trials/0000", ("no-such-vllm", "serve"), tmp_path / "s.log")
    with (
        pytest.raises(EngineUnavailable, match=r"(?s)no-such-vllm.*engine\.executable"),
        make().launch(missing) as server,
    ):
        until(lambda: not server.life().running)
    assert footprint() == before


def test_a_name_that_is_taken_is_told_apart(engine, base_image):
    first = engine.containers.create(base_image, name="tuner-test-name")
    try:
        with pytest.raises(NameTaken, match="tuner clean"), translated():
            engine.containers.create(base_image, name="tuner-test-name")
    finally:
        first.remove()


def test_an_engine_without_the_nvidia_runtime_is_told_apart(engine, base_image):
    # as the engine says it where no runtime is installed: this one has a stub that answers to "nvidia"
    wanted = docker.types.DeviceRequest(driver="not-there", device_ids=["0"], capabilities=[["gpu"]])
    container = engine.containers.create(base_image, "true", device_requests=[wanted])
    try:
        with pytest.raises(NoNvidiaRuntime, match="nvidia-ctk runtime configure"), translated():
            container.start()
    finally:
        container.remove(force=True)


def test_an_engine_that_is_just_restarting_is_waited_for_in_the_middle_of_a_study(tmp_path):
    there, later = engine_url().removeprefix("unix://"), tmp_path / "docker.sock"
    with pytest.raises(EngineUnavailable), connected(f"unix://{later}"):
        pass
    coming = threading.Timer(0.7, later.symlink_to, [there])
    coming.start()
    with connected(f"unix://{later}", patience_s=10) as client:
        assert client.ping()
    coming.join()


def test_a_lifeline_is_cut_when_its_engine_ends_and_an_engine_that_knows_no_events_has_none(tmp_path):
    lines = []
    for status in (b"200 OK", b"500 No"):
        path = tmp_path / status[:3].decode()
        with socket.socket(socket.AF_UNIX) as engine:
            engine.bind(str(path))
            engine.listen()
            dialled = threading.Thread(target=lambda path=path: lines.append(Lifeline(f"unix://{path}")))
            dialled.start()
            answering, _ = engine.accept()
            answering.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n\r\n")
            dialled.join()
            assert not lines[-1].cut
            answering.close()
    assert [line.cut for line in lines] == [True, False]
    for line in lines:
        line.close()


RESTART = os.environ.get("TUNER_TEST_DOCKER_RESTART")


class Relay(socketserver.StreamRequestHandler):
    """Hands a connection on to the engine, as soon as there is one, and ends it with the engine's own end."""

    real: str

    def handle(self):
        with socket.socket(socket.AF_UNIX) as onward:
            while onward.connect_ex(self.real):
                time.sleep(0.05)
            back = threading.Thread(target=self.copy, args=(onward, self.connection))
            back.start()
            self.copy(self.connection, onward)
            back.join()

    @staticmethod
    def copy(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A socket that is listened on whether the engine behind it is up or not."""
    real = engine_url().removeprefix("unix://")
    relay = type("Bound", (Relay,), {"real": real})
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "docker.sock"), relay) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        yield
        server.shutdown()
        thread.join()


@pytest.mark.skipif(
    not RESTART,
    reason="restarts the Docker engine: TUNER_TEST_DOCKER_RESTART='sudo systemctl restart docker' make test",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("socket_activated", [False, True])
def test_an_engine_that_restarts_is_noticed_at_once_and_the_container_does_not_stay(
    make, spec, engine, request, socket_activated
):
    """Also where systemd goes on listening for it, and holds every question until it is up again."""
    if socket_activated:
        request.getfixturevalue("systemd")

    def restarted():
        with make().launch(spec()) as server:
            answer(server)
            restarting.append(
                subprocess.Popen(present(RESTART), shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            while server.life().running:
                time.sleep(0.05)
                assert time.monotonic() < deadline, "it was not noticed"
            pytest.fail("taken for the server's own end")

    restarting: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + 10
    with pytest.raises(EngineUnavailable, match="tried again"):
        restarted()
    assert restarting[0].wait(60) == 0
    until(lambda: not engine.containers.list(all=True, filters={"label": "tuner.launch"}, ignore_removed=True), 15)
    gc.collect()  # the SDK leaves the sockets open with which it tried to reach the engine


def test_what_is_asked_of_a_container_is_in_no_process_list(make, spec):
    with make(env={"HF_TOKEN": "hush-hush-hush"}).launch(spec(env={"OTHER": "hush-too-hush"})) as server:
        answer(server)
        lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not any("hush" in line for line in lines)
