"""Live settings on real vLLM, on a CPU: one server for all of it, and one study that screens.

OpenAI's and Anthropic's own clients talk to the same server.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from tests import sdks
from tests.present import present
from tuner import composing
from tuner.engines.base import Command
from tuner.engines.live import Live, LiveStatus
from tuner.engines.vllm.engine import VllmEngine
from tuner.engines.vllm.live import live_of
from tuner.launchers.base import LaunchSpec, Server
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.load.client import LoadClient
from tuner.load.endpoints.endpoint import Endpoint
from tuner.study.loop import StudyStopped, run_study
from tuner.terminal.live import PlainLines, Standing
from tuner.testing.launcher import until

HERE = os.environ.get("TUNER_TEST_VLLM")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not HERE, reason="needs real vLLM: TUNER_TEST_VLLM=DIR make test (DIR/venv/bin/vllm, DIR/models)"
    ),
]

ARGS: Mapping[str, str | int] = {
    "served_model_name": "glm",
    "load_format": "dummy",
    "optimization_level": 0,
    "max_model_len": 2048,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 16,
    "reasoning_parser": "deepseek_v3",  # thinks where a request says so
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
}
ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_MLA_DISABLE": "1", "HF_HUB_OFFLINE": "1"}


class Changing:
    """A running server, and the folder over which it is changed."""

    def __init__(self, live: Live, folder: Path, server: Server) -> None:
        self.live, self.folder, self.server = live, folder, server

    def ask(self, change: int, **setting: int) -> None:
        self.live.ask(self.folder, change, setting)

    def status(self, change: int) -> LiveStatus:
        while self.server.log.unread:
            self.server.log.read_new()
        return self.live.status(self.server.log.lines, change)

    def answers(self, tokens: int = 1) -> bool:
        body = {"model": "glm", "prompt": "so far so good", "max_tokens": tokens, "ignore_eos": True}
        return httpx.post(f"{self.server.url}/v1/completions", json=body, timeout=120).status_code == 200

    def running(self) -> int:
        lines = httpx.get(f"{self.server.url}/metrics", timeout=10).text.splitlines()
        return int(float(next(line for line in lines if line.startswith("vllm:num_requests_running")).split()[-1]))

    @contextmanager
    def loaded(self, users: int, tokens: int) -> Iterator[None]:
        """So many users, each with one request after another until the end, all of them answered."""
        ended = threading.Event()
        with ThreadPoolExecutor(users) as pool:
            asking = [pool.submit(self._keep_asking, tokens, ended) for _ in range(users)]
            try:
                yield
            finally:
                ended.set()
        assert all(each.result() for each in asking)

    def _keep_asking(self, tokens: int, ended: threading.Event) -> bool:
        answered = self.answers(tokens)
        while answered and not ended.is_set():
            answered = self.answers(tokens)
        return answered


def thinking_model(folder: Path) -> Path:
    """The tiny model with the two tokens between which a model thinks, in place of two that it does not need."""
    shutil.copytree(f"{HERE}/models/glm-tiny", folder)
    tokenizer = folder / "tokenizer.json"
    said = tokenizer.read_text("utf-8").replace("<|system|>", "<think>").replace("<|observation|>", "</think>")
    tokenizer.write_text(said, "utf-8")
    return folder


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    live = live_of("0.32.0", {})
    assert isinstance(live, Live)
    live.prepare(folder)
    model = thinking_model(tmp_path_factory.mktemp("models") / "glm-thinks")
    engine = VllmEngine((f"{HERE}/venv/bin/vllm", "serve"), str(model))
    command: Command = engine.command({**ARGS, **live.args}, {**ENV, **live.env("{folder}")}, None)
    log = tmp_path_factory.mktemp("log") / "server.log"
    spec = LaunchSpec("live/0000", command.argv, log, command.env, folder=folder)
    with ProcessLauncher().launch(spec) as server:
        until(lambda: not server.life().running or _healthy(server), timeout_s=300)
        yield Changing(live, folder, server)
        assert server.life().running


def _healthy(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_it_runs_on_top_of_the_schedulers_own_choice(changing):
    status = changing.status(0)
    most = {"max_num_seqs": 16, "max_num_batched_tokens": 2048, "long_prefill_token_threshold": 2048}
    assert (status.most, status.engines) == (most, 1)
    assert changing.answers()


def test_lowered_in_mid_load_and_raised_again(changing):
    # users who never pause: however fast the machine is, requests wait whenever the limit is two
    with changing.loaded(12, 200):
        until(lambda: changing.running() > 2, timeout_s=60)
        changing.ask(1, max_num_seqs=2)
        until(lambda: changing.status(1).confirmed == 1)
        until(lambda: changing.running() == 2, timeout_s=60)
        changing.ask(2, max_num_seqs=16)
        until(lambda: changing.status(2).confirmed == 1)
        until(lambda: changing.running() > 2, timeout_s=60)


def test_changed_on_an_idle_server(changing):
    until(lambda: changing.running() == 0)
    changing.ask(3, max_num_seqs=1, max_num_batched_tokens=64, long_prefill_token_threshold=32)
    assert changing.status(3).confirmed == 0
    assert changing.answers()
    until(lambda: changing.status(3).confirmed == 1)
    with changing.loaded(4, 40):
        pass
    assert changing.answers()


@pytest.mark.parametrize("setting", [{"max_num_seqs": 17}, {"max_num_batched_tokens": 4096}, {"block_size": 32}])
def test_beyond_the_envelope_is_refused_and_the_server_lives_on(changing, setting):
    change = 10 + len(next(iter(setting)))
    changing.ask(change, **setting)
    assert changing.answers()
    until(lambda: changing.status(change).refused)
    assert changing.status(change).confirmed == 0
    assert changing.answers()


@pytest.mark.parametrize("holds", sdks.EVERYWHERE)
def test_openais_and_anthropics_own_clients_understand_it(changing, holds):
    until(lambda: changing.running() == 0)
    with sdks.clients(changing.server.url, "glm") as own:
        holds(own)


def test_tuners_own_client_reads_all_three_endpoints(changing):
    with sdks.clients(changing.server.url, "glm") as own, LoadClient() as client:
        results = sdks.loads_agree(own, client)
    exact = [results[each] for each in (Endpoint.CHAT, Endpoint.COMPLETIONS)]
    assert {record.output_tokens for result in exact for record in result.records} == {sdks.TOKENS}


def asked(folder, *overrides):
    return composing.load(
        [
            "experiment=vllm-cpu",
            f"engine.executable=[{HERE}/venv/bin/vllm,serve]",
            f"model.id={HERE}/models/glm-tiny",
            f"study.folder={folder}",
            "workload={min_duration_s: 3, requests: 16, output_tokens: 16}",
            "workload.single_user.requests=1",
            "workload.ttft_prompt_tokens=[]",
            "workload.warm_up={longest_tokens: 200, max_rounds: 2}",
            *overrides,
        ]
    )


def test_a_study_screens_several_settings_in_its_second_launch_and_launches_the_winner_again(tmp_path):
    # the noise of a busy CPU must not make the sixteen streams infeasible
    config = asked(tmp_path, "study.confirm=1", "objective.limits.tpot_p50_ms.max=2", "budget.trials=4")
    outcome = run_study(config, PlainLines(Standing(config), Console()).hear)
    baseline, envelope = outcome.searched
    assert present(baseline.facts).engine_version == "0.32.0"
    assert (baseline.params["max_num_seqs"], envelope.params["max_num_seqs"]) == (4, 16)
    assert len(envelope.screened) >= 4
    found = {each.setting["max_num_seqs"]: each.measurement.output_tokens_per_s for each in envelope.screened}
    assert present(found[1]) < present(found[16])
    assert outcome.best == envelope
    assert present(outcome.decision).goals["output_tokens_per_s"].gain > 0.3


def test_what_vllm_rejects_is_named_with_its_own_line(tmp_path):
    # pre-flight would not launch it
    config = asked(tmp_path, "+model.args.not_a_flag=3", "study.preflight=false")
    began = time.monotonic()
    with pytest.raises(StudyStopped) as stopped:
        run_study(config, lambda event: None)
    assert stopped.value.cause == "bad_flag"
    assert stopped.value.line == "vllm: error: unrecognized arguments: --not-a-flag 3"
    assert time.monotonic() - began < 90
