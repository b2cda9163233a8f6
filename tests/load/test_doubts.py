"""What a client must say when what it receives is not what happened: real streams, as a proxy or server sends them."""

import pytest

from tuner.errors import MeasurementError
from tuner.load.metrics import measure
from tuner.load.stage import Request, Stage
from tuner.load.workload import Workload

WORKLOAD = Workload(name="w", concurrency=1, requests=1)
TOKENS = 40


def measured(client, server, requests=3):
    made = tuple(Request(f"7/{index}", 20, 30, TOKENS) for index in range(requests))
    return measure([client.run(Stage("concurrent", 1, made, 0.7, 10.0, 0), server.target)], WORKLOAD)


def chunks(server, count=TOKENS, text="a ", reason="length"):
    return [server.delta(reason if n == count - 1 else None, content=text) for n in range(count)]


def held_back(server, answer, per_read):
    """The stream of an honest server, through something that passes on so many chunks at a time."""

    def play(body):
        sent = chunks(server)
        reads = [b"".join(sent[n : n + per_read]) for n in range(0, len(sent), per_read)]
        pieces = [(0.05 + 0.01 * min(per_read, TOKENS), read) for read in reads[:1]]
        pieces += [(0.01 * per_read, read) for read in reads[1:]]
        return answer([*pieces, (0, server.usage(body, TOKENS))])

    return play


def test_a_stream_in_one_piece_has_no_times_of_tokens_and_says_so(client, server, answer):
    server.answer = held_back(server, answer, TOKENS)
    found = measured(client, server)
    assert (found.ttft_p50_ms, found.itl_p50_ms, found.concurrent_tpot_p50_ms) == (None, None, None)
    assert found.output_tokens_per_s == pytest.approx(TOKENS / 0.45, rel=0.2)
    assert found.e2e_p50_ms == pytest.approx(450, abs=60)
    assert "in one piece" in found.warnings[0]
    assert "nginx" in found.warnings[0]


def test_a_stream_in_lumps_has_no_times_of_tokens_and_says_so(client, server, answer):
    server.answer = held_back(server, answer, 20)
    found = measured(client, server)
    assert (found.ttft_p50_ms, found.itl_p50_ms, found.concurrent_tpot_p50_ms) == (None, None, None)
    assert "in lumps" in found.warnings[0]


def test_one_chunk_with_all_tokens_is_a_stream_in_one_piece(client, server, answer):
    server.answer = lambda body: answer(
        [(0.1, server.delta("length", content="a " * TOKENS)), (0, server.usage(body, TOKENS))]
    )
    assert "in one piece" in measured(client, server).warnings[0]


def test_a_stream_that_comes_chunk_by_chunk_is_not_doubted(client, server):
    found = measured(client, server)
    assert found.warnings == ()
    assert found.tokens_per_chunk == 1.0


def test_answers_shorter_than_asked_are_a_warning(client, server, answer):
    def short(body):
        sent = [(0.01, chunk) for chunk in chunks(server, 8, reason="stop")]
        return answer([*sent, (0, server.usage(body, 8))])

    server.answer = short
    assert (
        "3 of 3 answers were shorter than asked: the server does not honour ignore_eos"
        in measured(client, server).warnings[0]
    )


@pytest.mark.parametrize("details", [{"completion_tokens_details": {"reasoning_tokens": 30}}, {}])
def test_tokens_that_are_counted_but_not_streamed_leave_no_tpot(client, server, answer, details):
    def hiding(body):
        sent = [(0.3, chunks(server)[0]), *((0.01, chunk) for chunk in chunks(server, 9))]
        return answer([*sent, (0, server.usage(body, TOKENS, **details))])

    server.answer = hiding
    found = measured(client, server)
    assert found.concurrent_tpot_p50_ms is None
    assert found.ttft_p50_ms == pytest.approx(300, abs=40)
    assert "never streamed" in found.warnings[0]


def test_several_tokens_a_chunk_are_reported_and_explained(client, server, answer):
    def bundled(body):
        sent = [(0.02, chunk) for chunk in chunks(server, 10, text="a b c d ")]
        return answer([*sent, (0, server.usage(body, TOKENS))])

    server.answer = bundled
    found = measured(client, server)
    assert found.tokens_per_chunk == 4.0
    assert found.itl_p50_ms == pytest.approx(20, abs=5)
    assert found.concurrent_tpot_p50_ms == pytest.approx(9 * 20 / 39, rel=0.2)
    assert "A chunk carries 4.0 tokens" in found.warnings[0]


@pytest.mark.parametrize("counted", [10**12, 2 * TOKENS, 3, -1])
def test_counts_that_cannot_be_void_the_measurement(client, server, answer, counted):
    server.answer = lambda body: answer([*((0.001, c) for c in chunks(server)), (0, server.usage(body, counted))])
    with pytest.raises(MeasurementError, match="token counts cannot be true in 3 of 3 answers: it counts"):
        measured(client, server)


def test_a_prompt_that_counts_far_more_than_was_sent_voids_the_measurement(client, server, answer):
    server.answer = lambda body: answer(
        [*((0.001, c) for c in chunks(server)), (0, server.usage(body, TOKENS, prompt_tokens=10**12))]
    )
    with pytest.raises(MeasurementError, match="prompt tokens where about 30 were sent"):
        measured(client, server)


def test_one_answer_in_twelve_that_ends_within_a_character_hides_nothing(client, server, answer):
    """It counts tokens without text. On an H200 with random weights one of 15 cost a study's launch its TPOT."""
    sent = []

    def cut(body):
        sent.append(body)
        if len(sent) != 5:
            return answer([*((0.01, chunk) for chunk in chunks(server)), (0, server.usage(body, TOKENS))])
        return answer([*((0.01, chunk) for chunk in chunks(server, 8)), (0, server.usage(body, TOKENS))])

    server.answer = cut
    found = measured(client, server, requests=12)
    assert found.concurrent_tpot_p50_ms == pytest.approx(10, rel=0.3)
    assert found.warnings == ()
