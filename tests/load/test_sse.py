"""Reading streams: the real one of vLLM 0.32.0 beside this file, and every way of cutting it up."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.load import sse

REAL = (Path(__file__).parent / "vllm-0.32.0-cpu-chat-stream.sse").read_bytes()


def read_in_pieces(data: bytes, size: int) -> sse.Reply:
    """As if every ``size`` bytes arrived one millisecond after the last."""
    ends = [min(start + size, len(data)) for start in range(0, len(data), size)]
    return sse.read(data, ends, [float(i) for i in range(len(ends))])


def events(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks)


def choice(finish_reason: str | None = None, **delta: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def test_vllms_own_stream_has_16_token_chunks_and_its_usage():
    reply = read_in_pieces(REAL, len(REAL))
    assert len(reply.chunk_ms) == 16
    assert (reply.prompt_tokens, reply.output_tokens, reply.cached_tokens) == (11, 16, None)
    assert reply.finish_reason == "length"
    assert reply.error is reply.malformed is None


@pytest.mark.parametrize("size", [1, 2, 7, 64, 219, 1000])
def test_however_the_bytes_are_cut_the_same_is_read(size):
    whole, cut = read_in_pieces(REAL, len(REAL)), read_in_pieces(REAL, size)
    assert len(cut.chunk_ms) == len(whole.chunk_ms)
    assert (cut.output_tokens, cut.finish_reason, cut.malformed) == (16, "length", None)


def test_a_chunk_has_the_time_of_the_read_that_completed_it():
    data = events(choice(content="ab"), choice("length", content="cd"))
    middle = data.index(b"cd")
    reply = sse.read(data, [middle - 3, middle, len(data)], [5.0, 8.0, 13.0])
    assert reply.chunk_ms == [5.0, 13.0]


def test_the_role_only_chunk_is_not_the_first_token():
    reply = sse.read(data := events(choice(role="assistant", content="")), [len(data)], [1.0])
    assert reply.chunk_ms == []


def test_the_role_only_chunk_is_noted_as_the_streams_opening_and_a_first_chunk_with_text_is_not():
    opened = read_in_pieces(events(choice(role="assistant", content=""), choice(content="a"), choice("stop")), 1)
    assert opened.opened_ms is not None
    assert opened.opened_ms < opened.chunk_ms[0]
    assert read_in_pieces(events(choice(role="assistant", content="a"), choice("stop")), 1).opened_ms is None


@pytest.mark.parametrize("key", ["content", "reasoning", "reasoning_content"])
def test_the_first_delta_of_any_kind_is_the_first_token(key):
    data = events(choice(role="assistant", content=""), choice(**{key: "hm"}), choice("stop", content="so"))
    assert len(read_in_pieces(data, len(data)).chunk_ms) == 2


def test_a_tool_call_delta_is_a_token_and_is_noticed():
    data = events(choice(tool_calls=[{"index": 0, "function": {"name": "get_weather"}}]), choice("tool_calls"))
    reply = read_in_pieces(data, len(data))
    assert (len(reply.chunk_ms), reply.tool_called, reply.finish_reason) == (2, True, "tool_calls")


def test_a_token_without_text_counts_since_half_a_character_is_one():
    data = events(choice(content="caf"), choice(content=""), choice("length", content="é"))
    assert len(read_in_pieces(data, len(data)).chunk_ms) == 3


def test_an_empty_delta_is_no_first_token():
    data = events(choice(), choice(content=""), choice("length", content="é"))
    assert len(read_in_pieces(data, len(data)).chunk_ms) == 1


def test_reasoning_that_is_counted_but_not_streamed_is_hidden():
    counts = {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
    usage = events({"choices": [], "usage": counts})
    silent = events(choice("length", content="42")) + usage
    open_ = events(choice(reasoning="hm"), choice("length", content="42")) + usage
    hidden = [read_in_pieces(data, len(data)).hidden_tokens for data in (silent, open_)]
    assert hidden == [7, 0]


def test_a_character_split_between_two_reads_breaks_nothing():
    data = events(choice("length", content="日本"))
    cut = data.index("本".encode()) + 1
    reply = sse.read(data, [cut, len(data)], [1.0, 2.0])
    assert (reply.chunk_ms, reply.malformed) == ([2.0], None)


def test_unicode_line_separators_inside_a_chunk_do_not_split_it():
    data = events(choice("length", content="a\u2028b\u0085c"))
    reply = read_in_pieces(data, len(data))
    assert (reply.finish_reason, reply.malformed) == ("length", None)


def test_comments_and_carriage_returns_are_part_of_the_format():
    data = b": ping\r\n\r\n" + events(choice("stop", content="x")).replace(b"\n", b"\r\n")
    reply = read_in_pieces(data, 3)
    assert (len(reply.chunk_ms), reply.finish_reason) == (1, "stop")


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "EngineCore encountered an issue.", "code": 500}},
        {"object": "error", "message": "EngineCore encountered an issue.", "code": 500},
    ],
)
@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b""])
def test_an_error_chunk_is_an_error_with_or_without_done(chunk, done):
    data = events(choice(content="x"), chunk) + done
    assert read_in_pieces(data, len(data)).error == "EngineCore encountered an issue."


def test_an_error_event_of_llamacpp_is_an_error_with_its_status():
    data = b'error: {"code":400,"message":"the request exceeds the available context size."}\n\ndata: [DONE]\n\n'
    reply = read_in_pieces(data, len(data))
    assert (reply.error, reply.error_code) == ("the request exceeds the available context size.", 400)


def test_usage_in_every_chunk_leaves_the_last_one_standing():
    first = choice(content="a") | {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    last = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    data = events(first, choice("length", content="b"), last)
    assert read_in_pieces(data, len(data)).output_tokens == 2


def test_cached_tokens_are_read_where_the_server_tells_them():
    usage = {"prompt_tokens": 90, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 80}}
    data = events({"choices": [], "usage": usage})
    assert read_in_pieces(data, len(data)).cached_tokens == 80


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {not json\n\n",
        b"data: 7\n\n",
        b'data: {"choices": [1]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": 7}]}\n\n',
        b'data: {"usage": {"prompt_tokens": "many"}}\n\n',
        b'data: {"usage": {"completion_tokens": NaN}}\n\n',
        b'data: {"usage": {"completion_tokens": Infinity}}\n\n',
    ],
)
def test_an_event_that_is_no_chunk_is_kept_as_evidence(garbage):
    reply = read_in_pieces(garbage, len(garbage))
    assert reply.malformed == garbage.decode().strip().removeprefix("data: ")
