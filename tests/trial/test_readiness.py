"""Ready means: the model answered, and the server that answered is the one that was launched."""

import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from pydantic import JsonValue

from tests.present import present
from tuner.engines.base import Phase
from tuner.engines.causes import Fate
from tuner.engines.vllm.engine import VllmEngine
from tuner.errors import (
    InfeasibleConfig,
    NotReady,
    OutOfMemory,
    PortTaken,
    RequestsRefused,
    TrialError,
    Unexplained,
)
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.load.endpoints.endpoint import Endpoint
from tuner.testing.launcher import until
from tuner.trial.readiness import Probe, Stopwatch, Watch, wait_until_ready

MODEL = "QuantTrio/GLM-4.7-Flash-AWQ"
ARGS: dict[str, JsonValue] = {
    "tensor_parallel_size": 2,
    "max_model_len": 8192,
    "max_num_seqs": 32,
    "sim_clock_startup": 300,
    "sim_clock_serving": 40,
    "served_model_name": ["glm"],
}
LIMITS_S = dict.fromkeys(Phase, 20.0)


@contextmanager
def launched(tmp_path, alias="tuner-ours", **args):
    """A simulated server with a watch on it; yields the watch, a probe, and the phases as they come."""
    engine = VllmEngine((sys.executable, "-m", "tuner.sim", "serve"), MODEL)
    command = engine.command({**ARGS, **args}, {}, alias)
    phases: list[Phase] = []
    spec = LaunchSpec("test/0000", command.argv, tmp_path / "server.log", command.env, stop_grace_s=1)
    with ProcessLauncher().launch(spec) as server:
        yield Watch(server, engine, Stopwatch(phases.append)), Probe(server.url, "glm", {}, alias), phases


def test_ready_means_that_the_model_has_answered(tmp_path):
    with launched(tmp_path) as (watch, probe, phases):
        wait_until_ready(watch, probe, LIMITS_S)
        assert watch.serving
        assert '"POST /v1/chat/completions HTTP/1.1" 200 OK' in (tmp_path / "server.log").read_text()
    assert phases == list(dict.fromkeys(phases)), "a phase is entered once"
    assert phases[0] is Phase.STARTING
    assert [phase for phase in phases if phase in (Phase.LOADING_WEIGHTS, Phase.COMPILING, Phase.CAPTURING_GRAPHS)] == [
        Phase.LOADING_WEIGHTS,
        Phase.COMPILING,
        Phase.CAPTURING_GRAPHS,
    ]


def test_the_orphan_of_an_earlier_launch_is_never_measured(tmp_path):
    with launched(tmp_path, alias="tuner-earlier") as (watch, probe, _):
        wait_until_ready(watch, probe, LIMITS_S)
        ours = Probe(probe.url, "glm", {}, "tuner-ours")
        with pytest.raises(PortTaken, match="tuner-earlier"):
            ours.answer()


@pytest.mark.parametrize(
    ("fault", "error", "line"),
    [
        ("oom-weights", OutOfMemory, "CUDA out of memory"),
        ("oom-profile", OutOfMemory, "CUDA out of memory"),
        ("oom-kv", OutOfMemory, "No available memory for the cache blocks"),
        ("oom-sampler", OutOfMemory, "when warming up sampler"),
        ("crash-at=weights", Unexplained, None),
        ("segfault", Unexplained, None),
    ],
)
def test_a_death_in_start_up_costs_no_timeout_and_names_its_line(tmp_path, fault, error, line):
    began = time.monotonic()
    with launched(tmp_path, sim_fault=[fault]) as (watch, probe, _), pytest.raises(error) as died:
        wait_until_ready(watch, probe, LIMITS_S)
    assert time.monotonic() - began < 10
    if line:
        assert line in died.value.line


def test_a_rejected_flag_is_the_configurations_fault(tmp_path):
    with launched(tmp_path, not_a_flag=3) as (watch, probe, _), pytest.raises(InfeasibleConfig) as rejected:
        wait_until_ready(watch, probe, LIMITS_S)
    assert rejected.value.cause == "bad_flag"
    assert "--not-a-flag" in present(rejected.value.line)


def test_a_phase_without_progress_is_stalled_when_its_own_limit_has_passed(tmp_path):
    limits = {**LIMITS_S, Phase.PROFILING: 1.0}
    with launched(tmp_path, sim_fault=["hang=graphs"]) as (watch, probe, phases), pytest.raises(NotReady) as stalled:
        wait_until_ready(watch, probe, limits)
    assert stalled.value.cause == "stalled"
    assert phases[-1] is Phase.PROFILING
    assert "profiling memory" in stalled.value.message


