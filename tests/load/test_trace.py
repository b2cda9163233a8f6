"""A recorded trace is sent as it was recorded: arrivals, lengths, and what its prompts share."""

import json
import os
from pathlib import Path

import pytest

from tests.load.test_arrivals import CALIBRATION, planned
from tuner.errors import ConfigError
from tuner.load.plan import plan
from tuner.load.shapes import Trace
from tuner.load.stage import Stage
from tuner.load.trace import half
from tuner.load.workload import Workload

SAMPLE = Path(__file__).parents[1] / "data" / "mooncake-sample.jsonl"
LINES = [json.loads(line) for line in SAMPLE.read_text().splitlines()]


def replay(file: Path = SAMPLE, speed: float = 1.0, **given) -> Stage:
    return planned(trace={"file": str(file), "speed": speed}, **given)[0]


def test_the_first_half_is_for_tuning_and_the_second_one_for_the_proof():
    halves = [[line.timestamp for line in half(Trace(file=SAMPLE), held_out)] for held_out in (False, True)]
    assert halves == [[line["timestamp"] for line in part] for part in (LINES[:20], LINES[20:])]


def test_arrivals_are_kept_and_scaled_in_time():
    recorded = [line["timestamp"] - LINES[0]["timestamp"] for line in LINES[:20]]
    assert list(replay(speed=4.0).due_ms) == pytest.approx([at / 4 for at in recorded], abs=0.001)
    assert replay(speed=4.0, clock_scale=2.0).due_ms[-1] == pytest.approx(recorded[-1] / 8, abs=0.001)


def test_lengths_are_kept_and_no_prompt_is_that_of_another_measurement():
    one, other = replay(), replay(seed=2)
    asked = [(request.prompt_tokens, request.output_tokens) for request in one.requests]
    assert asked == [(line["input_length"], line["output_length"]) for line in LINES[:20]]
    assert {request.seed for request in one.requests}.isdisjoint(request.seed for request in other.requests)


def test_requests_that_do_not_fit_are_left_out_and_said():
    workload = Workload.model_validate({"name": "w", "trace": {"file": str(SAMPLE)}, "tool_call": False})
    longest = max(line["input_length"] for line in LINES[:20])
    made = plan(workload, seed=1, context_tokens=longest, kv_tokens=None, calibration=CALIBRATION)
    kept = [r.prompt_tokens for r in made.stages[0].requests]
    assert 10 < len(kept) == len(made.stages[0].due_ms) < 20
    assert made.skipped[0].what == f"{20 - len(kept)} of 20 requests of the trace"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"timestamp": 1, "input_length": 5}\n', "has 1 requests"),
        ('{"timestamp": 1, "input_length": 5}\nnot JSON\n', "line 2: Invalid JSON"),
        ('{"input_length": 5}\n', "line 1: timestamp: Field required"),
        ('{"timestamp": 1}\n', "neither input_length nor messages nor prompt"),
        ('{"timestamp": 1, "usage": {"prompt_tokens": 5}}\n[1]\n', "line 2: no JSON object"),
        ('10.0.0.1 - - [22/Nov/2026:09:00:00 +0000] "GET /health HTTP/1.1" 200 0\n', "has 0 requests"),
        (None, "cannot be read"),
        (os.mkfifo, "cannot be read: not a regular file"),
        (os.mkdir, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path, content, said):
    path = tmp_path / "trace.jsonl"
    if callable(content):
        content(path)
    elif content:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        half(Trace(file=path), held_out=False)


def test_the_server_receives_the_trace(client, server):
    """In its order and at its moments; two prompts begin alike for exactly as long as their blocks are the same."""
    server.ttft_s, server.itl_s = 0.005, 0.0005
    stage = replay(speed=10.0, min_duration_s=0)
    result = client.run(stage, server.target)
    assert [record.scheduled_ms for record in result.records] == pytest.approx(stage.due_ms, abs=0.01)
    late_ms = [record.started_ms - due for record, due in zip(result.records, stage.due_ms, strict=True)]
    assert max(late_ms) == pytest.approx(result.send_lag_max_ms, abs=0.1)
    texts = {len(words): words for body in server.bodies if (words := body["messages"][0]["content"].split())}
    block = round(512 / CALIBRATION.tokens_per_word)
    words_of = [request.words + block * len(request.prefix) for request in stage.requests]
    sent = [(line["hash_ids"], texts[count]) for line, count in zip(LINES[:20], words_of, strict=True)]
    for ids, words in sent:
        for others, those in sent:
            same = next((n for n, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), 0)
            assert words[: same * block] == those[: same * block]
            assert ids == others or words[same * block :][:6] != those[same * block :][:6]


def test_recorded_texts_are_sent_as_they_are_behind_words_of_the_measurement(client, server, tmp_path):
    said = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Why?"}]
    lines = [
        {"timestamp": 0, "messages": said, "max_tokens": 3},
        {"timestamp": 40, "prompt": "How?", "output_length": 4},
        {"timestamp": 50, "prompt": "held out"},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    result = client.run(replay(path, min_duration_s=0), server.target)
    first, second = (body["messages"] for body in server.bodies)
    news = first[0]["content"].removesuffix("You are terse.")
    assert len(news.split()) == 6
    assert first == [{"role": "system", "content": f"{news}You are terse."}, said[1]]
    assert second == [{"role": "user", "content": f"{news}How?"}]
    assert [body["max_tokens"] for body in server.bodies] == [3, 4]
    assert "terse" not in str(result.records)
