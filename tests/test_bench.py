"""`tuner bench run` measures a server that it did not start, and keeps the record."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest

from tests.present import present
from tuner.bench.running import asked
from tuner.errors import EngineUnavailable
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.records.folder import StudyFolder
from tuner.testing.launcher import answer

SIM = (
    sys.executable,
    "-m",
    "tuner.sim",
    "serve",
    "QuantTrio/GLM-4.7-Flash-AWQ",
    "--host",
    "{host}",
    "--port",
    "{port}",
)
SETTINGS = ("--tensor-parallel-size", "2", "--max-model-len", "4096", "--max-num-seqs", "32")
CLOCKS = ("--sim-clock-startup", "300", "--sim-clock-serving", "20")
QUICK = (
    "workload.prompt_tokens=64",
    "workload.output_tokens=16",
    "workload.requests=5",
    "workload.min_duration_s=0",
    "workload.single_user.output_tokens=16",
    "workload.ttft_prompt_tokens=[2000, 30000]",
    "workload.tool_call=false",
    "workload.warm_up={shortest_tokens: 16, longest_tokens: 64, max_rounds: 2}",
)


@pytest.fixture
def server(tmp_path):
    argv = (*SIM, *SETTINGS, *CLOCKS, "--api-key", "hush-hush")
    with ProcessLauncher().launch(
        LaunchSpec("stranger/0000", argv, tmp_path / "stranger.log", stop_grace_s=1)
    ) as server:
        answer(server)
        yield server


def listener(url):
    port = int(url.rsplit(":", 1)[1])
    return next(c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and port in c.laddr)


def bench(server, tmp_path, *options, **env):
    command = [sys.executable, "-m", "tuner", "bench", "run", server.url, *QUICK, f"study.folder={tmp_path}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


def test_a_running_server_is_measured_and_the_record_kept(server, tmp_path):
    done = bench(server, tmp_path, "--token-env", "KEY", "--json", KEY="hush-hush")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["output_tokens_per_s"] > 0
    (record,) = StudyFolder(tmp_path / "bench").records()
    assert present(record.measurement).output_tokens_per_s == measured["output_tokens_per_s"]
    assert server.life().running


def test_a_goodput_is_shown_with_its_interval_and_its_sample(server, tmp_path):
    promised = ("workload.slo={ttft_ms: 9e6}", "workload.requests=30", "workload.concurrency=3")
    shown = bench(server, tmp_path, *promised, "--token-env", "KEY", KEY="hush-hush").stdout
    assert "goodput_share            1.0 of requests  [0.886, 1.0]  n=30" in shown
    assert re.search(r"goodput_requests_per_s   [\d.]+ /s  \[[\d.]+, [\d.]+\]  n=30", shown)


def test_what_does_not_fit_the_servers_context_is_left_out_and_said(server, tmp_path):
    shown = bench(server, tmp_path, "--token-env", "KEY", KEY="hush-hush").stdout
    (record,) = StudyFolder(tmp_path / "bench").records()
    assert "ttft_30000_cold_ms       skipped: 30000 prompt" in shown
    assert [prompt.asked_tokens for prompt in present(record.measurement).long_prompts] == [2000]
    assert [skipped.what for skipped in record.skipped] == ["ttft_30000"]


@pytest.mark.parametrize("endpoint", ["completions", "messages"])
def test_any_of_the_endpoints_is_measured(server, tmp_path, endpoint):
    done = bench(server, tmp_path, f"workload.endpoint={endpoint}", "--token-env", "KEY", KEY="hush-hush")
    assert done.returncode == 0, done.stderr
    (record,) = StudyFolder(tmp_path / "bench").records()
    assert present(record.measurement).failed == 0
    log = (tmp_path / "stranger.log").read_text()
    assert log.count(f'"POST /v1/{endpoint} HTTP/1.1" 200 OK') > present(record.measurement).completed
    assert log.count('"POST /v1/chat/completions') <= 1  # by the fixture


def test_a_server_without_the_endpoint_is_named_before_any_load(tmp_path):
    argv = (*SIM, *SETTINGS, *CLOCKS, "--sim-version", "0.10")
    with ProcessLauncher().launch(LaunchSpec("stranger/0000", argv, tmp_path / "s.log", stop_grace_s=1)) as server:
        answer(server)
        done = bench(server, tmp_path, "workload.endpoint=messages")
    assert done.returncode == 1
    assert "the server has no /v1/messages (HTTP 404)" in done.stderr
    assert "workload.endpoint=chat" in done.stderr
    assert (tmp_path / "s.log").read_text().count('"POST /v1/') <= 2  # the fixture's, and the one that was refused


def test_the_token_is_written_nowhere(server, tmp_path):
    bench(server, tmp_path, "--token-env", "KEY", KEY="hush-hush")
    files = [path for path in (tmp_path / "bench").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hush-hush" in path.read_bytes()]


def test_without_its_token_a_server_is_refused_with_the_remedy(server, tmp_path):
    done = bench(server, tmp_path)
    assert done.returncode == 1
    assert "--token-env" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_goes_away_while_it_is_measured_is_said_to_have_gone(server, tmp_path):
    command = [sys.executable, "-m", "tuner", "bench", "run", server.url, *QUICK, "workload.requests=400"]
    command += [f"study.folder={tmp_path}", "--token-env", "KEY"]
    env = {**os.environ, "KEY": "hush-hush"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) as measuring:
        next(line for line in present(measuring.stderr) if line.startswith("measuring"))
        os.kill(listener(server.url), signal.SIGKILL)
        said = present(measuring.stderr).read()
    assert measuring.returncode == 1
    assert "Traceback" not in said
    assert "the server ended" in said


def test_a_server_that_names_its_model_in_hydras_grammar_receives_no_variable(tmp_path):
    name = "${oc.env:HUSH}"
    argv = (*SIM, *SETTINGS, *CLOCKS, "--served-model-name", name)
    with ProcessLauncher().launch(LaunchSpec("stranger/0000", argv, tmp_path / "s.log", stop_grace_s=1)) as server:
        answer(server)
        done = bench(server, tmp_path, HUSH="value-of-the-variable")
    assert done.returncode == 0, done.stderr
    assert "skipped: 30000 prompt" in done.stdout
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("value-of-the-variable" in text for text in [done.stdout, done.stderr, *written])


@pytest.mark.parametrize(
    ("listed", "asks_for"),
    [([None], None), ([7], None), ([" "], None), ([], None), ([None, "glm"], "glm"), (["a", "b"], "a")],
)
def test_a_model_without_a_name_is_never_asked_for(listed, asks_for):
    class Models(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": name} for name in listed]}).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        if asks_for:
            assert asked(url, (), None, None).model.id == asks_for
        else:
            with pytest.raises(EngineUnavailable, match="lists no model"):
                asked(url, (), None, None)
