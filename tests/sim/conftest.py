"""The simulated server as a real process, and settings as the command line gives them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tuner.sim import flags
from tuner.sim.settings import Settings, Site, resolve

GLM_AWQ = "QuantTrio/GLM-4.7-Flash-AWQ"
SITE_ENV = {"VLLM_MARLIN_USE_ATOMIC_ADD": "1", "OMP_NUM_THREADS": "4"}
SITE_FLAGS = (
    "--tensor-parallel-size 2 --enable-expert-parallel --gpu-memory-utilization 0.92 --max-model-len 131072 "
    "--max-num-batched-tokens 32768 --max-num-seqs 64 --dtype half"
)

Configure = Callable[..., Settings]


def configure(
    arguments: str = SITE_FLAGS,
    *,
    model: str = GLM_AWQ,
    hardware: str = "rtx4090",
    gpus: int = 2,
    version: str = "0.15",
    env: Mapping[str, str] = SITE_ENV,
) -> Settings:
    """Settings from a command line, on a site given by names."""
    site = Site.of(hardware, gpus, version)
    return resolve(model, flags.parse(site.version, [model, *arguments.split()]), env, site)


@pytest.fixture(name="configure", scope="session")
def _configure() -> Configure:
    return configure


@pytest.fixture(scope="session")
def glm_layers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """A directory with GLM-4.7-Flash's config.json, cut to so many layers."""

    def write(layers: int) -> str:
        folder = tmp_path_factory.mktemp(f"glm47flash-l{layers}")
        config = {
            "architectures": ["Glm4MoeLiteForCausalLM"],
            "num_hidden_layers": layers,
            "hidden_size": 2048,
            "vocab_size": 154880,
            "num_attention_heads": 20,
            "num_key_value_heads": 20,
            "intermediate_size": 10240,
            "max_position_embeddings": 202752,
            "q_lora_rank": 768,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 192,
            "qk_rope_head_dim": 64,
            "v_head_dim": 256,
            "n_routed_experts": 64,
            "num_experts_per_tok": 4,
            "n_shared_experts": 1,
            "moe_intermediate_size": 1536,
            "first_k_dense_replace": 1,
        }
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return write


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    body: Any


@dataclass
class Streamed:
    """A streamed answer: its chunks and when each arrived."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    done: bool = False

    def deltas(self, key: str) -> list[Any]:
        """That field of every delta which has it."""
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", [])]
        return [delta[key] for delta in deltas if delta.get(key) not in (None, "")]

    @property
    def usage(self) -> dict[str, Any]:
        """The usage in the last chunk."""
        usage: dict[str, Any] = self.chunks[-1]["usage"]
        return usage


class SimServer:
    """A simulated server in a process group of its own."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log_path: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = log_path
        self.started_s = time.perf_counter()
        command = [sys.executable, "-m", "tuner.sim", "serve", *arguments, "--port", str(port)]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **env}
            )

    def log(self) -> list[str]:
        """Its output so far; a redrawn progress bar counts as lines."""
        return self.log_path.read_text("utf-8").replace("\r", "\n").splitlines()

    def wait_ready(self, timeout_s: float = 20.0) -> "SimServer":
        """Until /health answers."""
        deadline_s = time.perf_counter() + timeout_s
        while time.perf_counter() < deadline_s and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.request("/health").status == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError("not ready:\n" + "\n".join(self.log()[-20:]))

    def wait_exit(self, timeout_s: float = 20.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def request(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """GET, or POST of a JSON body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return Reply(response.status, _parsed(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _parsed(error.read()))

    def stream(self, body: Mapping[str, object], path: str = "/v1/chat/completions") -> Streamed:
        """POST with ``stream`` on, read to the end."""
        data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
        streamed = Streamed()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=20) as response:
            for line in response:
                if line == b"data: [DONE]\n":
                    streamed.done = True
                elif line.startswith(b"data: "):
                    streamed.times_s.append(time.perf_counter())
                    streamed.chunks.append(json.loads(line[6:]))
        return streamed


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Launch = Callable[..., SimServer]


@contextlib.contextmanager
def launcher(folder: Path) -> Iterator[Launch]:
    """Starts servers and ends them all, whatever happens."""
    servers: list[SimServer] = []

    def launch(
        arguments: str = SITE_FLAGS,
        *,
        model: str = GLM_AWQ,
        env: Mapping[str, str] | None = None,
        sim: str = "--sim-clock-startup 500 --sim-noise-launch 0",
        port: int | None = None,
    ) -> SimServer:
        log_path = folder / f"server-{len(servers)}.log"
        words = [model, *arguments.split(), *sim.split()]
        servers.append(SimServer(words, env or {}, log_path, port or free_port()))
        return servers[-1]

    try:
        yield launch
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts simulated servers; all are killed at the end of the test."""
    with launcher(tmp_path) as start:
        yield start
