"""The scheduler with live settings inside the simulated server, which makes and asks it as vLLM does."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sim.conftest import Launch, SimServer
from tests.sim.test_server import question, wait_until
from tuner.engines.live import Live
from tuner.engines.vllm.live import live_of

FLAGS = "--tensor-parallel-size 2 --max-model-len 4096 --max-num-seqs 16 --max-num-batched-tokens 2048"


class Changed:
    """A server, and the folder over which it is changed."""

    def __init__(self, launch: Launch, folder: Path, version: str) -> None:
        live = live_of(version, {})
        assert isinstance(live, Live)
        self.live, self.folder = live, folder
        live.prepare(folder)
        self.server: SimServer = launch(
            f"{FLAGS} --scheduler-cls {live.args['scheduler_cls']}",
            env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{folder}", **live.env(str(folder))},
            sim=f"--sim-clock-startup 500 --sim-noise-launch 0 --sim-version {version}",
        ).wait_ready()

    def ask(self, change: int, **setting: int) -> None:
        self.live.ask(self.folder, change, setting)

    def confirmed(self, change: int) -> bool:
        return self.live.status(self.server.log(), change).confirmed == 1

    def answers(self) -> bool:
        return self.server.request("/v1/chat/completions", question()).status == 200

    def running(self) -> int:
        text = str(self.server.request("/metrics").body)
        line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running"))
        return int(float(line.split()[-1]))


@pytest.fixture
def changed(launch: Launch, tmp_path: Path) -> Callable[[str], Changed]:
    folder = tmp_path / "live"
    folder.mkdir()
    return lambda version: Changed(launch, folder, version)


@pytest.fixture
def load() -> Iterator[Callable[[SimServer, int, int], None]]:
    """Sends requests side by side; all are answered at the end."""
    threads: list[threading.Thread] = []

    def send(server: SimServer, count: int, tokens: int) -> None:
        for n in range(count):
            body = question(f"question {n}", max_tokens=tokens)
            threads.append(threading.Thread(target=server.request, args=("/v1/chat/completions", body)))
            threads[-1].start()

    yield send
    for thread in threads:
        thread.join()


def test_a_limit_falls_in_mid_load_and_rises_again(changed, load):
    vllm = changed("0.32.0")
    assert vllm.answers()  # kernels are compiled now
    load(vllm.server, 12, 150)
    assert wait_until(lambda: vllm.running() == 12, timeout_s=20)
    vllm.ask(1, max_num_seqs=2)
    assert wait_until(lambda: vllm.confirmed(1))
    assert vllm.running() == 12  # what runs goes on
    load(vllm.server, 6, 100)
    assert wait_until(lambda: vllm.running() == 2, timeout_s=20)
    vllm.ask(2, max_num_seqs=16)
    assert wait_until(lambda: vllm.confirmed(2))
    assert wait_until(lambda: vllm.running() > 2)


def test_an_idle_server_takes_a_change_with_its_next_request_and_refuses_what_is_too_much(changed):
    vllm = changed("0.32.0")
    vllm.ask(1, max_num_seqs=1, max_num_batched_tokens=64, long_prefill_token_threshold=32)
    assert not vllm.confirmed(1)
    assert vllm.answers()
    assert vllm.confirmed(1)
    for change, setting in ((2, {"max_num_seqs": 17}), (3, {"max_num_batched_tokens": 0}), (4, {"block_size": 16})):
        vllm.ask(change, **setting)
        assert vllm.answers()
        assert vllm.live.status(vllm.server.log(), change).refused
        assert not vllm.confirmed(change)


def test_an_older_server_changes_only_once_nothing_runs(changed, load):
    vllm = changed("0.26.0")
    assert vllm.answers()
    load(vllm.server, 6, 150)
    assert wait_until(lambda: vllm.running() == 6, timeout_s=20)
    vllm.ask(1, max_num_seqs=2)
    assert not wait_until(lambda: vllm.confirmed(1), timeout_s=0.5)
    assert wait_until(lambda: vllm.running() == 0, timeout_s=30)
    assert vllm.answers()
    assert vllm.confirmed(1)
    vllm.ask(2, long_prefill_token_threshold=32)
    assert vllm.answers()
    assert "long_prefill_token_threshold cannot be changed" in vllm.live.status(vllm.server.log(), 2).refused
