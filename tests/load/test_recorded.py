"""Access logs and recorded requests are replayed as they came: their moments, scaled in time, and their lengths."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import pytest

from tests.load.test_arrivals import planned
from tuner.load.stage import Stage

NGINX = """\
10.0.0.1 - - [22/Nov/2026:09:00:00 +0000] "POST /v1/chat/completions HTTP/1.1" 200 5123 "-" "OpenAI/Python 1.99"
10.0.0.1 - - [22/Nov/2026:09:00:00 +0000] "GET /v1/models HTTP/1.1" 200 120 "-" "OpenAI/Python 1.99"
10.0.0.2 - - [22/Nov/2026:09:00:00 +0000] "POST /v1/completions HTTP/1.1" 200 5123 "-" "curl"
10.0.0.2 - - [22/Nov/2026:09:00:03 +0000] "POST /v1/chat/completions?x=1 HTTP/1.1" 200 5123 "-" "curl"
10.0.0.2 - - [22/Nov/2026:09:00:03 +0000] "POST /v1/chat/completions HTTP/1.1" 503 0 "-" "curl"
"""
UVICORN = """\
2026-11-22T09:00:00.250000000Z (APIServer pid=7) INFO 11-22 09:00:00 [launcher.py:46] Route: /tokenize, Methods: POST
2026-11-22T09:00:01.250000000Z INFO:     10.0.0.1:40612 - "POST /v1/chat/completions HTTP/1.1" 200 OK
2026-11-22T09:00:02.750000000Z INFO:     10.0.0.1:40612 - "POST /v1/messages HTTP/1.1" 200 OK
2026-11-22T09:00:05.250000000Z INFO:     10.0.0.1:40612 - "POST /v1/chat/completions HTTP/1.1" 200 OK
"""
USAGE = [
    {"time": "2026-11-22T09:00:00.500Z", "path": "/v1/chat/completions", "status": 200,
     "usage": {"prompt_tokens": 812, "completion_tokens": 64}},
    {"time": "2026-11-22T09:00:00.700Z", "path": "/v1/models", "status": 200},
    {"time": "2026-11-22T09:00:01.500Z", "path": "/v1/messages", "status": 200,
     "usage": {"input_tokens": 90, "output_tokens": 30}},
    {"time": "2026-11-22T09:00:02Z", "path": "/v1/chat/completions", "status": 429, "usage": None},
    {"time": "2026-11-22T09:00:04.500Z", "path": "/v1/chat/completions", "status": 200,
     "usage": {"prompt_tokens": 400, "completion_tokens": 8}},
]  # fmt: skip
PROXY = [
    {"startTime": 1795000000.25, "prompt_tokens": 100, "completion_tokens": 20, "request_body": "not kept"},
    {"startTime": 1795000002.25, "prompt_tokens": 200, "completion_tokens": 40},
    {"startTime": 1795000003.25, "response": json.dumps({"usage": {"prompt_tokens": 300, "completion_tokens": 60}})},
]
BODIES = [
    {"timestamp": 1795000000.0 + at, "url": "/v1/chat/completions",
     "body": {"messages": [{"role": "user", "content": f"Count to {at}."}], "max_completion_tokens": 10 + at}}
    for at in (0, 1, 5)
]  # fmt: skip


def replay(folder: Path, text: str, speed: float = 1.0, **given) -> list[Stage]:
    """What is for tuning, and what for the proof."""
    path = folder / f"log{len(text)}"  # a file is read once
    path.write_text(text)
    trace = {"file": str(path), "speed": speed}
    return [planned(trace=trace, held_out=held_out, **given)[0] for held_out in (False, True)]


def lines(records: Iterable[object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("text", "due_ms"),
    [
        (NGINX, (0, 500)),  # two in one second, spread over it
        (UVICORN, (0, 1500)),
        (lines(USAGE), (0, 1000)),
        (lines(PROXY), (0, 2000)),
        (lines(BODIES), (0, 1000)),
    ],
)
def test_arrivals_are_kept_and_scaled_in_time(tmp_path: Path, text: str, due_ms: tuple[float, ...]):
    tuning, proof = replay(tmp_path, text)
    assert tuning.due_ms == due_ms
    assert proof.due_ms == (0,)
    assert replay(tmp_path, text, speed=10.0)[0].due_ms == tuple(at / 10 for at in due_ms)


@pytest.mark.parametrize(
    ("records", "asked"), [(USAGE, [(812, 64), (90, 30), (400, 8)]), (PROXY, [(100, 20), (200, 40), (300, 60)])]
)
def test_lengths_are_those_of_the_answers_usage(tmp_path: Path, records, asked):
    sent = [request for stage in replay(tmp_path, lines(records)) for request in stage.requests]
    assert [(request.prompt_tokens, request.output_tokens) for request in sent] == asked


def test_a_log_without_lengths_has_those_of_the_workload(tmp_path: Path):
    minute = [f"{at // 60:02}:{at % 60:02}" for at in range(120)]
    log = "".join(f'[22/Nov/2026:09:{at} +0000] "POST /v1/chat/completions HTTP/1.1" 200 1\n' for at in minute)
    lengths = {"kind": "lognormal", "median": 500, "sigma": 0.5, "high": 3000}
    tuning, proof = replay(tmp_path, log, prompt_tokens=lengths, output_tokens=20)
    prompts = [request.prompt_tokens or 0 for request in tuning.requests]
    assert len(prompts) == len(proof.requests) == 60
    assert len(set(prompts)) > 50
    assert mean(prompts) == pytest.approx(500 * 2.718**0.125, rel=0.05)
    assert prompts != [request.prompt_tokens for request in proof.requests]
    assert {request.output_tokens for request in tuning.requests} == {20}


def test_the_server_receives_an_access_log_and_recorded_requests(client, server, tmp_path: Path):
    server.ttft_s, server.itl_s = 0.005, 0.0005
    for text, most in ((lines(USAGE), [64, 30]), (lines(BODIES), [10, 11])):
        server.bodies.clear()
        stage = replay(tmp_path, text, speed=5.0, min_duration_s=0)[0]
        result = client.run(stage, server.target)
        assert [record.started_ms for record in result.records] == pytest.approx(stage.due_ms, abs=50)
        assert [body["max_tokens"] for body in server.bodies] == most
    assert [body["messages"][0]["content"].splitlines()[1] for body in server.bodies] == ["Count to 0.", "Count to 1."]