def test_progress_renews_a_phases_limit(tmp_path):
    """Three seconds of start-up pass under a limit of one second, since something new comes all the time."""
    limits = dict.fromkeys(Phase, 1.5)
    began = time.monotonic()
    with launched(tmp_path, sim_clock_startup=40) as (watch, probe, _):
        wait_until_ready(watch, probe, limits)
    assert time.monotonic() - began > 1.5


REPEATING = """
import time
for second in range(90):
    print(f"INFO 11-22 09:00:{second:02d} [shm_broadcast.py:1] No available shared memory broadcast block", flush=True)
    time.sleep(0.3)
"""


def test_a_line_that_only_repeats_itself_is_no_progress(tmp_path):
    spec = LaunchSpec("test/0000", (sys.executable, "-c", REPEATING), tmp_path / "server.log")
    engine = VllmEngine(("unused",), MODEL)
    with ProcessLauncher().launch(spec) as server:
        watch = Watch(server, engine, Stopwatch(lambda phase: None))
        with pytest.raises(TrialError) as stalled:
            wait_until_ready(watch, Probe(server.url, "glm"), dict.fromkeys(Phase, 1.0))
    assert stalled.value.cause == "stalled"


def test_a_death_under_load_is_seen_within_a_second(tmp_path):
    with launched(tmp_path, sim_fault=["die-after=1"]) as (watch, probe, _):
        wait_until_ready(watch, probe, LIMITS_S)
        body = {"model": "glm", "max_tokens": 50, "messages": [{"role": "user", "content": "Count."}]}
        until(lambda: httpx.post(f"{probe.url}/v1/chat/completions", json=body).status_code == 500)
        died = time.monotonic()
        with pytest.raises(TrialError) as seen:
            until(lambda: watch.check() is not None, 5)
        assert time.monotonic() - died < 1
    assert seen.value.cause == "engine_died"


def test_a_missing_key_is_named(tmp_path):
    with launched(tmp_path, api_key=["secret"]) as (watch, probe, _), pytest.raises(RequestsRefused) as refused:
        wait_until_ready(watch, probe, LIMITS_S)
    assert "/v1/models (HTTP 401)" in refused.value.message
    assert "launcher.token_env" in refused.value.fix


def test_the_probe_asks_the_endpoint_that_the_load_will_go_to(tmp_path):
    with launched(tmp_path) as (watch, probe, _):
        wait_until_ready(watch, replace(probe, endpoint=Endpoint.MESSAGES), LIMITS_S)
    assert '"POST /v1/messages HTTP/1.1" 200 OK' in (tmp_path / "server.log").read_text()


def test_a_server_without_the_endpoint_is_refused_and_one_without_the_model_is_another_matter(tmp_path):
    with launched(tmp_path, sim_version="0.10") as (watch, probe, _):
        wait_until_ready(watch, probe, LIMITS_S)
        with pytest.raises(RequestsRefused, match="the server has no /v1/messages") as refused:
            replace(probe, endpoint=Endpoint.MESSAGES).answer()
        with pytest.raises(RequestsRefused, match="does not exist"):
            replace(probe, alias=None, model="nobody").answer()
    assert "workload.endpoint=chat" in refused.value.fix


FLOOD = """
import http.server, sys
line = "(EngineCore pid=1) INFO 11-22 09:00:00 [weights.py:1] tensor {} of a file that is far too chatty, at {}\\n"
for block in range(MB * 10):
    sys.stdout.write("".join(line.format(block, number) for number in range(1000)))
sys.stdout.flush()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b'{"data": [{"id": "glm", "max_model_len": 4096}]}')
    def do_POST(self):
        self.answer(b"{}")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_prints_much_is_ready_when_it_is_ready_and_its_log_is_not_kept_whole(tmp_path):
    program = FLOOD.replace("MB", "20")
    spec = LaunchSpec("test/0000", (sys.executable, "-c", program, "{port}"), tmp_path / "server.log")
    with ProcessLauncher().launch(spec) as server:
        watch = Watch(server, VllmEngine(("unused",), MODEL), Stopwatch(lambda phase: None))
        assert wait_until_ready(watch, Probe(server.url, "glm"), LIMITS_S) == 4096
        assert server.log.path.stat().st_size > 15 << 20
        assert server.log.unread == 0
        assert len(server.log.lines) <= 10_000


def test_a_verdict_takes_no_longer_when_the_log_is_long():
    reader = VllmEngine(("unused",), MODEL).reader()
    for number in range(20_000):
        reader.read(f"ERROR 11-22 09:00:00 [core.py:1] RuntimeError: request {number} failed")
    began = time.process_time()
    for _ in range(100):
        reader.diagnose(Fate(running=True))
    assert time.process_time() - began < 0.1
