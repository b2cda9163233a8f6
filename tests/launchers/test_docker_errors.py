"""What the Docker engine says, in its words of 20.10 to 28, becomes an error that names the cause and the fix."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
import requests
from docker.errors import APIError

from tuner.errors import EngineUnavailable, InfrastructureError, PortTaken
from tuner.launchers.docker.daemon import NameTaken, NoNvidiaRuntime, connected, pull_failed, translated

NVIDIA = [
    'could not select device driver "" with capabilities: [[gpu]]',
    'could not select device driver "nvidia" with capabilities: [[gpu]]',
    "Unknown runtime specified nvidia",
    "unknown or invalid runtime name: nvidia",
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error running prestart hook #0: exit status 1, "
    "stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: initialization error: nvml error: driver "
    "not loaded: unknown",
    "failed to create shim task: OCI runtime create failed: runc create failed: error running hook #0: exit status 1, "
    "stderr: nvidia-container-cli: mount error: stat failed: /usr/lib/wsl/drivers/x/libcuda.so.1.1: no such file or "
    "directory: unknown",
    "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0",
]
PORTS = [
    "driver failed programming external connectivity on endpoint x (93a4): Bind for 127.0.0.1:8000 failed: port is "
    "already allocated",
    "driver failed programming external connectivity on endpoint x (93a4): Error starting userland proxy: listen tcp4 "
    "127.0.0.1:8000: bind: address already in use",
    "failed to set up container networking: driver failed programming external connectivity on endpoint x: failed to "
    "bind host port for 127.0.0.1:8000:172.17.0.2:8000/tcp: address already in use",
    "Ports are not available: exposing port TCP 127.0.0.1:8000 -> 127.0.0.1:0: listen tcp 127.0.0.1:8000: bind: Only"
    " one usage of each socket address (protocol/network address/port) is normally permitted.",
]
NAMES = [
    'Conflict. The container name "/tuner-x" is already in use by container "1f0b". You have to remove (or rename) '
    "that container to be able to reuse that name."
]
PROGRAMS = [
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: exec: "vllm": executable file not found in $PATH: unknown',
    "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "
    '"/opt/venv/bin/vllm": stat /opt/venv/bin/vllm: no such file or directory: unknown',
]
MOUNTS = [
    'invalid mount config for type "bind": bind source path does not exist: /models',
    "Mounts denied: \nThe path /models is not shared from the host and is not known to Docker.",
    'failed to create shim task: OCI runtime create failed: runc create failed: error mounting "/x/file" to rootfs at '
    '"/y": mount /x/file:/y: not a directory: unknown',
]
NETWORKS = [
    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
    "all predefined address pools have been fully subnetted",
]
FULL = ["write /var/lib/docker/tmp/GetImageBlob412: no space left on device"]
OTHERS = [
    "No such container: 0123456789ab",
    "cannot kill container: 0123: Container 0123 is not running",
    "conflict: unable to delete 0123 (must be forced) - image is being used by stopped container 4567",
    'Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available for "x"',
]

CASES = [
    *((said, NoNvidiaRuntime, "nvidia-ctk runtime configure") for said in NVIDIA),
    *((said, PortTaken, "launcher.port=null") for said in PORTS),
    *((said, NameTaken, "tuner clean") for said in NAMES),
    *((said, EngineUnavailable, "correct engine.executable") for said in PROGRAMS),
    *((said, EngineUnavailable, "correct launcher.mounts") for said in MOUNTS),
    *((said, EngineUnavailable, "launcher.network=bridge") for said in NETWORKS),
    *((said, InfrastructureError, "docker system df") for said in FULL),
]


def refused(said):
    with pytest.raises(InfrastructureError) as caught, translated("starting the container"):
        raise APIError("500 Server Error", explanation=said)
    return caught.value


@pytest.mark.parametrize(("said", "kind", "fix"), CASES)
def test_a_refusal_is_told_apart_with_its_fix_and_keeps_dockers_own_words(said, kind, fix):
    error = refused(said)
    assert type(error) is kind
    assert fix in error.fix
    assert said in error.message


@pytest.mark.parametrize("said", OTHERS)
def test_what_has_no_known_shape_is_not_guessed_at(said):
    error = refused(said)
    assert type(error) is EngineUnavailable
    assert error.message == f"the Docker engine refused while starting the container: {said}"


@pytest.fixture
def near():
    """A folder for sockets: those of the tests and of the user may be too deep for one (107 bytes)."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_an_engine_that_is_down_says_how_to_start_it(near):
    stale = near / "stale.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(stale))
    for path in (near / "none.sock", stale):
        expected = pytest.raises(EngineUnavailable, match=r"(?s)no Docker engine answers.*start Docker")
        with expected, connected(f"unix://{path}"):
            pass


def test_a_socket_whose_path_is_too_long_is_named(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix:///{'x' * 120}/docker.sock")
    with pytest.raises(EngineUnavailable, match=r"(?s)too long: unix:///xxx.*shorter path"), connected():
        pass


def test_an_engine_that_this_user_may_not_use_is_told_apart(monkeypatch, near):
    """A socket in a folder that everybody may enter: root becomes somebody else, another user locks itself out."""
    with socket.socket(socket.AF_UNIX) as server:
        near.chmod(0o711)
        server.bind(f"{near}/docker.sock")
        server.listen()
        Path(f"{near}/docker.sock").chmod(0)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{near}/docker.sock")
        me = os.geteuid()
        os.seteuid(65534 if me == 0 else me)
        try:
            with pytest.raises(EngineUnavailable, match=r"(?s)permission denied.*usermod -aG docker"), connected():
                pass
        finally:
            os.seteuid(me)


def test_an_engine_on_another_host_is_refused_since_its_ports_are_not_ours():
    with pytest.raises(EngineUnavailable, match="not on this host"), connected("tcp://192.0.2.1:2375"):
        pass


def test_an_engine_that_goes_away_in_the_middle_of_an_answer_is_an_error_of_ours():
    with pytest.raises(EngineUnavailable, match="went away"), translated():
        raise requests.exceptions.ChunkedEncodingError("Connection broken: InvalidChunkLength")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("manifest for vllm/vllm-openai:no-such not found: manifest unknown: manifest unknown", "docker login"),
        ("pull access denied for x/y, repository does not exist or may require 'docker login'", "docker login"),
        ("dial tcp: lookup registry.example on 127.0.0.53:53: server misbehaving", "check the network"),
        ("net/http: request canceled while waiting for connection (Client.Timeout exceeded)", "check the network"),
        ("toomanyrequests: You have reached your pull rate limit.", "check the network"),
    ],
)
def test_a_wrong_image_name_is_told_from_a_registry_that_does_not_answer(said, fix):
    assert fix in pull_failed("x/y:z", said).fix
