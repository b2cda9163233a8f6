"""A server's output is redacted as it comes, in whatever pieces it does."""

import tracemalloc

import pytest

from tuner import secrets
from tuner.launchers.redacting import Redacting

SECRET = "planted-value-0001"


@pytest.fixture
def cut(monkeypatch):
    """A stream with one secret on the list."""
    monkeypatch.setattr(secrets, "_listed", {SECRET: None})
    return Redacting()


@pytest.mark.parametrize("place", range(1, len(SECRET)))
def test_a_secret_that_comes_in_two_pieces_is_in_neither(cut, place):
    """The server's main process may be dead while a worker has written half a line."""
    whole = f"key {SECRET} on\n".encode()
    written = cut.feed(whole[: 4 + place]) + cut.pause() + cut.feed(whole[4 + place :]) + cut.end()
    assert place < 4 or written == b"key *** on\n"
    assert SECRET[place:].encode() not in written or place < 4


def test_the_beginning_of_a_secret_is_not_the_last_word(cut):
    assert cut.feed(b"bye planted-val") + cut.end() == b"bye ***"


def test_a_line_that_does_not_end_is_written_and_takes_no_memory(cut):
    tracemalloc.start()
    length = sum(len(cut.feed(b"x" * 60_000 + SECRET.encode())) for _ in range(200)) + len(cut.end())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length == 200 * (60_000 + len("***"))
    assert most < 20 << 20
