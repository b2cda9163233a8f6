"""tuner and ``vllm bench serve`` measure the same on one real vLLM server at the same time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agreement import SPREAD, TOGETHER, TRAFFIC, Pairs, Tuner
from tests.present import present
from tuner.bench import vllm_result
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.load.client import LoadClient
from tuner.testing.launcher import until

HERE = os.environ.get("TUNER_TEST_VLLM")
FEWEST, MOST = 8, 20
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, CLIENT_CORES = set(CORES[1:]) or set(CORES), {CORES[0]}

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not HERE, reason="needs real vLLM: TUNER_TEST_VLLM=DIR make test (DIR/venv/bin/vllm, DIR/models)"
    ),
]

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_MLA_DISABLE": "1"}
# fresh prompts on both sides: what is cached would be nobody's to compare
FLAGS = ("-O0", "--load-format", "dummy", "--max-model-len", "2048", "--no-enable-prefix-caching")


def healthy(server):
    import httpx

    try:
        return httpx.get(f"{server.url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        assert server.life().running, "\n".join(server.log.lines[-20:])
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    argv = (f"{HERE}/venv/bin/vllm", "serve", f"{HERE}/models/glm-tiny", "--host", "{host}", "--port", "{port}")
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    argv = (*on(SERVER_CORES), *argv, "--served-model-name", "glm", *FLAGS)
    spec = LaunchSpec("agreement/0000", argv, log, {**QUIET, **CPU})
    with ProcessLauncher().launch(spec) as server:
        until(lambda: healthy(server), timeout_s=600)
        yield server


def on(cores):
    """The command's own prefix that keeps it to these cores."""
    return ("taskset", "--cpu-list", ",".join(map(str, sorted(cores))))


@pytest.fixture
def client():
    """tuner's, on the cores that are the clients': whoever runs on the server's slows what it measures."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CLIENT_CORES)
    try:
        with LoadClient() as client:
            yield client
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.fixture
def vllm_bench(server, tmp_path):
    """Runs ``vllm bench serve`` once, with the traffic that tuner sends."""
    command = [*on(CLIENT_CORES), f"{HERE}/venv/bin/python", str(Path(__file__).parent / "vllm_bench_turns.py")]
    with (
        (tmp_path / "bench.log").open("w") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[1])},
        ) as process,
    ):
        assert present(process.stdout).readline() == "ready\n", (tmp_path / "bench.log").read_text()
        runs = iter(range(1000))

        def run():
            # a seed for each run: its prompts are drawn from it
            present(process.stdin).write(json.dumps(arguments(server.url, next(runs), tmp_path)) + "\n")
            present(process.stdin).flush()
            assert present(process.stdout).readline() == "done\n", (tmp_path / "bench.log").read_text()
            return vllm_result.read(tmp_path / "result.json").numbers

        yield run
        present(process.stdin).close()


def arguments(url, seed, folder):
    return [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", url, "--model", "glm"),
        *("--tokenizer", f"{HERE}/models/glm-tiny", "--dataset-name", "random", "--seed", str(seed), "--ignore-eos"),
        *("--random-input-len", "100", "--random-output-len", "32", "--random-range-ratio", str(SPREAD)),
        *("--num-prompts", str(TRAFFIC.requests), "--max-concurrency", str(TRAFFIC.concurrency)),
        # users come one after the other, as tuner's do
        *("--request-rate", "100", "--burstiness", "1000"),
        *("--temperature", str(TRAFFIC.temperature), "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--save-result", "--result-dir", str(folder), "--result-filename", "result.json", "--disable-tqdm"),
    ]


def test_tuner_and_vllms_own_benchmark_agree_on_throughput_tpot_and_ttft(server, client, vllm_bench):
    pairs = Pairs(Tuner(client, server.url, "glm", TOGETHER), vllm_bench)
    pairs.ours(), vllm_bench()  # the first of each is not like the others
    pairs.run(FEWEST)
    while pairs.disagreeing and pairs.count < MOST:  # on a busy machine more pairs tell
        pairs.run(4)
    sys.stdout.write(f"\ntuner over vllm bench serve:\n{pairs}\n")
    if pairs.disagreeing and not pairs.apart:
        pytest.skip(f"this machine is too noisy to tell; run it on one that does nothing else:\n{pairs}")
    assert not pairs.apart, f"\n{pairs}"
